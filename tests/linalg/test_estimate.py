"""How an estimate is printed, and the error of a mean."""

import numpy as np

import hvp


def test_an_array_of_estimates_is_read_by_its_ends():
    found = hvp.Estimate(np.array([3.0, 1.0, 2.0]), np.array([0.1, 0.25, 0.2]))
    assert str(found) == "3 values from 1 to 3, ± 0.25 at most"


def test_nothing_has_no_negative_zero_for_an_error():
    assert str(hvp.squared_frobenius_norm(np.zeros((200, 200)), num_products=20)) == "0 ± 0"

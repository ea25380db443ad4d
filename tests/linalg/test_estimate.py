"""How an estimate is printed, and the standard error of a mean."""

import numpy as np
import scipy.stats

import hvp
from hvp.linalg.estimate import standard_error_of_mean


def test_an_array_is_printed_by_its_extremes():
    found = hvp.Estimate(np.array([3.0, 1.0, 2.0]), np.array([0.1, 0.25, 0.2]))
    assert str(found) == "3 values from 1 to 3, ± 0.25 at most"


def test_zero_has_no_negative_zero_for_an_error():
    assert str(hvp.squared_frobenius_norm(np.zeros((200, 200)), num_products=20)) == "0 ± 0"


def test_a_number_is_printed_with_its_error():
    assert str(hvp.Estimate(1234567.0, 10.0)) == "1.23457e+06 ± 10"


def test_the_error_of_a_mean_of_a_single_sample_is_unknown():
    assert np.isnan(standard_error_of_mean(np.ones((1, 3)))).tolist() == [True] * 3
    assert standard_error_of_mean(np.empty(0)) == 0
    rows = np.random.default_rng(0).standard_normal((5, 2))
    expected = rows.std(axis=0, ddof=1) / np.sqrt(5) * scipy.stats.t.ppf(0.975, 4) / 1.959964
    np.testing.assert_allclose(standard_error_of_mean(rows), expected, rtol=1e-6)

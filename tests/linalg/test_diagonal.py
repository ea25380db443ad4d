"""The diagonal by probes and a basis; what it shares with the trace is in `test_trace`."""

import numpy as np
import pytest
from support.estimators import MATRICES, SEEDS, assert_unbiased

import hvp


@pytest.mark.parametrize("name", MATRICES)
def test_every_entry_of_a_diagonal_is_unbiased_and_its_error_right(name):
    A = MATRICES[name]
    estimates = [hvp.diagonal(A, num_products=40, seed=seed) for seed in SEEDS]
    assert_unbiased(estimates, np.diag(A), z=5.0, once=(0.65, 0.75), twice=0.94)

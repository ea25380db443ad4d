"""log det(A + δI) and the effective dimension, against dense algebra."""

import numpy as np
import pytest
from support.estimators import MATRICES, P

import hvp
from hvp import InputError


class Known:
    """A density by dense algebra: every integral is exact."""

    def __init__(self, matrix):
        self.values = np.linalg.eigvalsh(matrix)

    def integral(self, f):
        return hvp.Estimate(float(f(self.values).sum()), 0.0, len(self.values))


@pytest.mark.parametrize("shift", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("name", ["flat", "spiked", "low rank, not reached"])
def test_log_determinant_and_effective_dimension_agree_with_dense_algebra(name, shift):
    A = MATRICES[name]
    shifted = A + shift * np.eye(P)
    found = hvp.log_determinant(Known(A), shift)
    assert found.value == pytest.approx(np.linalg.slogdet(shifted)[1])
    assert found.num_products == P
    dimension = np.trace(np.linalg.solve(shifted, A))
    assert hvp.effective_dimension(Known(A), shift).value == pytest.approx(dimension)


def test_effective_dimension_goes_from_nothing_to_the_rank():
    A = Known(MATRICES["low rank, not reached"])
    assert hvp.effective_dimension(A, 1e-9).value == pytest.approx(30, rel=1e-6)
    assert hvp.effective_dimension(A, 1e9).value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("function", [hvp.log_determinant, hvp.effective_dimension])
def test_rounding_below_zero_counts_as_zero(function):
    exact, rounded = (Known(np.diag([low, 1.0, 2.0])) for low in (0.0, -1e-7))
    assert function(rounded, 1e-9).value == function(exact, 1e-9).value


@pytest.mark.parametrize("function", [hvp.log_determinant, hvp.effective_dimension])
def test_bad_input_for_sums_over_a_spectrum_is_refused(function):
    words = r"a positive semidefinite operator, got an eigenvalue of about -1; take G instead of H"
    with pytest.raises(InputError, match=words):
        function(Known(MATRICES["indefinite"]), 5.0)
    for shift in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match=f"a finite shift above zero, got {shift}"):
            function(Known(np.eye(2)), shift)

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


# --- the bracket of Gauss and Gauss-Radau rules ---

HALF_ZERO = np.r_[np.zeros(100), np.logspace(-7, 1, 100)]
PSD_SPECTRA = {
    "half zero": HALF_ZERO,
    "one huge": np.r_[5e4, np.linspace(0.5, 1.5, 199)],
    "power law": np.arange(1.0, 201) ** -3,
    "identity": np.ones(200),
}


def exact_value(function, values, shift):
    if function is hvp.log_determinant:
        return np.log(values + shift)
    return values / (values + shift)


@pytest.mark.parametrize("function", [hvp.log_determinant, hvp.effective_dimension])
@pytest.mark.parametrize("spectrum", PSD_SPECTRA)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("num_probes", "num_steps"), [(4, 1), (4, 15), (10, 30)])
def test_the_depth_brackets_what_the_probes_see(function, spectrum, dtype, num_probes, num_steps):
    values = PSD_SPECTRA[spectrum]
    d = hvp.density(np.diag(values).astype(dtype), num_probes=num_probes, num_steps=num_steps)
    V = np.random.default_rng(0).standard_normal((num_probes, 200), dtype=dtype).astype(float)
    weights = (V**2 / np.sum(V**2, axis=1, keepdims=True)).mean(axis=0)
    for shift in np.logspace(-7, 1, 9):
        exact = 200 * weights @ exact_value(function, values, shift)
        found = function(d, shift)
        rounding = 1e-5 if dtype == "float32" else 1e-9
        assert found.value - found.depth <= exact + rounding * abs(exact)
        assert exact <= found.value + found.depth + rounding * abs(exact)


@pytest.mark.parametrize("function", [hvp.log_determinant, hvp.effective_dimension])
def test_the_value_is_the_midpoint_of_the_bracket(function):
    """One Lanczos step, by hand: T = (a), its Radau rule has a node at 0 and one at a + b²/a."""
    values = np.array([0.0, 1.0, 2.0, 5.0])
    d = hvp.density(np.diag(values), num_probes=1, num_steps=1)
    v = np.random.default_rng(0).standard_normal(4)
    weights = v**2 / (v @ v)
    a = weights @ values
    variance = weights @ (values - a) ** 2
    far = a + variance / a
    upper, zero, end = (exact_value(function, x, 0.1) for x in (a, 0.0, far))
    lower = zero + a / far * (end - zero)
    found = function(d, 0.1)
    assert found.value == pytest.approx(4 * (lower + upper) / 2)
    assert found.depth == pytest.approx(4 * (upper - lower) / 2)


@pytest.mark.parametrize("function", [hvp.log_determinant, hvp.effective_dimension])
@pytest.mark.parametrize("spectrum", PSD_SPECTRA)
def test_stated_errors_of_sums_over_a_spectrum_cover(function, spectrum):
    values = PSD_SPECTRA[spectrum]
    runs = [hvp.density(np.diag(values), num_probes=4, num_steps=15, seed=s) for s in range(60)]
    for shift in (1e-6, 1e-4, 1e-2, 1.0):
        truth = exact_value(function, values, shift).sum()
        found = [function(d, shift) for d in runs]
        for n, least in ((1, 0.62), (2, 0.9)):
            inside = [
                abs(e.value - truth) <= n * e.stderr + e.depth + 1e-9 * abs(truth) for e in found
            ]
            assert np.mean(inside) >= least


def test_the_bracket_closes_with_the_steps():
    depths = [
        hvp.effective_dimension(hvp.density(np.diag(HALF_ZERO), num_steps=m), 1e-2).depth
        for m in (5, 10, 40)
    ]
    assert depths[0] > depths[1] > 1e-6 > depths[2]


def test_projected_outliers_are_outside_the_bracket():
    values = PSD_SPECTRA["one huge"]
    A = np.diag(values)
    d = hvp.density(A, pairs=hvp.eigsh(A, 1), num_steps=20)
    found = hvp.effective_dimension(d, 1.0)
    assert found.depth < 1e-6
    assert abs(found.value - np.sum(values / (values + 1))) < 4 * found.stderr


def test_a_bulk_of_rounding_beside_outliers_is_no_negative_curvature():
    """All of G but its outliers is zero to rounding, on both sides of zero."""
    rounding = 1e-9 * np.random.default_rng(0).standard_normal(60)
    A = np.diag(np.r_[rounding, 1.0, 2.0])
    d = hvp.density(A, pairs=hvp.eigsh(A, 2), num_steps=10)
    assert d.nodes.min() < -1e-5 * np.abs(d.nodes).max()
    found = hvp.effective_dimension(d, 1.0)
    assert found.value == pytest.approx(1 / 2 + 2 / 3, abs=1e-6)
    assert hvp.log_determinant(d, 1.0).value == pytest.approx(np.log(2.0 * 3.0), abs=1e-6)

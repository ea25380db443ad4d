"""Smoothed curves of densities, on a linear and on a logarithmic axis."""

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from support.spectra import SPECTRA, P, with_spectrum

from hvp import Eigenpairs, density
from hvp.linalg.smoothing import from_log, to_log

SEEDS = 200


def test_a_curve_is_a_density_and_its_bells_stand_on_the_eigenvalues():
    values = SPECTRA["spiked"]
    d = density(with_spectrum(values), num_probes=30)
    for x, (curve, _) in (
        (d.grid(), d.curve(d.grid())),
        (d.log_grid(), d.log_curve(d.log_grid())),
    ):
        assert np.trapezoid(curve, x) == pytest.approx(1, abs=1e-3)
        assert (curve >= 0).all()
    assert d.curve(np.array([35.0]))[0] == pytest.approx(0, abs=1e-9)
    curve, stderr = d.curve(np.array([40.0]), width=0.5)
    height = 1 / (P * 0.5 * np.sqrt(2 * np.pi))
    assert abs(curve[0] - height) < 4 * stderr[0]


@pytest.mark.parametrize("num_steps", [20, 40, 80])
def test_the_curve_of_a_level_bulk_is_level_at_its_width(num_steps):
    """The semicircle law by m steps, whose nodes are π/m apart at the centre of [-1, 1]."""
    size = 4000
    values = np.linspace(-1, 1, size)
    d = density(scipy.sparse.diags_array(values).tocsr(), num_probes=4, num_steps=num_steps)
    assert d.width == pytest.approx(np.pi / num_steps / 2, rel=0.35)
    x = np.linspace(-0.7, 0.7, 201)
    curve, stderr = d.curve(x)
    # Each probe is level but for 1.4 % of its own ripples and its own noise.
    assert np.abs(curve - 0.5).max() < 0.5 * 0.05 + 4 * stderr.max()
    # Nor does a narrow width, at which bells of one width would stand apart, make a comb.
    narrow, _ = d.curve(x, d.width / 8)
    assert np.ptp(narrow) < 2 * np.ptp(curve)


def test_more_steps_narrow_the_bells_and_outliers_do_not_widen_them():
    bulk = np.linspace(0.0, 1.0, 395)
    spiked = np.r_[bulk, 3.0, 3.5, 4.0, 4.5, 5.0]
    widths = [density(np.diag(spiked), num_probes=4, num_steps=m).width for m in (10, 15, 25)]
    alone = [density(np.diag(bulk), num_probes=4, num_steps=m).width for m in (5, 10, 20)]
    assert widths == sorted(widths, reverse=True)
    assert widths[:2] == pytest.approx(alone[:2], rel=0.3)
    assert density(np.diag(spiked)).width == pytest.approx(5 / 160)


def marchenko_pastur(size, ratio):
    """The quantiles of the law of XᵀX, for X with 1/ratio times as many rows as columns."""
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2
    x = np.linspace(low, high, 100_001)[1:-1]
    mass = np.cumsum(np.sqrt((high - x) * (x - low)) / x)
    return np.interp((np.arange(size) + 0.5) / size, mass / mass[-1], x)


SPIKES = np.linspace(5.0, 14.0, 10)
# Eigenvalues, the number of spikes, and the L1 error that bells of one width had, each of half the
# median distance of the nodes but at least 1/500 of the range.
LAWS = {
    "Marchenko-Pastur": (marchenko_pastur(3000, 0.3), 0, 0.0519),
    "spiked": (np.r_[marchenko_pastur(2990, 0.3), SPIKES], 10, 0.0773),
    "spiked, low rank": (np.r_[np.zeros(3000), marchenko_pastur(300, 0.9), SPIKES], 10, 1.5732),
}


@pytest.mark.parametrize("law", LAWS)
def test_a_curve_is_closer_to_the_exact_density_than_bells_of_one_width(law):
    values, num_spikes, before = LAWS[law]
    size, width = len(values), np.ptp(values) / 160
    vectors = np.eye(size)[:, size - num_spikes :]
    pairs = Eigenpairs(values[size - num_spikes :], vectors, np.zeros(num_spikes), 0)
    A = scipy.sparse.diags_array(values).tocsr()
    x = np.linspace(values.min() - 6 * width, values.max() + 6 * width, 2001)
    exact = scipy.stats.norm.pdf(x[:, None], values, width).mean(axis=1)
    errors = []
    for seed in range(3):
        d = density(A, num_probes=4, num_steps=40, pairs=pairs if num_spikes else None, seed=seed)
        errors.append(np.trapezoid(np.abs(d.curve(x, width)[0] - exact), x))
    assert np.mean(errors) < 0.95 * before


def test_converged_nodes_have_the_least_width():
    d = density(with_spectrum(SPECTRA["rank deficient"]), num_steps=10)
    assert d.width == pytest.approx(5 / 160, rel=1e-3)
    decades = (to_log(np.array([5.0]), d.origin) - to_log(np.zeros(1), d.origin))[0]
    assert d.log_width() == pytest.approx(decades / 160, rel=0.01)


def test_the_logarithmic_axis_resolves_decades():
    values = np.r_[np.zeros(50), np.geomspace(1e-4, 1.0, 150), -np.geomspace(1e-3, 1.0, 100)]
    d = density(with_spectrum(values), num_probes=30, num_steps=150)
    assert d.origin == d.floor > 0
    t = to_log(np.array([-1e-1, -3e-7, 1e-3, 1e-1]), d.origin)
    curve, stderr = d.log_curve(t, width=0.2)
    decades = [100 / 300 / 3, 0.0, 150 / 300 / 4, 150 / 300 / 4]
    assert (np.abs(curve - decades) < 4 * stderr + 0.02).all()
    assert d.log_width() < 0.5


def test_the_logarithmic_axis_is_odd_and_invertible():
    x = np.array([-10.0, -1e-9, 0.0, 1e-12, 3.0])
    np.testing.assert_allclose(from_log(to_log(x, 1e-6), 1e-6), x, rtol=1e-9)
    np.testing.assert_allclose(to_log(-x, 1e-6), -to_log(x, 1e-6))
    assert to_log(np.array([1e-6]), 1e-6)[0] == pytest.approx(np.log10(2))


def test_a_blur_makes_the_same_hill_of_what_two_operators_resolve_differently():
    values = np.r_[np.zeros(40), 1.0, 10.0]
    d = density(np.diag(values), num_probes=3)  # resolves zero exactly
    origin, width, blur = 0.1, 0.05, 0.05
    t = d.log_grid(2001, origin, width, blur)
    curve, _ = d.log_curve(t, origin=origin, width=width, blur=blur)
    widths = np.hypot(width, blur / (np.log(10) * (values + origin)))
    exact = scipy.stats.norm.pdf(t[:, None], to_log(values, origin), widths)
    zeros = exact[:, :40].mean(axis=1)
    near = np.abs(t) < 0.5
    shape = curve[near] / curve[near].max()
    np.testing.assert_allclose(shape, zeros[near] / zeros.max(), atol=1e-6)
    assert np.trapezoid(curve, t) == pytest.approx(1, abs=1e-3)

"""Counts beyond a small ε, and how many directions matter, against eigenvalues that are known."""

import numpy as np
import pytest
from support.matrices import rotated
from support.sweep import sweep

from hvp.comparison.counts import MULTIPLES, above_bounds, counts
from hvp.comparison.dimensions import condition, effective_dimensions, squared_norm, stable_rank
from hvp.comparison.spectrum import ends, with_density
from hvp.linalg.estimate import Estimate

COMMON = {"scale": None, "seed": 0, "progress": lambda done: None}
RNG = np.random.default_rng(0)
# Most eigenvalues are zero, as those of networks are, and no Lanczos step tells them apart.
SPECTRA = {
    "indefinite": np.r_[-RNG.random(20), np.zeros(300), RNG.random(90) ** 3, 3.0, 5.0],
    "semidefinite": np.r_[np.zeros(320), np.geomspace(0.05, 4.0, 80)],
    "positive": np.linspace(1.0, 3.0, 300),
    "negative": np.r_[np.zeros(200), -np.geomspace(0.1, 4.0, 130)],
    "few": np.array([-1.0, 0.0, 0.0, 2.0, 3.0]),
    "spread": np.r_[np.zeros(100), np.geomspace(1e-5, 1.0, 330)],
}


def spectrum(values, k=2, num_probes=10, num_steps=40):
    matrix = rotated(values, 1)
    found = ends(matrix, k, tol=1e-9, **COMMON)
    return with_density(
        found, matrix, num_probes=num_probes, num_steps=num_steps, num_resampled=0, **COMMON
    )


@pytest.fixture(scope="module")
def spectra():
    return {name: spectrum(values) for name, values in SPECTRA.items()}


@pytest.mark.parametrize("floor", [0.0, 1e-9, 1e-4])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_counts_are_within_their_bounds(spectra, name, floor):
    values, size = SPECTRA[name], len(SPECTRA[name])
    found = counts(spectra[name], floor, most=size, semidefinite=False)
    assert found.threshold == found.multiple * (floor or spectra[name].density.floor)
    assert found.multiple in MULTIPLES
    assert found.above.lower <= np.sum(values > found.threshold) <= found.above.upper
    assert found.below.lower <= np.sum(values < -found.threshold) <= found.below.upper
    assert found.null.lower <= np.sum(np.abs(values) <= found.threshold) <= found.null.upper
    for bounds in (found.above, found.below):
        assert bounds.upper - bounds.lower <= max(bounds.lower, 1)


@pytest.mark.parametrize("seed", sweep(range(12), always=("0", "1")))
def test_the_bounds_hold_for_other_probes(seed):
    values = SPECTRA["indefinite"]
    matrix = rotated(values, 1)
    found = ends(matrix, 2, tol=1e-9, **COMMON)
    options = {**COMMON, "seed": seed, "num_probes": 4, "num_steps": 20, "num_resampled": 0}
    found = counts(with_density(found, matrix, **options), 1e-6, most=412, semidefinite=False)
    slack = 2  # one in twenty is beyond two standard errors
    for bounds, true in (
        (found.above, np.sum(values > found.threshold)),
        (found.below, np.sum(values < -found.threshold)),
    ):
        assert bounds.lower - slack <= true <= bounds.upper + slack


def test_a_complete_krylov_space_counts_exactly(spectra):
    found = counts(spectra["few"], 1e-9, most=5, semidefinite=False)
    assert (found.above, found.below, found.null) == ((2, 2), (1, 1), (2, 2))


def test_no_more_are_above_than_there_can_be(spectra):
    found = counts(spectra["spread"], 1e-7, most=100, semidefinite=True)
    assert found.above.upper == 100


def test_a_single_probe_leaves_what_was_found_one_by_one():
    values = SPECTRA["indefinite"]
    found = counts(spectrum(values, num_probes=1), 1e-6, most=412, semidefinite=False)
    assert found.above == (2, 412)
    assert found.below == (2, 412)


def test_nothing_is_counted_of_a_matrix_that_is_zero():
    found = spectrum(np.zeros(20))
    assert counts(found, 0.0, most=20, semidefinite=False) is None
    assert stable_rank(found, Estimate(0.0, 0.0)) is None
    assert effective_dimensions(found) == ()
    assert condition(found, 0.0) is None


def test_without_a_density_there_are_no_counts():
    found = ends(rotated(SPECTRA["few"], 1), 2, tol=1e-9, **COMMON)
    assert counts(found, 1e-9, most=5, semidefinite=False) is None
    assert (squared_norm(found), effective_dimensions(found), condition(found, 0.1)) == (
        None, (), None,
    )  # fmt: skip


@pytest.mark.parametrize("name", SPECTRA)
def test_the_stable_rank_is_that_of_the_eigenvalues(spectra, name):
    values = SPECTRA[name]
    found = stable_rank(spectra[name], squared_norm(spectra[name]))
    true = np.sum(values**2) / np.max(values**2)
    assert abs(found.value - true) <= 3 * found.stderr + found.depth + 1e-9


def test_effective_dimensions_are_within_their_brackets(spectra):
    values = SPECTRA["spread"]
    found = effective_dimensions(spectra["spread"])
    assert [each.divisor for each in found] == [10, 100, 1000, 10_000]
    for each in found:
        assert each.damping == pytest.approx(1.0 / each.divisor)
        true = np.sum(values / (values + each.damping))
        estimate = each.estimate
        assert abs(estimate.value - true) <= 3 * estimate.stderr + estimate.depth + 1e-9
    assert effective_dimensions(spectra["indefinite"]) == ()


@pytest.mark.parametrize("floor", [1e-9, 1e-4, 0.02])
@pytest.mark.parametrize("name", ["indefinite", "semidefinite", "positive", "few", "spread"])
def test_the_condition_is_within_its_bounds(spectra, name, floor):
    values = SPECTRA[name]
    found = condition(spectra[name], floor)
    true = values.max() / values[values > max(floor, spectra[name].density.floor)].min()
    assert found.lower * (1 - 1e-9) <= true <= found.upper * (1 + 1e-9)
    assert found.floor >= floor


def test_a_known_gap_above_the_floor_bounds_the_condition(spectra):
    """All eigenvalues are known here: none is between the floor and 0.3."""
    found = condition(spectra["few"], 1e-9)
    assert 1.4 < found.lower <= 1.5 <= found.upper < 11


def test_there_is_no_condition_without_an_eigenvalue_above_the_floor(spectra):
    assert condition(spectra["negative"], 1e-3) is None


def test_the_bounds_above_a_threshold_include_the_pairs(spectra):
    found = spectra["indefinite"]
    assert above_bounds(found, found.density, 4.0, 412) == (1, 1)

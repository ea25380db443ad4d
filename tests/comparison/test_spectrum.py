"""Both ends and the density between, on matrices of chosen eigenvalues."""

import numpy as np
import pytest
import scipy.linalg

from hvp.comparison.spectrum import ends, with_density
from hvp.errors import InputError

COMMON = {"scale": None, "seed": 0, "progress": lambda done: None}


def spectrum(matrix, k, num_steps=30):
    found = ends(matrix, k, tol=1e-9, **COMMON)
    return with_density(
        found, matrix, num_probes=12, num_steps=num_steps, num_resampled=0, **COMMON
    )


def with_values(values, seed=0):
    rng = np.random.default_rng(seed)
    Q = scipy.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    return Q * np.array(values) @ Q.T


BULK = [*np.linspace(-0.2, 0.9, 50), -3.0, 4.0, 5.0]


def test_the_ends_are_the_outliers_of_the_density():
    found = spectrum(with_values(BULK), 2)
    assert found.largest.values == pytest.approx([4.0, 5.0])
    assert found.smallest.values[0] == pytest.approx(-3.0)
    assert found.norm == pytest.approx(5.0)
    assert set(found.density.outliers.round(6)) >= {-3.0, 4.0, 5.0}
    assert found.density.nodes.max() < 1.0
    assert found.num_products > 12 * 30
    assert found.unseen == ()


def test_without_a_density_nothing_is_counted():
    found = ends(with_values(BULK), 2, tol=1e-9, **COMMON)
    assert found.density is None
    assert found.unseen == ()
    with pytest.raises(InputError, match="expected a spectrum with its density"):
        found.negative(0.0)


def test_negative_eigenvalues_and_the_rank_are_counted():
    values = [*np.zeros(40), *np.linspace(1.0, 2.0, 12), -1.0, -2.0]
    found = spectrum(with_values(values), 1, num_steps=60)
    for estimate, true in ((found.negative(1e-9), 2), (found.rank(1e-9), 14)):
        assert abs(estimate.value - true) <= 3 * estimate.stderr + estimate.depth + 1e-9


def test_a_copy_that_was_missed_is_reported(monkeypatch):
    from hvp.comparison import spectrum as module

    values = [*np.linspace(0.0, 1.0, 40), 3.0, 7.0, 7.0]
    matrix, original = with_values(values), module.eigsh

    def missing(A, k, **options):
        whole = original(A, len(values) - 1, **{**options, "which": "SA"})
        return original(A, k, **options) if k < 4 else whole[np.r_[:2, 39:41]]

    assert spectrum(matrix, 2).unseen == ()
    monkeypatch.setattr(module, "eigsh", missing)
    assert spectrum(matrix, 2).unseen == ("largest",)


@pytest.mark.parametrize("values", [[2.0], [2.0, 3.0], [0.0, 0.0, 0.0]], ids=["1", "2", "zero"])
def test_the_smallest_spaces_are_taken(values):
    found = spectrum(np.diag(values), 1)
    assert found.largest.values[-1] == pytest.approx(max(values))
    assert found.rank(0.0).value == pytest.approx(np.count_nonzero(values))
    assert found.negative(0.0).value == 0

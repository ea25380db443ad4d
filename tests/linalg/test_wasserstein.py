"""The distance between two spectra, against SciPy and for known shifts."""

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from support.estimators import BOTH, coverage, exact_pairs
from support.spectra import SPECTRA, P, with_spectrum

from hvp import density
from hvp.linalg.wasserstein import distance

SEEDS = 200


def test_the_distance_is_the_wasserstein_distance_of_the_pooled_nodes():
    first = density(with_spectrum(SPECTRA["spiked"]), num_steps=12)
    second = density(with_spectrum(SPECTRA["simple"], seed=1), num_steps=12)
    expected = scipy.stats.wasserstein_distance(
        *(d.nodes.ravel() for d in (first, second)), *(d.weights.ravel() for d in (first, second))
    )
    found = distance(first, second)
    assert found.value == pytest.approx(expected)
    assert found.num_products == 240
    assert found.depth > 0
    assert distance(first, first).value < 1e-15
    assert distance(first, first).stderr < 1e-15


@pytest.mark.sweep
def test_errors_of_common_probes_cancel_in_the_distance():
    """Coverage of the jackknife; the shift is the distance, whatever the probes."""
    base, size = BOTH, len(BOTH)
    moved = base + np.linspace(0.0, 0.2, size)
    truth = np.mean(moved - base)
    same = [
        distance(
            *(density(np.diag(v), num_probes=8, num_steps=size, seed=s) for v in (base, moved))
        )
        for s in range(SEEDS // 2)
    ]
    assert 0.88 <= coverage(same, truth) <= 1.0
    spread = np.std([e.value for e in same])
    noise = np.std(
        [
            density(np.diag(base), num_probes=8, num_steps=size, seed=s).moment(1).value
            for s in range(50)
        ]
    )
    assert spread < noise / 10


def test_the_distance_includes_outliers():
    values, Q = np.linalg.eigh(with_spectrum(SPECTRA["spiked"]))
    matrix = Q * values @ Q.T
    first = density(matrix, num_steps=P, pairs=exact_pairs(values, Q, [P - 1]))
    shifted = values + 6.0 * (np.arange(P) == P - 1)
    second = density(Q * shifted @ Q.T, num_steps=P, pairs=exact_pairs(shifted, Q, [P - 1]))
    found = distance(first, second)
    assert found.value == pytest.approx(6.0 / P)
    assert found.stderr < 1e-12

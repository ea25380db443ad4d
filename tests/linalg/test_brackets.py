"""Bounds of the number of eigenvalues beyond a threshold."""

import numpy as np
import pytest

from hvp import density


def test_counts_lie_within_their_brackets():
    """Many zeros, which no node resolves: the Gauss rule counts some of them on either side."""
    rng = np.random.default_rng(0)
    values = np.r_[-rng.random(40), np.zeros(1500), rng.random(460) ** 4]
    d = density(np.diag(values), num_probes=10, num_steps=20)
    for threshold in (-0.5, -0.05, -1e-4, 1e-4, 0.05, 0.5):
        for found, count in (
            (d.bracket_below(threshold), np.sum(values < threshold)),
            (d.bracket_above(threshold), np.sum(values > threshold)),
        ):
            assert found.lower - 4 * found.stderr <= count <= found.upper + 4 * found.stderr
            assert 0 <= found.lower <= found.upper <= len(values) + 1e-6
            assert found.at_least <= count
    near, far = d.bracket_below(-1e-4), d.bracket_below(-0.5)
    assert near.upper > 1000
    assert far.upper < 60


def test_a_complete_krylov_space_leaves_nothing_between_the_bounds():
    d = density(np.diag([-1.0, 0.0, 0.0, 2.0, 3.0]), num_probes=400, num_steps=5)
    found = d.bracket_below(1.0)
    assert found.upper == pytest.approx(found.lower)
    assert found.lower == pytest.approx(3.0, abs=4 * found.stderr)

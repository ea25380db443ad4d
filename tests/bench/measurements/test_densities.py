"""Moments of densities, and which densities count as right."""

import numpy as np
import pytest

from bench.backends.implementation import PROBES, STEPS, DiscreteDensity, curve
from bench.backends.implementations import PEERS
from bench.backends.reference import DenseNet
from bench.measurements import densities, problems
from hvp.benchmark.server import Prepared

DENSE = problems.TINY["tiny-dense"]


def test_moments_are_those_of_the_nodes_for_every_smoothing_width():
    nodes, weights = np.array([-0.5, 0.0, 0.25, 3.0]), np.array([0.2, 0.5, 0.2, 0.1])
    expected = [weights @ nodes**k for k in range(5)]
    np.testing.assert_allclose(
        densities.moments(DiscreteDensity(nodes, weights)), expected, rtol=1e-12
    )
    for width in (0.05, 0.4):
        x = np.linspace(-4.0, 7.0, 1001)
        gaussians = np.exp(-(((x[:, None] - nodes) / width) ** 2) / 2) / (
            width * np.sqrt(2 * np.pi)
        )
        density = curve(x, gaussians @ weights, width)
        np.testing.assert_allclose(densities.moments(density), expected, rtol=1e-9)


def test_moments_by_hand_over_a_whole_basis_are_those_of_the_eigenvalues():
    net = DenseNet(DENSE)
    H = np.stack([net.hvp(column) for column in np.eye(DENSE.size)], axis=1)
    expected = [np.mean(np.linalg.eigvalsh(H) ** k) for k in range(5)]
    probes = 7 * np.eye(DENSE.size)  # of any length
    np.testing.assert_allclose(densities.moments_by_hand(net, probes), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("factor", "refused", "status"),
    [
        (1.001, {}, "ok"),
        (1.02, {}, "wrong"),
        (np.nan, {}, "wrong"),
        (1.001, {"as released": "RuntimeError: no torch.eig"}, "failed"),
        (1.02, {"as released": "RuntimeError: no torch.eig"}, "wrong"),
    ],
)
def test_a_density_is_wrong_if_a_moment_differs_and_has_failed_if_only_a_repaired_form_works(
    factor, refused, status
):
    by_hand = np.array([1.0, 1e-3, 2e-3, 4e-3, 9e-3])
    found = by_hand * np.array([1, 1, 1, factor, 1])
    result = densities.result_of(Prepared("form", 1.0, 2.0, 1.0, refused), found, by_hand)
    assert result.status == status
    assert status != "failed" or "no torch.eig" in result.note


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.has_density])
def test_the_densities_of_peers_have_the_moments_of_their_probes(name):
    if PEERS[name].missing():
        pytest.skip(PEERS[name].missing())
    with PEERS[name].worker() as worker:
        worker.wait_until_ready()
        worker.ask("load", DENSE.name)
        prepared, density, probes = worker.ask("density")
    by_hand = densities.moments_by_hand(DenseNet(DENSE), probes)
    result = densities.result_of(prepared, densities.moments(density), by_hand)
    assert result.status == ("failed" if name == "pyhessian" else "ok")
    assert probes.shape == (DENSE.size, PROBES)
    assert len(density.points) in (PROBES * STEPS, 1001)

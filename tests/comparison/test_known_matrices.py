"""Densities, traces, counts and sampling errors against networks of known matrices."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
from support.comparisons import K
from support.matrices import Known
from support.matrices import network as known_network

import hvp
import hvp.comparison.stage_results
from hvp.sampling_error import jackknife


@pytest.fixture(scope="module")
def matrices():
    """A network of known matrices, and its comparison."""
    lin = known_network()
    return lin, hvp.compare(lin, K, tol=1e-6, num_probes=10)


def block(lin, name, operator):
    rows = slice(None)
    if name in lin.sizes:
        (i,) = lin.layout.layers[name]
        rows = lin.layout.slices[i]
    return lin.dense(operator)[rows, rows]


@pytest.mark.parametrize("operator", ["H", "G", "R"])
def test_densities_have_the_traces_of_dense_matrices(matrices, operator):
    lin, found = matrices
    for name, part in found.parts.items():
        d = getattr(part, operator).density
        np.testing.assert_allclose(d.weights.sum(axis=1), 1.0)
        bulk = (part.size - len(d.outliers)) * np.sum(d.nodes * d.weights, axis=1)
        traces = bulk + d.outliers.sum()  # one a probe
        true = np.trace(block(lin, name, operator))
        error = traces.std(ddof=1) / np.sqrt(len(traces))
        assert abs(traces.mean() - true) <= 4 * error + 1e-9


@pytest.mark.parametrize("coarse", [False, True])
def test_traces_norms_and_shares_are_those_of_dense_matrices_within_their_errors(coarse):
    lin = known_network((("first", 150), ("last", 60)), coarse=coarse)  # P beyond 120 products
    found = hvp.compare(lin, 2)
    for name in ("", "first", "last"):
        dense = {operator: block(lin, name, operator) for operator in "HGR"}
        for operator, traces in found.traces.items():
            own = traces.layers[name] if name else traces.whole
            assert own.trace.stderr > 0
            matrix = dense[operator]
            assert abs(own.trace.value - np.trace(matrix)) < 4 * own.trace.stderr + 1e-4
            norm = np.sum(matrix**2)
            assert abs(own.squared_norm.value - norm) < 4 * own.squared_norm.stderr + 1e-4
        share = found.shares.layers[name] if name else found.shares.whole
        true = np.trace(dense["R"]) / np.trace(dense["H"])
        assert abs(share.trace.value - true) < 4 * share.trace.stderr + 1e-4


def test_the_distance_is_zero_where_h_is_g_and_that_of_sorted_eigenvalues_elsewhere(matrices):
    lin, found = matrices
    assert found.parts["last"].distance.value < 1e-15
    for name in ("whole network", "first"):
        H, G = (np.linalg.eigvalsh(block(lin, name, operator)) for operator in "HG")
        distance = found.parts[name].distance
        true = np.mean(np.abs(H - G))
        assert abs(distance.value - true) < 4 * (distance.stderr + distance.depth) + 0.02 * true


def test_sampling_errors_are_those_of_dense_batches(matrices):
    lin, found = matrices
    H, whole = found.whole.H, found.whole
    stack = lin.stacks["H"]
    for end in ("largest", "smallest"):
        V = getattr(H, end).vectors
        means = np.array([np.einsum("pk,pk->k", V, len(stack) * h @ V) for h in stack])
        true = means.std(axis=0, ddof=1) / np.sqrt(len(stack))
        np.testing.assert_allclose(getattr(whole.sampling["H"], end), true, rtol=1e-6)
    # All batches are shares of one matrix here: so much of the trace as of any eigenvalue.
    part = whole.sampling["H"].largest[-1] / H.largest.values[-1]
    for name, found_part in found.parts.items():
        matrix = block(lin, name, "H")
        trace = found_part.sampling["H"].trace / np.trace(matrix)
        assert part == pytest.approx(trace, rel=0.3)


def test_what_r_has_of_h_has_sampling_errors():
    """Shares of the matrices without each batch, against the errors by signs and one probe."""
    plain = known_network(batches=12)
    own = np.random.default_rng(0).uniform(0.5, 1.5, (12, 1, 1))
    G, R = plain.stacks["G"], own * plain.stacks["R"]
    H = G + R
    found = hvp.compare(Known(H, G, plain.sizes), 2)
    for measure, of in (("trace", np.trace), ("squared_norm", lambda A: np.sum(A**2))):
        ratios = [of(np.delete(R, b, 0).sum(0)) / of(np.delete(H, b, 0).sum(0)) for b in range(12)]
        true = jackknife(np.array(ratios)[:, None], np.full(12, 10))
        assert 0.5 * true < getattr(found.shares.whole, measure).sampling < 3 * true
        assert np.isfinite(getattr(found.shares.layers["first"], measure).sampling)


def test_a_single_batch_gives_no_sampling_error():
    found = hvp.compare(known_network(batches=1), 2)
    for part in found.parts.values():
        for sampled in part.sampling.values():
            figures = [sampled.trace, sampled.squared_norm]
            assert np.isnan([*sampled.largest, *sampled.smallest, *figures]).all()
    whole = found.to_json()["traces"]["whole"]
    assert whole["share of R"]["trace"]["sampling"] is None
    assert [whole[letter]["trace"]["sampling"] for letter in "HGR"] == [None, None, None]


def test_negative_eigenvalues_and_rank_are_counted(matrices):
    lin, found = matrices
    H, G = (np.linalg.eigvalsh(lin.dense(operator)) for operator in "HG")
    for count, true in ((found.negative, np.sum(H < 0)), (found.rank, np.sum(G > 1e-9))):
        assert abs(count.value - true) <= 4 * count.stderr + count.depth
    assert found.rank_bound == 40


def test_the_noise_of_rounded_products_is_seen_and_that_of_exact_ones_is_none(matrices):
    _, exact = matrices
    rounded = hvp.compare(known_network(coarse=True), 2)
    norm = exact.whole.H.norm
    assert exact.floor < 1e-13 * norm
    assert all(np.isnan(noise.shadow) for noise in exact.noise.values())
    assert 1e-9 * norm < rounded.floor < 1e-5 * norm


def test_angles_are_kept_for_every_count(matrices):
    lin, found = matrices
    H, G = (np.linalg.eigh(lin.dense(operator))[1] for operator in "HG")
    for i, angles in enumerate(found.whole.angles_by_count, start=1):
        true = np.sort(scipy.linalg.subspace_angles(H[:, -i:], G[:, -i:]))
        np.testing.assert_allclose(angles, true, atol=1e-4)


def test_an_eigenvalue_that_lanczos_missed_is_an_alarm(matrices):
    lin, found = matrices
    pairs = hvp.eigsh(lin.dense("H"), 2 * K, which="BE")[: 2 * K - 1]  # without the largest
    density = hvp.density(lin.dense("H"), num_probes=3, pairs=pairs)
    blind = dataclasses.replace(found.whole.H, largest=pairs[K:], density=density)
    assert found.whole.H.unseen == ()
    assert blind.unseen == ("largest",)
    part = dataclasses.replace(found.whole, spectra={**found.whole.spectra, "H": blind})
    assert hvp.comparison.stage_results.missed_eigenvalues({part.name: part}) == [
        "different: whole network: an eigenvalue of H among its 3 largest was missed, "
        "as of a multiple one; raise k"
    ]


def test_a_layer_of_one_parameter_is_compared():
    H = np.diag([3.0, 1.0, 2.0, 5.0])[None]
    found = hvp.compare(Known(H, H, {"three": 3, "one": 1}), 2)
    one = found.parts["one"].H
    assert one.largest.values.tolist() == [5.0]
    assert one.density.nodes.ravel() == pytest.approx(5.0)

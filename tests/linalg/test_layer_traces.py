"""Traces and norms of every layer from the same products, against dense algebra."""

from types import SimpleNamespace

import numpy as np
import pytest
from support.estimators import MATRICES, SEEDS, SPECTRA, P, assert_unbiased, one_layer
from support.spectra import with_spectrum

import hvp
from hvp import InputError
from hvp.linalg.estimate import standard_error_of_mean, student_factor
from hvp.linalg.layer_traces import standard_error_of_pairs

# Layers that do not lie together.
SLICES = (slice(0, 40), slice(40, 50), slice(50, 110), slice(110, 111), slice(111, P))
LAYERS = {"first": (0, 3), "second": (1, 2), "third": (4,)}
LIN = SimpleNamespace(layout=SimpleNamespace(slices=SLICES, layers=LAYERS))
INDEX = {name: np.concatenate([np.r_[SLICES[i]] for i in own]) for name, own in LAYERS.items()}


def truths(A):
    blocks = {name: A[np.ix_(index, index)] for name, index in INDEX.items()}
    return {name: (np.trace(block), np.sum(block**2)) for name, block in blocks.items()}


@pytest.mark.parametrize("num_products", [16, 60])
@pytest.mark.parametrize("name", ["flat", "spiked", "indefinite", "fast decaying"])
def test_every_layer_is_unbiased_and_its_errors_right(name, num_products):
    A = MATRICES[name]
    runs = [hvp.layer_traces(A, LIN, num_products=num_products, seed=seed) for seed in SEEDS]
    expected = truths(A)
    for layer in LAYERS:
        found = [run.layers[layer] for run in runs]
        assert (found[0].name, found[0].size) == (layer, len(INDEX[layer]))
        assert_unbiased([f.trace for f in found], expected[layer][0])
        assert_unbiased([f.squared_norm for f in found], expected[layer][1])
    assert_unbiased([run.whole.trace for run in runs], np.trace(A))
    assert_unbiased([run.whole.squared_norm for run in runs], np.sum(A**2))


def test_layers_add_up_to_the_whole():
    found = hvp.layer_traces(MATRICES["indefinite"], LIN, num_products=30)
    total = sum(block.traces for block in found.layers.values())
    np.testing.assert_allclose(total, found.whole.traces, rtol=1e-10)


def test_raw_values_are_those_of_the_estimates():
    found = hvp.layer_traces(MATRICES["indefinite"], LIN, num_products=30).layers["first"]
    s = len(found.traces)
    assert found.squared_norms.shape == (s, s) == (10, 10)
    assert found.trace.value == pytest.approx(found.traces.mean())
    assert found.trace.stderr >= standard_error_of_mean(found.traces)
    assert found.squared_norm.value == pytest.approx(found.squared_norms.sum() / (s * (s - 1)))


def test_low_rank_layers_are_exact():
    A = with_spectrum(np.r_[3.0, 2.0, -1.0, np.zeros(P - 3)])
    found = hvp.layer_traces(A, LIN, num_products=30)
    for layer, (trace, norm) in truths(A).items():
        block = found.layers[layer]
        assert block.trace.value == pytest.approx(trace, abs=1e-13)
        assert block.squared_norm.value == pytest.approx(norm, abs=1e-13)
        assert max(block.trace.stderr, block.squared_norm.stderr) < 1e-14


@pytest.mark.parametrize("num_products", [P, 10 * P])
def test_layers_are_exact_from_as_many_products_as_parameters(num_products):
    A = MATRICES["indefinite"]
    found = hvp.layer_traces(A, LIN, num_products=num_products)
    assert found.num_products == P
    for layer, (trace, norm) in truths(A).items():
        block = found.layers[layer]
        assert block.trace.value == pytest.approx(trace)
        assert block.squared_norm.value == pytest.approx(norm)
        assert block.trace.stderr == block.squared_norm.stderr == 0
        assert block.traces.size == block.squared_norms.size == 0
    assert found.whole.squared_norm.value == pytest.approx(np.sum(A**2))


@pytest.mark.parametrize("num_products", [4, 5, 6, 7, 8, 9, 10, 30])
def test_layers_take_any_number_of_products_from_four(num_products):
    reported = []
    found = hvp.layer_traces(
        MATRICES["flat"], LIN, num_products=num_products, progress=reported.append
    )
    assert found.num_products == reported[-1] == num_products
    assert len(found.whole.traces) >= 4


def network_like(seed=0):
    """H, and an R that vanishes on the third layer's own block."""
    H = with_spectrum(SPECTRA["spiked"], seed)
    R = 0.3 * with_spectrum(SPECTRA["indefinite"], seed + 1)
    own = INDEX["third"]
    R[np.ix_(own, own)] = 0.0
    return H, R


def shares_of(R, H, seed):
    parts = (hvp.layer_traces(A, LIN, num_products=60, seed=seed) for A in (R, H))
    return hvp.layer_shares(*parts)


def test_shares_are_right_within_their_errors():
    H, R = network_like()
    runs = [shares_of(R, H, seed) for seed in SEEDS]
    for layer, expected in truths(R).items():
        whole = truths(H)[layer]
        found = [run.layers[layer] for run in runs]
        assert found[0].name == layer
        assert_unbiased([f.trace for f in found], expected[0] / whole[0])
        assert_unbiased([f.squared_norm for f in found], expected[1] / whole[1])
    assert_unbiased([run.whole.trace for run in runs], np.trace(R) / np.trace(H))


def test_common_probes_cancel_in_a_share():
    H, R = network_like()
    near = H + 1e-3 * R
    common = shares_of(near, H, 0).layers["first"]
    parts = (hvp.layer_traces(A, LIN, num_products=60) for A in (near, H))
    apart = [part.layers["first"] for part in parts]
    independent = np.hypot(*(f.trace.stderr / f.trace.value for f in apart))
    assert common.trace.stderr < independent / 20
    assert abs(common.trace.value - truths(near)["first"][0] / truths(H)["first"][0]) < 1e-3


def test_an_operator_of_less_rank_has_the_same_probes():
    H = network_like()[0]
    nothing = shares_of(np.zeros_like(H), H, 0)
    for found in (*nothing.layers.values(), nothing.whole):
        assert found.trace.value == found.trace.stderr == found.squared_norm.value == 0


def test_a_share_of_zero_is_nan():
    H = network_like()[0]
    found = shares_of(H, np.zeros_like(H), 0).whole
    assert np.isnan([found.trace.value, found.trace.stderr, found.squared_norm.value]).all()


@pytest.mark.parametrize("options", [{"seed": 1}, {"num_products": 50}])
def test_shares_of_other_probes_are_refused(options):
    H = network_like()[0]
    with pytest.raises(InputError, match="the same layers from the same probes, got 3 layers"):
        hvp.layer_shares(hvp.layer_traces(H, LIN, **options), hvp.layer_traces(H, LIN))


def test_shares_of_other_layers_are_refused():
    H = network_like()[0]
    with pytest.raises(InputError, match=r"got 1 layers.*and 3 layers.*with the same lin"):
        hvp.layer_shares(hvp.layer_traces(H, one_layer(P)), hvp.layer_traces(H, LIN))


def test_bad_input_for_layers_is_refused():
    with pytest.raises(InputError, match="a Linearization, got ndarray; call hvp"):
        hvp.layer_traces(np.eye(P), np.eye(P))
    with pytest.raises(InputError, match=rf"layers of 3 parameters together.*got {P}; pass"):
        hvp.layer_traces(np.eye(3), LIN)
    with pytest.raises(InputError, match="num_products of at least 4, got 3"):
        hvp.layer_traces(np.eye(P), LIN, num_products=3)
    skew = np.triu(np.ones((P, P)))
    for count in (4, 30, 1000):
        with pytest.raises(InputError, match="a symmetric operator"):
            hvp.layer_traces(skew, LIN, num_products=count)


def test_layers_of_a_network():
    lin = hvp.linearize_function(
        lambda z: (z - 1) ** 2,
        [np.array([0.5, -1.0]), np.array([2.0, 0.3])],
        outputs=lambda w: (w[0][0] ** 3 + w[0][1]) * (w[1][0] + w[1][1]),
    )
    H, R = (A(lin) for A in (hvp.Hessian, hvp.Residual))
    found = hvp.layer_traces(H, lin)
    assert found.layers["param0"].trace.value == pytest.approx(np.trace((H @ np.eye(4))[:2, :2]))
    shares = hvp.layer_shares(hvp.layer_traces(R, lin), found)
    assert shares.layers["param0"].trace.value != 0
    assert shares.layers["param1"].trace.value == pytest.approx(0, abs=1e-12)  # the last layer


def test_the_error_of_a_mean_over_pairs_is_its_definition():
    h = np.random.default_rng(0).standard_normal((7, 7))
    h = h + h.T
    np.fill_diagonal(h, 0.0)
    n = range(7)
    apart = np.mean(
        [h[a, b] * h[c, d] for a in n for b in n for c in n for d in n if len({a, b, c, d}) == 4]
    )
    shared = np.mean([h[a, b] * h[a, c] for a in n for b in n for c in n if len({a, b, c}) == 3])
    own = np.mean([h[a, b] ** 2 for a in n for b in n if a != b])
    variance = (4 * 5 * max(shared - apart, 0) + 2 * (own - apart)) / (7 * 6)
    mean = np.mean([h[a, b] for a in n for b in n if a != b])
    left_out = [
        np.mean([h[a, b] for a in n for b in n if a != b and c not in (a, b)]) - mean for c in n
    ]
    jackknife = 6 / 7 * np.sum(np.square(left_out))
    largest = 2 / 7 * np.mean([(h[a, b] - mean) ** 2 for a in n for b in n if a != b])
    expected = student_factor(6) * np.sqrt(max(variance, jackknife, 16 / 49 * largest))
    assert standard_error_of_pairs(h.copy()) == pytest.approx(expected)


@pytest.mark.parametrize(("mean", "most"), [(0.0, 5.0), (3.0, 2.0)])
def test_the_error_of_a_mean_over_pairs_is_right(mean, most):
    found, values = [], []
    for seed in range(2000):
        x = mean + np.random.default_rng(seed).standard_normal(8)
        h = np.outer(x, x)
        np.fill_diagonal(h, 0.0)
        values.append(h.sum() / 56)
        found.append(standard_error_of_pairs(h) ** 2)
    assert 1.0 < np.mean(found) / np.var(values) < most


def test_shares_of_operators_are_refused_with_what_to_pass():
    H = np.eye(P)
    with pytest.raises(InputError, match=r"two operators, got ndarray; pass hvp\.layer_traces"):
        hvp.layer_shares(H, hvp.layer_traces(H, LIN))

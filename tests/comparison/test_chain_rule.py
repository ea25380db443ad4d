"""The origin's chain rule on real digits: where vᵀHv = vᵀGv holds, and where it does not.

The oracle is a network of its own in NumPy, differentiated by central differences.
"""

import itertools

import numpy as np
import pytest

import hvp
import hvp.comparison.chain_rule
from hvp import examples

LAYERS = ("dense1", "dense2", "dense3")
NETWORK = (*LAYERS, "whole network")


@pytest.fixture(scope="module")
def digits():
    x, y = examples.mnist()
    return x.astype(np.float64), y


@pytest.fixture(scope="module")
def networks(digits):
    trained = {name: examples.network(name, dtype="float64") for name in examples.ACTIVATIONS}
    for model in trained.values():
        examples.train(model, *digits)
    return trained


def rows(model, x, y, v=None):
    lin = hvp.linearize(model, (x, y), batch_size=5000)
    return {row.layer: row for row in hvp.chain_rule(lin, v)}


@pytest.fixture(scope="module")
def whole(networks, digits):
    return {name: rows(model, *digits) for name, model in networks.items()}


def relative(row):
    return abs(row.vHv - row.vGv) / abs(row.vHv)


@pytest.mark.sweep
def test_relu_forms_are_equal_in_every_layer_on_the_whole_data_set(whole):
    for layer in LAYERS:
        row = whole["relu"][layer]
        assert row.vHv > 1e-3
        assert relative(row) < 1e-10
        assert abs(row.vRv) < 1e-10 * row.vHv


@pytest.mark.sweep
@pytest.mark.parametrize("example", [0, 1, 4999])
def test_relu_forms_are_equal_in_every_layer_for_a_single_example(networks, digits, example):
    x, y = digits
    found = rows(networks["relu"], x[example : example + 1], y[example : example + 1])
    assert max(relative(found[layer]) for layer in LAYERS) < 1e-10
    assert relative(found["whole network"]) > 1e-3


@pytest.mark.sweep
def test_relu_forms_are_equal_at_initialisation_too(digits):
    found = rows(examples.network("relu", dtype="float64", seed=5), *digits)
    assert max(relative(found[layer]) for layer in LAYERS) < 1e-10
    assert relative(found["whole network"]) > 1e-3


def test_relu_forms_of_the_whole_network_differ(whole):
    row = whole["relu"]["whole network"]
    assert relative(row) > 1e-2
    assert row.vRv == pytest.approx(row.vHv - row.vGv, rel=1e-10)


def test_relu_residual_vanishes_on_each_block_but_not_across_them(networks, digits):
    x, y = digits
    lin = hvp.linearize(networks["relu"], (x[:200], y[:200]))
    whole = hvp.eigsh(hvp.Residual(lin), 2, which="BE", tol=1e-3).values
    size = hvp.eigsh(hvp.Hessian(lin), 1, which="LM", tol=1e-3).values[0]
    assert whole[0] < -1e-2 * size
    assert whole[1] > 1e-2 * size
    for block in lin.blocks().values():
        v = np.random.default_rng(0).standard_normal(block.size)
        assert np.linalg.norm(block.residual_vp(v)) < 1e-12 * np.linalg.norm(block.hvp(v))


@pytest.mark.sweep
@pytest.mark.parametrize("examples", [slice(0, 1), slice(7, 8), slice(None)])
def test_tanh_forms_differ_in_the_hidden_layers_and_are_equal_in_the_last(
    networks, digits, examples
):
    x, y = digits
    found = rows(networks["tanh"], x[examples], y[examples])
    assert relative(found["dense1"]) > 1e-3
    assert relative(found["dense2"]) > 1e-3
    assert relative(found["dense3"]) < 1e-10
    for row in found.values():
        scale = abs(row.vHv) + abs(row.vGv)
        assert row.vRv == pytest.approx(row.vHv - row.vGv, abs=1e-12 * scale)


def forward(weights, x, activation):
    """The outputs, and which units of a ReLU network are on."""
    a, on = x.reshape(len(x), -1), []
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        z = a @ kernel + bias
        on.append(z > 0)
        a = np.tanh(z) if activation == "tanh" else z * on[-1]
    return z, np.concatenate(on[:2], axis=1)


def losses(z, y):
    top = z.max(axis=1)
    return np.log(np.exp(z - top[:, None]).sum(axis=1)) + top - z[np.arange(len(y)), y]


def forms_by_differences(weights, x, y, activation, moved, h=1e-4):
    """vᵀHv and vᵀGv with v the kernels `moved`.

    Central differences of fourth order in h: the error is of the order of h⁴ times the sixth
    derivative, 1e-16 here, and 16 roundings of the loss divided by h², 16 · 2e-16 / 1e-8 = 4e-7.
    """

    def at(t):
        scaled = [w * (1 + t) if i in moved else w for i, w in enumerate(weights)]
        return forward(scaled, x, activation)

    z, on = zip(*(at(h * step) for step in (-2, -1, 0, 1, 2)), strict=True)
    if activation == "relu":  # no unit switches on the way, so the loss is smooth there
        assert all(np.array_equal(a, b) for a, b in itertools.pairwise(on))
    # Taken for each example, where the differences are not drowned by the sum.
    L = np.stack([losses(outputs, y) for outputs in z])
    H = (-L[0] + 16 * L[1] - 30 * L[2] + 16 * L[3] - L[4]).mean() / (12 * h**2)
    Jv = (z[0] - 8 * z[1] + 8 * z[3] - z[4]) / (12 * h)
    p = np.exp(z[2] - z[2].max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    G = ((p * Jv**2).sum(axis=1) - (p * Jv).sum(axis=1) ** 2).mean()
    return H, G


@pytest.mark.parametrize("activation", examples.ACTIVATIONS)
def test_forms_agree_with_differences_of_an_independent_network(networks, digits, activation):
    x, y = (array[::50] for array in digits)
    model = networks[activation]
    found = rows(model, x, y)
    moved = {"dense1": (0,), "dense2": (2,), "dense3": (4,), "whole network": (0, 2, 4)}
    for layer in NETWORK:
        H, G = forms_by_differences(model.get_weights(), x, y, activation, moved[layer])
        assert found[layer].vHv == pytest.approx(H, abs=1e-6)
        assert found[layer].vGv == pytest.approx(G, rel=1e-9)
        assert found[layer].vHv > 1e-2


@pytest.fixture(scope="module")
def small():
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="float64"),
            keras.layers.Dense(4, "tanh", dtype="float64", name="first"),
            keras.layers.Dense(2, dtype="float64", name="second"),
        ]
    )
    rng = np.random.default_rng(2)
    examples = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    return hvp.linearize(model, examples, "mean_squared_error")


def test_a_vector_given_is_taken_layer_by_layer(small):
    v = np.random.default_rng(3).standard_normal(small.size)
    H = small.hvp(np.eye(small.size))
    G = small.gnvp(np.eye(small.size))
    own = {"first": v * (np.arange(small.size) < 16), "second": v * (np.arange(small.size) >= 16)}
    own["whole network"] = v
    found = hvp.chain_rule(small, v)
    assert [row.layer for row in found] == ["first", "second", "whole network"]
    for row in found:
        u = own[row.layer]
        assert row.vHv == pytest.approx(u @ H @ u, rel=1e-12)
        assert row.vGv == pytest.approx(u @ G @ u, rel=1e-12)
        assert row.vRv == pytest.approx(u @ (H - G) @ u, rel=1e-10, abs=1e-14)


def test_without_a_vector_it_is_the_kernels_without_the_biases(small):
    kernels = small.theta.copy()
    kernels[12:16] = 0
    kernels[24:26] = 0
    assert hvp.chain_rule(small) == hvp.chain_rule(small, kernels)


def test_one_layer_has_one_row_and_no_network(small):
    assert [row.layer for row in hvp.chain_rule(small.block("first"))] == ["first"]


def test_a_layer_without_kernel_moves_its_own_weights():
    lin = hvp.linearize_function(
        lambda z: z**2, [np.array(3.0), np.array(2.0)], outputs=lambda w: w[0] * w[1]
    )
    # L = (ab)²: ∂²L/∂a² = 2b², ∂²L/∂b² = 2a², ∂²L/∂a∂b = 4ab, and G = 2 (b, a)(b, a)ᵀ
    assert [(row.vHv, row.vGv, row.vRv) for row in hvp.chain_rule(lin)] == [
        (72.0, 72.0, 0.0),
        (72.0, 72.0, 0.0),
        (432.0, 288.0, 144.0),
    ]


@pytest.mark.parametrize("shape", [(25,), (27,), (26, 1), ()])
def test_a_vector_of_wrong_length_is_refused(small, shape):
    with pytest.raises(hvp.InputError, match=r"expected a vector of shape \(26,\), got"):
        hvp.chain_rule(small, np.ones(shape))


def test_a_vector_with_nan_is_refused(small):
    v = np.ones(small.size)
    v[20] = np.nan
    with pytest.raises(hvp.InputError, match="expected a finite vector, got NaN or infinity"):
        hvp.chain_rule(small, v)


def test_a_loss_that_is_no_function_of_outputs_is_refused():
    lin = hvp.linearize_function(lambda w: w[0] ** 2, np.ones(2))
    with pytest.raises(hvp.InputError, match="a loss that is a function of outputs"):
        hvp.chain_rule(lin)


@pytest.mark.parametrize("columns", [1, 2])
def test_rows_that_do_not_fit_into_one_block_are_computed_in_several(columns, monkeypatch):
    rng = np.random.default_rng(4)
    params = [rng.standard_normal((3, 2)) for _ in range(3)]

    def outputs(w):
        return (w[0] * w[1] + w[2] ** 2) * w[1]

    lin = hvp.linearize_function(lambda z: (z[0] * z[1])[0] ** 2, params, outputs=outputs)
    expected = hvp.chain_rule(lin)
    monkeypatch.setattr(hvp.comparison.chain_rule, "MAX_BLOCK_BYTES", columns * lin.size * 8)
    found = hvp.chain_rule(lin)
    assert [row.layer for row in found] == [row.layer for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.vHv, one.vGv, one.vRv) == pytest.approx(
            (other.vHv, other.vGv, other.vRv), rel=1e-12
        )

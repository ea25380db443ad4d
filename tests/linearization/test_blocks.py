"""A layer's block that takes its part of products made with all parameters: nothing is traced."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import LABELS, conv_net, dense_net, examples, sequential
from support.sweep import sweep

import hvp
from hvp.linearization.traced_products import TracedProducts

PRODUCTS = ["hvp", "gnvp", "residual_vp", "fisher_vp", "empirical_fisher_vp", "products"]
layers = keras.layers
LAYERS = ["dense1", "dense2", "dense3", "dense[12]"]
DATA = examples((4,)), LABELS


def network(**options):
    """Seven examples in batches of two shapes."""
    net = dense_net(last="softmax", kernel_regularizer="l2")
    given = {"batch_size": 3} | options
    return hvp.linearize(net, DATA, "sparse_categorical_crossentropy", **given)


def used(lin, *products):
    """After a product of each kind with all parameters."""
    for name in products or (*PRODUCTS, "jvp"):
        getattr(lin, name)(np.ones(lin.size))
    if lin.has_outputs:
        lin.vjp(np.ones(lin.num_outputs))
    return lin


def rows(lin, layer):
    return np.concatenate(
        [np.arange(lin.size)[lin.layout.slices[i]] for i in lin.layout.select(layer)]
    )


@pytest.fixture
def traces(monkeypatch):
    """A list that grows by the name of each product that is traced."""
    found = []
    traced = TracedProducts._traced

    def counted(self, mode, product, *arguments):
        found.append(product.name)
        return traced(self, mode, product, *arguments)

    monkeypatch.setattr(TracedProducts, "_traced", counted)
    return found


def agree(first, second):
    scale = max(np.abs(second).max(), 1e-3)
    assert np.abs(first - second).max() <= 1e-13 * scale


@pytest.mark.parametrize("layer", sweep(LAYERS, {"dense[12]"}))
def test_products_of_a_block_are_the_rows_and_columns_of_the_whole_product(layer, traces):
    lin = used(network())
    inside, block = rows(lin, layer), lin.block(layer)
    V = np.random.default_rng(0).standard_normal((len(inside), 3))
    padded = np.zeros((lin.size, 3))
    padded[inside] = V
    expected = {name: np.array(getattr(lin, name)(padded)) for name in PRODUCTS}
    u = np.random.default_rng(1).standard_normal(lin.num_outputs)
    before = len(traces)
    for name, whole in expected.items():
        agree(np.array(getattr(block, name)(V)), whole[..., inside, :])
    agree(block.jvp(V), lin.jvp(padded))
    agree(block.vjp(u), lin.vjp(u)[inside])
    assert len(traces) == before


def test_a_block_of_a_block_is_a_part_of_the_same_product(traces):
    lin = used(network(), "hvp")
    before = traces.count("H")
    inner = used(lin.block("dense[23]"), "hvp").block("dense3")
    inside = rows(lin, "dense3")
    agree(inner.hvp(np.ones(len(inside))), lin.hvp(np.eye(lin.size)[:, inside].sum(1))[inside])
    assert traces.count("H") == before


@pytest.mark.parametrize(("make", "shape"), [(dense_net, (4,)), (conv_net, (6, 6, 1))])
def test_a_block_saves_no_tensors_of_its_own(make, shape):
    y = np.random.default_rng(0).standard_normal((7, 3))
    lin = used(hvp.linearize(make(), (examples(shape), y), "mse", batch_size=3), "hvp", "gnvp")
    kept = lin.memory.kept
    for block in lin.blocks().values():
        block.hvp(np.ones(block.size))
        block.gnvp(np.ones(block.size))
        assert block.memory.kept == kept
        assert block.memory.kept_batches == block.memory.batches


def test_rectifiers_leave_no_residual_in_the_part_of_a_layer():
    net = dense_net(activation="relu", last="softmax")
    lin = used(hvp.linearize(net, DATA, "sparse_categorical_crossentropy"), "residual_vp")
    for block in lin.blocks().values():
        assert not block.residual_vp(np.ones(block.size)).any()


def test_a_kernel_without_its_bias_is_traced_by_itself(traces):
    lin = used(network(), "hvp")
    before = len(traces)
    block = lin.block("dense1/kernel")
    inside = rows(lin, "dense1/kernel")
    agree(block.hvp(np.ones(block.size)), lin.hvp(np.eye(lin.size)[:, inside].sum(1))[inside])
    assert len(traces) > before


@pytest.mark.parametrize(
    "options",
    [
        {"cache": 0},
        {"ad": "reverse-over-reverse"},
        pytest.param({"jit": True}, marks=pytest.mark.sweep),
    ],
)
def test_options_do_not_change_a_block(options):
    lin = used(network(**options), "hvp")
    fresh = network(**options).block("dense2")
    v = np.random.default_rng(2).standard_normal(fresh.size)
    agree(lin.block("dense2").hvp(v), fresh.hvp(v))


@pytest.mark.sweep
def test_layers_of_a_recurrent_network_are_traced_by_themselves():
    net = sequential((5, 3), layers.LSTM(4, name="lstm"), layers.Dense(3, name="last"))
    data = examples((5, 3)), np.random.default_rng(0).standard_normal((7, 3))
    lin = used(hvp.linearize(net, data, "mse"), "hvp")
    for name in ("lstm", "last"):
        inside = rows(lin, name)
        v = np.zeros(lin.size)
        v[inside] = 1
        agree(lin.block(name).hvp(v[inside]), lin.hvp(v)[inside])


def test_parameters_that_a_product_does_not_use_have_zero_blocks():
    w = [np.ones(3), np.ones(2), np.ones(4)]
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(w[0] ** 3) + tf.reduce_sum(w[2] ** 2), w)
    lin.hvp(np.ones(9))
    assert not lin.block("param1").hvp(np.ones(2)).any()
    assert (lin.block("param2").hvp(np.ones(4)) == 2).all()
    assert (lin.block(["param0", "param1"]).hvp(np.ones(5)) == [6, 6, 6, 0, 0]).all()


@pytest.mark.sweep
def test_without_passes_a_block_is_traced_by_itself(traces):
    lin = used(network(), "hvp")
    before = len(traces)
    block = lin.block("dense1")
    with hvp.passes.pipeline.without_passes():
        found = block.hvp(np.ones(block.size))
    assert len(traces) > before
    agree(found, lin.block("dense1").hvp(np.ones(block.size)))

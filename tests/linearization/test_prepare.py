"""After `prepare` a product traces nothing, and its values are the same."""

import numpy as np
import pytest
import tensorflow as tf

import hvp
from hvp.errors import InputError


@pytest.fixture
def traces(monkeypatch):
    """A list that grows with every graph that TensorFlow begins."""
    found = []
    begin = tf.__internal__.FuncGraph.__init__

    def counting(self, *args, **options):
        found.append(args)
        begin(self, *args, **options)

    monkeypatch.setattr(tf.__internal__.FuncGraph, "__init__", counting)
    return found


def loss(**options):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 4)).astype("float32")
    w = [rng.normal(size=shape).astype("float32") for shape in ((4, 5), (5, 2))]
    return hvp.linearize_function(
        lambda z, x: tf.reduce_mean(z**4), w, x, reduction="mean", batch_size=8,
        outputs=lambda w, x: tf.tanh(x @ w[0]) @ w[1], **options,
    )  # fmt: skip


PRODUCTS = {
    "H": lambda lin, v: lin.hvp(v),
    "G": lambda lin, v: lin.gnvp(v),
    "R": lambda lin, v: lin.residual_vp(v),
    "HGR": lambda lin, v: lin.products(v),
    "J": lambda lin, v: lin.vjp(lin.jvp(v)),
}


@pytest.mark.sweep
@pytest.mark.parametrize("jit", ["auto", pytest.param(True, marks=pytest.mark.sweep)])
def test_no_product_is_traced_after_it(traces, jit):
    lin = loss(jit=jit)
    assert lin.prepare("H", "G", columns=(1, 6)) is lin
    assert traces
    del traces[:]
    block = np.ones((lin.size, 6), np.float32)
    for _ in range(120):  # after a hundred, batches are joined and XLA is tried, else
        lin.hvp(block[:, 0])
        lin.gnvp(block)
    assert traces == []
    lin.residual_vp(block[:, 0])
    assert traces  # what was not prepared is traced


def test_without_it_products_are_traced_later(traces):
    lin = loss()
    for _ in range(99):
        lin.hvp(lin.theta)
    del traces[:]
    for _ in range(5):
        lin.hvp(lin.theta)
    assert traces


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_kind_of_product_can_be_prepared(traces, name):
    lin = loss().prepare(name)
    del traces[:]
    PRODUCTS[name](lin, lin.theta)
    assert traces == []


def test_values_are_those_without_it():
    plain, prepared = loss(), loss().prepare(columns=(1, 4))
    block = np.random.default_rng(1).normal(size=(plain.size, 4)).astype("float32")
    np.testing.assert_array_equal(prepared.hvp(block[:, 0]), plain.hvp(block[:, 0]))
    np.testing.assert_allclose(prepared.gnvp(block), plain.gnvp(block), rtol=1e-5, atol=1e-6)


def test_without_outputs_it_prepares_h_alone():
    lin = hvp.linearize_function(lambda w: w[0] ** 3, np.array([2.0])).prepare()
    assert [choice.product for choice in lin.choices] == ["H"]
    with pytest.raises(InputError, match="outputs"):
        lin.prepare("G")


@pytest.mark.parametrize(
    ("matrices", "columns"), [(("K",), 1), (("H",), 0), (("H",), ()), ((["H"],), 1)]
)
def test_what_cannot_be_prepared_is_refused(matrices, columns):
    with pytest.raises(InputError):
        loss().prepare(*matrices, columns=columns)

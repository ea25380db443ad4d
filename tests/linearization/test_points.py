"""Other points of a loss: the numbers of a new linearization, and nothing traced again."""

import gc
import weakref

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf

import hvp
from hvp.autodiff import tensorflow_private, tracing
from hvp.linearization.audit import Auditor

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
GIVEN = {"ad": "forward-over-reverse", "jit": False}


def network():
    """A network with frozen weights, moving statistics and penalties."""
    keras.utils.set_random_seed(0)
    frozen = keras.layers.Dense(6, "tanh", name="frozen")
    net = keras.Sequential(
        [
            keras.Input((5,)),
            frozen,
            keras.layers.Dense(4, name="first", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Activation("tanh"),
            keras.layers.Dense(3, name="last"),
        ]
    )
    frozen.trainable = False
    net.compile("adam", LOSS, metrics=["accuracy"])
    return net


def digits(count=20):
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, 5)).astype("float32"), np.arange(count) % 3


def changed(net, seed=5):
    """Give every weight, frozen ones and statistics too, other values."""
    rng = np.random.default_rng(seed)
    net.set_weights([w + 0.1 * rng.random(w.shape) for w in net.get_weights()])
    return net


def linearized(net, **options):
    return hvp.linearize(net, digits(), batch_size=8, **(GIVEN | options))


@pytest.fixture
def nothing_is_traced(monkeypatch):
    """Start to refuse traces, audits and compiled functions by a call."""

    def refuse(*args, **kwargs):
        raise AssertionError("traced again")

    def start():
        monkeypatch.setattr(tracing, "trace", refuse)
        monkeypatch.setattr(tensorflow_private, "compiled", refuse)
        monkeypatch.setattr(tf, "function", refuse)
        monkeypatch.setattr(Auditor, "audit", refuse)

    return start


def same(here, there, v):
    """Require equal numbers, to the last bit."""
    for method in ("hvp", "gnvp", "residual_vp", "fisher_vp", "jvp"):
        assert np.array_equal(getattr(here, method)(v), getattr(there, method)(v)), method
    u = np.linspace(-1, 1, here.num_outputs).astype(here.dtype)
    assert np.array_equal(here.vjp(u), there.vjp(u))
    assert np.array_equal(here.gradient(), there.gradient())
    assert np.array_equal(here.outputs(), there.outputs())
    assert (here.loss(), here.accuracy) == (there.loss(), there.accuracy)
    assert here.weights_digest == there.weights_digest
    assert here.is_convex == there.is_convex
    assert here.data_digest == there.data_digest


@pytest.mark.sweep
@pytest.mark.parametrize("dtype", [None, "float64"])
def test_a_changed_model_has_the_numbers_of_a_new_linearization(dtype):
    net = network()
    lin = linearized(net, dtype=dtype)
    v = np.random.default_rng(2).normal(size=(lin.size, 3)).astype(lin.dtype)
    lin.hvp(v)
    before = lin.hvp(v)
    there, fresh = lin.at(changed(net)), linearized(net, dtype=dtype)
    same(there, fresh, v)
    assert not np.array_equal(there.hvp(v), before)
    assert np.array_equal(lin.hvp(v), before)
    for name in lin.layout.layers:
        block, new = there.block(name), fresh.block(name)
        assert np.array_equal(block.hvp(v[: block.size, 0]), new.hvp(v[: block.size, 0]))


def test_what_is_traced_is_freed_with_the_last_point():
    lin = linearized(network())
    there = lin.at(lin.theta + 1)
    there.hvp(np.ones(lin.size))
    traces = weakref.ref(lin._traces)
    lin.close()
    gc.collect()
    assert traces() is not None
    there.close()
    gc.collect()
    assert traces() is None


@pytest.mark.sweep
def test_float64_and_forced_orders_follow_the_point():
    net = network()
    lin = linearized(net)
    lin.in_float64().hvp(np.ones(lin.size))
    there, fresh = lin.at(changed(net)), linearized(net)
    v = np.linspace(-1, 1, lin.size)
    assert np.array_equal(there.in_float64().hvp(v), fresh.in_float64().hvp(v))
    forced = {"ad": "reverse-over-reverse"}
    assert np.array_equal(there.forced(**forced).hvp(v), fresh.forced(**forced).hvp(v))


@pytest.mark.sweep
def test_nothing_is_traced_again(nothing_is_traced):
    net = network()
    lin = linearized(net)
    v = np.random.default_rng(2).normal(size=(lin.size, 3)).astype(lin.dtype)
    same(lin, lin, v)
    lin.block("first").hvp(v[: lin.block("first").size, 0])
    nothing_is_traced()
    there = lin.at(changed(net))
    same(there, there, v)
    there.block("first").hvp(v[: there.block("first").size, 0])
    with pytest.raises(AssertionError, match="traced again"):
        lin.forced().hvp(v[:, 0])


def test_files_and_arrays_give_the_point_of_their_model(tmp_path):
    net = network()
    lin = linearized(net)
    untouched = net.get_weights()
    changed(net)
    net.save(tmp_path / "net.keras")
    net.save_weights(tmp_path / "net.weights.h5")
    fresh, v = linearized(net), np.linspace(-1, 1, lin.size).astype("float32")
    net.set_weights(untouched)
    expected = fresh.hvp(v)
    for name in ("net.keras", "net.weights.h5"):
        for path in (tmp_path / name, str(tmp_path / name)):
            assert np.array_equal(lin.at(path).hvp(v), expected)
    assert all(map(np.array_equal, net.get_weights(), untouched))
    there = lin.at(tmp_path / "net.keras")
    parts = [
        fresh.theta[s].reshape(t) for s, t in zip(lin.layout.slices, lin.layout.shapes, strict=True)
    ]
    for point in (fresh.theta, fresh.theta.tolist(), parts, tuple(parts)):
        assert np.array_equal(there.at(point).hvp(v), expected)
    # A vector leaves frozen weights and statistics as they are.
    assert not np.array_equal(lin.at(fresh.theta).hvp(v), expected)


def test_a_point_of_some_layers_leaves_the_others():
    net = network()
    lin = linearized(net, variables="last")
    there = lin.at(np.ones(lin.size))
    kernel, bias = net.get_layer("last").trainable_variables
    kernel.assign(np.ones(kernel.shape))
    bias.assign(np.ones(bias.shape))
    v = np.linspace(-1, 1, lin.size)
    assert np.array_equal(there.hvp(v), linearized(net, variables="last").hvp(v))


def test_weights_in_another_precision_are_those_of_the_point():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((5,)), keras.layers.Dense(4, "tanh", dtype="mixed_bfloat16")]
    net = keras.Sequential([*layers, keras.layers.Dense(3)])
    net.compile(loss=LOSS)
    lin = linearized(net)
    v = np.linspace(-1, 1, lin.size).astype("float32")
    lin.hvp(v)
    there, fresh = lin.at(changed(net)), linearized(net)
    assert np.array_equal(there.hvp(v), fresh.hvp(v))
    assert lin.memory.kept > 0


@pytest.mark.sweep
def test_a_small_budget_serves_several_points():
    net = network()
    v = np.linspace(-1, 1, 51).astype("float32")
    whole = linearized(net)
    whole.hvp(v)
    lin = linearized(net, cache=whole.memory.kept + 100)
    before = lin.hvp(v)
    points = [lin.theta + 0.1 * i for i in range(3)]
    expected = [lin.at(point).hvp(v) for point in points]
    there = [lin.at(point) for point in points]
    for _ in range(2):
        assert all(np.array_equal(t.hvp(v), e) for t, e in zip(there, expected, strict=True))
        assert lin.memory.kept <= lin.memory.budget
    assert np.array_equal(lin.hvp(v), before)


def test_functions_have_points_too():
    data = np.linspace(-1, 1, 12).reshape(6, 2)

    def loss(z, batch):
        return tf.reduce_mean(z**4)

    def outputs(params, batch):
        w, b = params
        return tf.tanh(batch @ w + b)

    def at(w, b):
        return hvp.linearize_function(
            loss, [w, b], data, outputs=outputs, reduction="mean", batch_size=4, **GIVEN
        )

    first, second = (np.ones((2, 1)), np.zeros(1)), (np.full((2, 1), 0.5), np.ones(1))
    there, fresh = at(*first).at(second), at(*second)
    v = np.array([1.0, -2.0, 3.0])
    for method in ("hvp", "gnvp", "jvp"):
        assert np.array_equal(getattr(there, method)(v), getattr(fresh, method)(v))
    assert there.loss() == fresh.loss()


def test_what_is_refused_at_a_point_is_refused_at_every_point():
    def loss(w):
        return tf.reduce_sum(tf.where(w == 0, tf.zeros_like(w), w**2 + w))

    lin = hvp.linearize_function(loss, np.array([1.0, 2.0]))
    with pytest.raises(hvp.InputError) as fresh:
        hvp.linearize_function(loss, np.array([0.0, 2.0]))
    with pytest.raises(hvp.InputError) as there:
        lin.at(np.array([0.0, 2.0]))
    assert str(there.value) == str(fresh.value)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (lambda lin: lin.theta[:-1], "shape"),
        (lambda lin: np.eye(lin.size), "one vector"),
        (lambda lin: [np.ones(2), np.ones(3)], "arrays"),
        (lambda lin: [*(np.ones(s) for s in lin.layout.shapes[:-1]), np.ones(7)], "last/bias"),
        (lambda lin: np.full(lin.size, np.nan), "finite parameters"),
        (lambda lin: "missing.keras", "no file"),
        (lambda lin: "missing.weights.h5", "no file"),
        (lambda lin: 3.0, "a vector, a list of arrays, a Keras model or its file"),
        (lambda lin: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), "architecture"),
    ],
)
def test_other_points_are_refused(point, message):
    lin = linearized(network())
    with pytest.raises(hvp.InputError, match=message):
        lin.at(point(lin))


def test_the_weights_of_another_architecture_are_refused(tmp_path):
    other = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "text.weights.h5").write_text("text")
    lin = linearized(network())
    for name in ("other.weights.h5", "text.weights.h5"):
        with pytest.raises(hvp.InputError, match=name):
            lin.at(tmp_path / name)


@pytest.mark.sweep
def test_the_weights_of_a_deeper_network_are_refused(tmp_path):
    def stacked(depth):
        dense = [keras.layers.Dense(3, "tanh") for _ in range(depth)]
        net = keras.Sequential([keras.Input((3,)), *dense, keras.layers.Dropout(0.1)])
        net.compile("adam", "mse", metrics=["mae"])
        return net

    x = np.ones((4, 3), "float32")
    deeper, same = stacked(3), stacked(2)
    for name, net in (("deeper", deeper), ("same", same)):
        net.fit(x, x, verbose=0)
        net.save_weights(tmp_path / f"{name}.weights.h5")
    lin = hvp.linearize(stacked(2), (x, x))
    assert lin.at(tmp_path / "same.weights.h5").loss() != lin.loss()
    with pytest.raises(hvp.InputError, match=r"at most 4 arrays.*got 6 in .*deeper"):
        lin.at(tmp_path / "deeper.weights.h5")


def test_a_closed_linearization_refuses_and_leaves_other_points():
    lin = linearized(network())
    v = np.ones(lin.size)
    with lin.at(lin.theta + 1) as there:
        there.hvp(v)
        kept = lin.memory.kept
    assert lin.memory.kept < kept
    lin.hvp(v)
    actions = (
        lambda: there.hvp(v),
        there.loss,
        there.gradient,
        lambda: there.theta,
        lambda: there.at(lin.theta),
        lambda: there.block("last"),
        lambda: there.batch_forms(v),
    )
    for action in actions:
        with pytest.raises(hvp.InputError, match="closed"):
            action()


@pytest.mark.sweep
def test_fifty_points_keep_no_memory():
    rng = np.random.default_rng(0)
    net = keras.Sequential([keras.Input((100,)), keras.layers.Dense(500), keras.layers.Dense(500)])
    data = rng.random((10, 100)), rng.random((10, 500))
    lin = hvp.linearize(net, data, "mean_squared_error", **GIVEN)
    v, theta = np.ones(lin.size, "float32"), lin.theta

    def resident():
        gc.collect()
        return psutil.Process().memory_info().rss

    def visit(count):
        for _ in range(count):
            lin.at(theta).hvp(v)

    visit(10)
    before = resident()
    visit(50)
    assert resident() - before < 20 * v.nbytes

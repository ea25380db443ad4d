"""Models and losses of public bug reports about second derivatives, each with its own oracle."""

import gc
import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from support import oracles
from support.oracles import differenced_hessian, relative, sequential

import hvp

layers = keras.layers
rng = np.random.default_rng(5)
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
POINTS = np.array([0.0, 20.0, -20.0, 40.0, -40.0, 100.0, -100.0])
ORDERS = pytest.mark.parametrize("ad", ["forward-over-reverse", "reverse-over-reverse"])


def sigmoid_slope(x):
    """σ(1 - σ), without cancellation."""
    e = np.exp(-np.abs(x))
    return e / (1 + e) ** 2


def bent(x):
    """The second derivative of eˣ - 1 for x < 0 and a line for x ≥ 0, from the right at zero."""
    return np.where(x < 0, np.exp(np.minimum(x, 0.0)), 0.0)


ACTIVATIONS = {
    "elu": (tf.nn.elu, bent),
    "selu": (tf.nn.selu, lambda x: SELU_SCALE * SELU_ALPHA * bent(x)),
    "softplus": (tf.nn.softplus, sigmoid_slope),
    "silu": (
        tf.nn.silu,
        lambda x: sigmoid_slope(x) * (2 - x * np.tanh(x / 2)),
    ),
    "log_sigmoid": (tf.math.log_sigmoid, lambda x: -sigmoid_slope(x)),
}


@ORDERS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_far_from_zero_and_at_zero(name, dtype, ad):
    function, curvature = ACTIVATIONS[name]
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(function(w)), POINTS.astype(dtype), ad=ad)
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(
        np.diag(lin.hvp(np.eye(len(POINTS)))),
        curvature(POINTS),
        rtol=100 * eps,
        atol=4 * eps,
    )


@ORDERS
def test_a_quotient_with_a_taylor_branch_at_zero(ad):
    """(eˣ - 1)/x is Σ xᵏ/(k + 1)!: its second derivative at zero is 1/3."""

    def loss(x):
        return tf.reduce_sum(tf.where(tf.abs(x) < 1e-4, 1 + x / 2 + x**2 / 6, (tf.exp(x) - 1) / x))

    lin = hvp.linearize_function(loss, np.array([0.0, 1.0]), ad=ad)
    np.testing.assert_allclose(lin.hvp(np.eye(2)), np.diag([1 / 3, np.e - 2]), rtol=1e-12)
    np.testing.assert_allclose(lin.gradient(), [0.5, 1.0], rtol=1e-12)


INTERVAL = np.linspace(-1, 1, 7)


def by_tapes(u, x):
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = u(x)
        slope = inner.gradient(value, x)
    return outer.gradient(slope, x)


def by_forward_mode(u, x):
    with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as outer:
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = u(x)
        slope = inner.gradient(value, x)
    return outer.jvp(slope)


@pytest.mark.parametrize("second", [by_tapes, by_forward_mode])
def test_a_residual_with_second_derivatives_in_the_inputs(second):
    """u = Σ vⱼ tanh(aⱼx + bⱼ), whose u_xx is Σ vⱼ aⱼ² tanh''."""
    w, x = rng.normal(size=(3, 4)), tf.constant(INTERVAL)

    def loss(w):
        def u(x):
            return tf.linalg.matvec(tf.tanh(x[:, None] * w[0] + w[1]), w[2])

        return tf.reduce_mean((second(u, x) + tf.sin(x)) ** 2)

    def written_out(w):
        t = tf.tanh(x[:, None] * w[0] + w[1])
        u_xx = tf.linalg.matvec(-2 * t * (1 - t**2), w[2] * w[0] ** 2)
        return tf.reduce_mean((u_xx + tf.sin(x)) ** 2)

    variable = tf.Variable(w)
    expected = oracles.hessian(lambda: written_out(variable), [variable])
    assert relative(hvp.linearize_function(loss, w).hvp(np.eye(12)), expected) < 1e-11


@pytest.mark.sweep
def test_a_gradient_step_inside_the_loss():
    """‖w - α∇(½wᵀAw + ¼Σw⁴)‖²/2 with the Jacobian J = I - α(A + 3 diag w²)."""
    A, w, step = np.diag([1.0, 3.0]) + 0.5, np.array([0.3, -0.8]), 0.1

    def loss(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            inner = tf.tensordot(w, tf.linalg.matvec(A, w), 1) / 2 + tf.reduce_sum(w**4) / 4
        moved = w - step * tape.gradient(inner, w)
        return tf.reduce_sum(moved**2) / 2

    J = np.eye(2) - step * (A + 3 * np.diag(w**2))
    moved = w - step * (A @ w + w**3)
    expected = J.T @ J + np.diag(-6 * step * w * moved)
    np.testing.assert_allclose(hvp.linearize_function(loss, w).hvp(np.eye(2)), expected, rtol=1e-12)


def test_low_rank_adapters_with_the_rest_frozen():
    model = sequential((4,), layers.Dense(5, "tanh"), layers.Dense(2), dtype="float32")
    x, y = (rng.normal(size=(6, n)).astype(np.float32) for n in (4, 2))
    for layer in model.layers:
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(rng.normal(size=layer.lora_kernel_b.shape))
        layer.bias.trainable = False
    adapters = [v.value for v in model.trainable_variables]
    assert len(adapters) == 4

    def loss():
        hidden, outputs = x, None
        for layer, (a, b) in zip(model.layers, (adapters[:2], adapters[2:]), strict=True):
            scale = layer.lora_alpha / layer.lora_rank
            kernel = layer._kernel.value + scale * tf.matmul(a, b)
            outputs = tf.matmul(hidden, kernel) + layer.bias.value
            hidden = tf.tanh(outputs)
        return tf.reduce_mean((outputs - y) ** 2)

    lin = hvp.linearize(model, (x, y), "mse")
    expected = oracles.hessian(loss, adapters)
    assert lin.size == sum(int(tf.size(v)) for v in adapters)
    assert relative(lin.hvp(np.eye(lin.size)), expected) < 1e-5


class Slices(layers.Layer):
    """Σᵢ tanh(wᵢ · x[:, i : i + 2]), in a Python loop over slices."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1] - 1, 2), initializer="ones")

    def call(self, x):
        total = 0.0
        for i in range(x.shape[1] - 1):
            total += tf.tanh(tf.reduce_sum(self.w[i] * x[:, i : i + 2], -1, keepdims=True))
        return total


def test_a_loop_over_slices_in_a_layer():
    model = keras.Sequential([keras.Input((5,), dtype="float64"), Slices(dtype="float64")])
    x, y = rng.normal(size=(6, 5)), rng.normal(size=(6, 1))
    w = model.trainable_variables[0].value

    def loss():
        windows = tf.stack([x[:, :-1], x[:, 1:]], -1)
        outputs = tf.reduce_sum(tf.tanh(tf.reduce_sum(w * windows, -1)), 1, keepdims=True)
        return tf.reduce_mean((outputs - y) ** 2)

    lin = hvp.linearize(model, (x, y), keras.losses.MeanSquaredError(dtype="float64"))
    assert relative(lin.hvp(np.eye(8)), oracles.hessian(loss, [w])) < 1e-12


def test_positive_blocks_do_not_make_a_positive_matrix():
    """XOR by a network of ReLUs: the block of each layer is that of G, the rest is not."""
    model = oracles.randomised(
        sequential(
            (2,),
            layers.Dense(4, "relu", use_bias=False, dtype="float64"),
            layers.Dense(1, use_bias=False, dtype="float64"),
        )
    )
    x = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    data = x, np.array([[0.0], [1], [1], [0]])
    mse = keras.losses.MeanSquaredError(dtype="float64")
    lin = hvp.linearize(model, data, mse)
    H = lin.hvp(np.eye(lin.size))
    variables = [v.value for v in model.trainable_variables]
    expected = differenced_hessian(lambda: tf.reduce_mean((model(x) - data[1]) ** 2), variables)
    assert relative(H, expected) < 1e-7
    for block in (H[:8, :8], H[8:, 8:]):
        assert np.linalg.eigvalsh(block).min() > -1e-12
    assert np.linalg.eigvalsh(H).min() < -0.1
    assert hvp.eigsh(hvp.Hessian(lin), 1, which="SA").values[0] == pytest.approx(
        np.linalg.eigvalsh(H).min()
    )


@ORDERS
def test_parameters_gathered_several_times(ad):
    index = [0, 0, 2]
    lin = hvp.linearize_function(
        lambda w: tf.reduce_sum(tf.gather(w, index) ** 2), np.ones(4), ad=ad
    )
    np.testing.assert_allclose(lin.hvp(np.eye(4)), np.diag([4.0, 0, 2, 0]))


def test_tied_input_and_output_embeddings():
    ids, targets = rng.integers(0, 5, size=(4, 3)), rng.integers(0, 5, size=(4, 3))
    inputs = keras.Input((3,), dtype="int32")
    embedding = layers.Embedding(5, 2, dtype="float64")
    hidden = layers.Dense(2, "tanh", dtype="float64")(embedding(inputs))

    class Tied(layers.Layer):
        def __init__(self, source, **options):
            super().__init__(**options)
            self.source = source

        def call(self, x):
            return tf.matmul(x, tf.convert_to_tensor(self.source.embeddings), transpose_b=True)

    model = oracles.randomised(
        keras.Model(inputs, Tied(embedding, dtype="float64", name="logits")(hidden))
    )
    variables = [v.value for v in model.trainable_variables]
    table, kernel, bias = variables

    def loss():
        rows = tf.matmul(tf.one_hot(ids, 5, dtype=tf.float64), table)
        logits = tf.matmul(tf.tanh(tf.matmul(rows, kernel) + bias), table, transpose_b=True)
        labels = tf.one_hot(targets, 5, dtype=tf.float64)
        return -tf.reduce_mean(tf.reduce_sum(labels * tf.nn.log_softmax(logits), -1))

    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    lin = hvp.linearize(model, (ids, targets), cross_entropy)
    assert relative(lin.hvp(np.eye(lin.size)), oracles.hessian(loss, variables)) < 1e-11


def test_activations_that_are_exactly_zero_on_a_black_border():
    """Without biases a filter gives zero on black whatever its weights are: no kink is crossed."""
    model = oracles.randomised(
        sequential(
            (8, 8, 1),
            layers.Conv2D(3, 3, activation="relu", use_bias=False, dtype="float64"),
            layers.GlobalAveragePooling2D(dtype="float64"),
            layers.Dense(2, dtype="float64"),
        )
    )
    x, y = np.zeros((4, 8, 8, 1)), rng.normal(size=(4, 2))
    x[:, 4:, 4:] = rng.normal(size=(4, 4, 4, 1))
    variables = [v.value for v in model.trainable_variables]
    expected = differenced_hessian(lambda: tf.reduce_mean((model(x) - y) ** 2), variables)
    lin = hvp.linearize(model, (x, y), keras.losses.MeanSquaredError(dtype="float64"))
    assert relative(lin.hvp(np.eye(lin.size)), expected) < 1e-6


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.sweep
def test_fifty_linearizations_while_training_keep_memory_flat():
    x, w = tf.constant(rng.normal(size=(32, 8))), tf.Variable(rng.normal(size=8))
    mebibyte, sizes = 1 << 20, []
    for step in range(1, 51):
        lin = hvp.linearize_function(
            lambda w: tf.reduce_sum(tf.cos(tf.linalg.matvec(x, w))), w.numpy(), jit=False
        )
        w.assign_sub(1e-3 * lin.hvp(lin.gradient()))
        del lin
        if step % 10 == 0:
            gc.collect()
            sizes.append(resident_bytes() / mebibyte)
    # The first linearizations fill caches; afterwards each may leave half a mebibyte.
    assert sizes[-1] - sizes[1] < 15

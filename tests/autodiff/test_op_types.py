"""No product needs a row of the table of operations to be right.

An operation that TensorFlow renames has no row. Here rows are removed: products stay right, since
TensorFlow differentiates the operation itself, or the loss is refused.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.operations import OPERATIONS, without_rows
from support.oracles import differenced_hessian, examples, relative, sequential

import hvp
from hvp.autodiff.op_types import OP_TYPES, UNKNOWN, op_type

layers = keras.layers
rng = np.random.default_rng(11)
X, W = rng.standard_normal((5, 3)), rng.standard_normal((3, 4))
V = rng.standard_normal((12, 3))

ACTIVATIONS = {
    "EluGrad": tf.nn.elu,
    "SeluGrad": tf.nn.selu,
    "SoftplusGrad": tf.nn.softplus,
    "TanhGrad": tf.tanh,
    "SigmoidGrad": tf.sigmoid,
    "ReluGrad": lambda x: tf.nn.relu(x) ** 2,
    "Relu6Grad": lambda x: tf.nn.relu6(x) ** 2,
    "LeakyReluGrad": lambda x: tf.nn.leaky_relu(x) ** 2,
    "SqrtGrad": lambda x: tf.sqrt(1 + x**2),
    "RsqrtGrad": lambda x: tf.math.rsqrt(1 + x**2),
    "ReciprocalGrad": lambda x: tf.math.reciprocal(2 + x**2),
}
COMPOSED = {
    "silu": tf.nn.silu,
    "gelu": tf.nn.gelu,
    "softsign": tf.nn.softsign,
    "softmax": tf.nn.softmax,
}


def products(activation, ad="auto"):
    """Columns of H, G and R, and the loss, of a small network."""

    def outputs(w):
        hidden = activation(tf.matmul(X, w))
        return tf.matmul(hidden, activation(w), transpose_b=True)

    def loss(z):
        return tf.reduce_sum(tf.math.log(1 + z**2))

    lin = hvp.linearize_function(loss, W, outputs=outputs, ad=ad)
    return [lin.hvp(V), lin.gnvp(V), lin.residual_vp(V)], lambda w: loss(outputs(w))


def assert_close(found, expected):
    for got, value in zip(found, expected, strict=True):
        assert relative(got, value) < 1e-13


@pytest.mark.parametrize("ad", ["forward-over-reverse", "reverse-over-reverse"])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_products_need_no_row_of_a_gradient_operation(kind, ad):
    assert kind in OP_TYPES
    expected, loss = products(ACTIVATIONS[kind])
    with without_rows(kind):
        assert op_type(kind) is UNKNOWN
        found, _ = products(ACTIVATIONS[kind], ad)
    assert op_type(kind) is not UNKNOWN
    assert_close(found, expected)
    variable = tf.Variable(W)
    hessian = differenced_hessian(lambda: loss(variable), [variable])
    assert relative(found[0], hessian @ V) < 1e-8


@pytest.mark.parametrize("name", [*ACTIVATIONS, *COMPOSED])
def test_products_need_no_row_at_all(name):
    activation = {**ACTIVATIONS, **COMPOSED}[name]
    expected, _ = products(activation)
    with without_rows():
        found, _ = products(activation)
    assert_close(found, expected)


def test_a_network_needs_no_row_but_those_of_calls():
    """Convolutions, pooling, a normalisation, biases, and a loss of Keras."""
    model = sequential(
        (6, 6, 2),
        layers.Conv2D(3, 2, activation="elu", dtype="float64"),
        layers.MaxPooling2D(2, dtype="float64"),
        layers.BatchNormalization(dtype="float64"),
        layers.DepthwiseConv2D(2, activation="selu", dtype="float64"),
        layers.Flatten(dtype="float64"),
        layers.Dense(3, "softplus", dtype="float64"),
    )
    data = examples((6, 6, 2)), examples((3,))

    def found():
        lin = hvp.linearize(model, data, keras.losses.MeanSquaredError(dtype="float64"))
        v = np.random.default_rng(0).standard_normal((lin.size, 2))
        return [lin.hvp(v), lin.gnvp(v), lin.residual_vp(v)]

    expected = found()
    with without_rows(*(kind for kind, row in OP_TYPES.items() if not row.is_call)):
        assert_close(found(), expected)


REFUSED = {
    "Round": lambda w: tf.round(10 * w) * w**2,
    "StopGradient": lambda w: tf.stop_gradient(w) * w**2,
    "StatelessWhile": lambda w: tf.while_loop(
        lambda i, y: i < 3, lambda i, y: (i + 1, y * w), [0, w]
    )[1],
    "StatelessIf": lambda w: tf.cond(w[0, 0] > 0, lambda: w**2, lambda: w**3),
    "PartitionedCall": tf.function(lambda w: w**3),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_known_to_be_constant_or_to_call_functions_is_refused(kind):
    def loss(w):
        return tf.reduce_sum(REFUSED[kind](w))

    hvp.linearize_function(loss, W)
    with without_rows(kind), pytest.raises(hvp.InputError, match=f"got {kind} in "):
        hvp.linearize_function(loss, W)


@pytest.mark.parametrize("kind", [kind for kind, row in OP_TYPES.items() if row.is_diagonal])
def test_a_diagonal_operation_is_linear_in_one_input(kind):
    assert len(OP_TYPES[kind].linear_in) == 1


def test_every_linear_operation_is_run_by_tensorflow_in_the_tests():
    linear = {kind for kind, row in OP_TYPES.items() if row.linear_inputs(2)}
    assert linear <= set(OPERATIONS)

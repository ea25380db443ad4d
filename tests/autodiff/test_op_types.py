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
    "SigmoidGrad": tf.nn.silu,
    "ReluGrad": tf.nn.relu,
    "Relu6Grad": tf.nn.relu6,
    "LeakyReluGrad": tf.nn.leaky_relu,
    "SqrtGrad": lambda x: tf.sqrt(1 + x**2),
    "RsqrtGrad": lambda x: tf.math.rsqrt(1 + x**2),
    "ReciprocalGrad": lambda x: tf.math.reciprocal(2 + x**2),
}
# Without the other rows a loss is refused.
SHORTCUTS = [
    kind
    for kind, row in OP_TYPES.items()
    if not (row.locally_constant or row.is_alias or row.is_call)
]


def outputs(w):
    """A network of two layers for each of the activations."""
    hidden = tf.matmul(X, w)
    every = [f(hidden) for f in (*ACTIVATIONS.values(), tf.nn.gelu, tf.nn.softsign, tf.nn.softmax)]
    return tf.matmul(tf.concat(every, 0), tf.sin(w), transpose_b=True)


def loss(z):
    return tf.reduce_sum(tf.math.log(1 + z**2))


def products(ad):
    """Columns of H, G and R."""
    lin = hvp.linearize_function(loss, W, outputs=outputs, ad=ad, jit=False)
    return [lin.hvp(V), lin.gnvp(V), lin.residual_vp(V)]


@pytest.fixture(scope="module")
def expected():
    """Products by differences of TensorFlow's gradient, and with all rows."""
    variable = tf.Variable(W)
    hessian = differenced_hessian(lambda: loss(outputs(variable)), [variable])
    found = products("forward-over-reverse")
    assert relative(found[0], hessian @ V) < 1e-7
    return found


def assert_close(found, expected):
    for got, value in zip(found, expected, strict=True):
        assert relative(got, value) < 1e-13


@pytest.mark.sweep
@pytest.mark.parametrize("ad", ["forward-over-reverse", "reverse-over-reverse"])
@pytest.mark.parametrize("kinds", [list(ACTIVATIONS), SHORTCUTS], ids=["gradients", "all"])
def test_products_need_no_row_that_is_a_shortcut(kinds, ad, expected):
    with without_rows(*kinds):
        assert op_type("EluGrad") is UNKNOWN
        found = products(ad)
    assert op_type("EluGrad") is not UNKNOWN
    assert_close(found, expected)


@pytest.mark.sweep
def test_a_network_needs_no_row_that_is_a_shortcut():
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
        lin = hvp.linearize(model, data, keras.losses.MeanSquaredError(dtype="float64"), jit=False)
        v = np.random.default_rng(0).standard_normal((lin.size, 2))
        return [lin.hvp(v), lin.gnvp(v)]

    expected = found()
    with without_rows(*SHORTCUTS):
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

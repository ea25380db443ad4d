"""All identities: what they leave, where they reach, and the facts that they rest on."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.identities import hessian
from support.operations import call, drawn

import hvp
from hvp.autodiff import identities, tracing
from hvp.autodiff.op_types import OP_TYPES


@pytest.mark.parametrize(
    "function",
    [
        lambda w: tf.sqrt(w) * w,
        lambda w: tf.abs(w),
        lambda w: tf.abs(w) * tf.sqrt(1 + w),
        lambda w: tf.exp(-tf.abs(w)),
        lambda w: tf.maximum(w, 0.0) + tf.abs(w),
        lambda w: tf.where(w > 0, w, tf.sin(w)),
        lambda w: tf.where(w > 0, tf.reduce_sum(tf.math.log(1 + w**2)), w),
        lambda w: (w * tf.constant([1.0, 2.0, 3.0], tf.float64) + 1)[1:],
        lambda w: (w * tf.math.rsqrt(1 + tf.reduce_sum(w * w, keepdims=True)))[1:],
        lambda w: tf.math.multiply_no_nan(w, tf.constant([0.0, 1.0, 2.0], tf.float64)),
    ],
)
def test_a_program_without_a_pattern_is_left(function):
    program = tracing.trace(function, tf.TensorSpec([3], tf.float64))
    assert identities.apply_identities(program) == (program, {})


def test_identities_hold_in_loops_and_in_penalties():
    def loop(w):
        return tf.while_loop(
            lambda i, y: i < 3, lambda i, y: (i + 1, y + tf.norm(w) ** 2), [0, tf.norm(w) ** 2]
        )[1]

    np.testing.assert_allclose(hessian(loop, np.zeros(2)), 8 * np.eye(2))
    x, y = np.ones((4, 2)), np.zeros((4, 1))
    model = keras_model()
    lin = hvp.linearize(model, (x, y), "mse")
    expected = 2 * np.ones((2, 2)) + 2 * np.eye(2)
    np.testing.assert_allclose(lin.hvp(np.eye(2)), expected, atol=1e-12)


def keras_model():
    def squared_norm(kernel):
        return tf.norm(kernel) ** 2

    dense = keras.layers.Dense(
        1,
        use_bias=False,
        kernel_initializer="zeros",
        kernel_regularizer=squared_norm,
        dtype="float64",
    )
    return keras.Sequential([keras.Input((2,), dtype="float64"), dense])


ENTRYWISE = [kind for kind, row in OP_TYPES.items() if row.is_entrywise]


def inputs_of(kind):
    """The names of an operation's inputs; the rest are attributes with defaults."""
    attributes = ("name", "DstT", "Truncate", "alpha", "T")
    parameters = inspect.signature(getattr(tf.raw_ops, kind)).parameters
    return [name for name in parameters if name not in attributes]


@pytest.mark.parametrize("kind", ENTRYWISE)
def test_an_entrywise_operation_uses_the_same_entries_alone(kind):
    row = OP_TYPES[kind]
    names = inputs_of(kind)
    options = {"DstT": tf.float64} if kind == "Cast" else {}
    at = 0.5 if row.finite_at is None else row.finite_at
    values = [at + 0.1 * drawn(3, seed=i) ** 2 for i in range(len(names))]
    if kind == "SelectV2":
        values[0] = np.array([True, False, True])

    def apply(values):
        if kind == "AddN":
            return tf.raw_ops.AddN(inputs=list(values))
        return call(kind, *names, **options)(*map(tf.constant, values))

    whole = apply(values).numpy()
    each = [apply([v[i : i + 1] for v in values]).numpy()[0] for i in range(3)]
    np.testing.assert_allclose(whole, each, rtol=1e-15)


@pytest.mark.parametrize("kind", [k for k in ENTRYWISE if OP_TYPES[k].finite_at is not None])
def test_an_entrywise_operation_is_finite_where_its_row_says(kind):
    names = inputs_of(kind)
    point = tf.constant(OP_TYPES[kind].finite_at, tf.float64)
    with tf.GradientTape() as outer:
        outer.watch(point)
        with tf.GradientTape() as inner:
            inner.watch(point)
            # TensorFlow cannot differentiate the parameter of the gamma integrals twice.
            first = tf.stop_gradient(point) if kind.startswith("Igamma") else point
            given = [first] if len(names) == 1 else [first, point]
            value = call(kind, *names)(*given)
        slope = inner.gradient(value, point)
    found = [value, slope, outer.gradient(slope, point)]
    assert all(np.isfinite(t.numpy()) for t in found if t is not None)

"""Numbers placed by index: values against NumPy, derivatives by differences of complex steps."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.derivatives import assert_twice_differentiable
from support.programs import drawn, spec

import hvp
from hvp.autodiff.tracing import trace


def test_one_hot_rows_of_parameters():
    ids = np.array([0, 2, 5, 2])  # 5 is outside
    hot = np.eye(4)[[0, 2, 3, 2]] * [1, 1, 1, 0]
    assert_twice_differentiable(
        lambda w: tf.one_hot(ids, 4, on_value=w[0], off_value=w[1] * w[0], axis=0),
        lambda w: (hot * w[0] + (1 - hot) * w[1] * w[0]).T,
        drawn(2),
    )


def test_one_hot_rows_of_constants_are_left_alone():
    program = trace(lambda w: tf.one_hot([0, 1], 2, dtype=tf.float64) * w, spec(2, 2))
    graph = tf.function(program.replay).get_concrete_function(spec(2, 2)).graph
    assert "SelectV2" not in [op.type for op in graph.get_operations()]


@pytest.mark.parametrize("maxlength", [None, 4])
def test_counts_with_weights(maxlength):
    ids = np.array([0, 1, 1, 2, 5])

    def counted(w):
        sums = np.zeros(6, w.dtype)
        np.add.at(sums, ids, w**2)
        return sums[:maxlength]

    assert_twice_differentiable(
        lambda w: tf.math.bincount(ids, weights=w**2, maxlength=maxlength), counted, drawn(5)
    )


def test_counts_with_weights_by_row():
    ids = np.array([[0, 1, 1], [2, 0, 3]])

    def counted(w):
        sums = np.zeros((2, 3), w.dtype)
        for i, j in itertools.product(range(2), range(3)):
            if ids[i, j] < 3:
                sums[i, ids[i, j]] += w[i, j] ** 2
        return sums

    assert_twice_differentiable(
        lambda w: tf.math.bincount(ids, weights=w**2, maxlength=3, minlength=3, axis=-1),
        counted,
        drawn(2, 3),
    )


@pytest.mark.parametrize("start", [-1, 0, 1, 3, 9])
def test_a_block_is_replaced_and_kept_inside(start):
    def replaced(w):
        at = min(max(start, 0), 3)
        found = np.sin(w)
        found[at : at + 2, :2] = w[:2, 1:] ** 2
        return found

    assert_twice_differentiable(
        lambda w: keras.ops.slice_update(tf.sin(w), [start, 0], w[:2, 1:] ** 2),
        replaced,
        drawn(5, 3),
    )


def test_what_fit_cannot_differentiate_needs_no_finding():
    def loss(w):
        updated = keras.ops.slice_update(w, [1], w[:1] ** 2)
        return tf.reduce_sum(updated**2) + tf.reduce_sum(tf.where(w > 0, w**2, w**3))

    lin = hvp.linearize_function(loss, np.array([1.0, 2.0]))
    np.testing.assert_allclose(lin.hvp(np.eye(2)), np.diag([12 + 2 + 2, 2.0]))

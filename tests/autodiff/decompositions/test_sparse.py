"""Sparse tensors: values against NumPy, derivatives by differences of complex steps."""

import numpy as np
import pytest
import tensorflow as tf
from support.derivatives import assert_twice_differentiable
from support.programs import drawn

INDICES = np.array([[0, 1], [1, 0], [1, 2]])

OTHERS = np.array([[0, 0], [1, 0], [2, 2]])


def dense(indices, values):
    found = np.zeros((3, 3), values.dtype)
    found[tuple(indices.T)] = values
    return found


def sparse(indices, values):
    return tf.sparse.SparseTensor(indices, values, [3, 3])


@pytest.mark.parametrize("threshold", [0, 0.5])
def test_a_sum_of_sparse_tensors(threshold):
    w = np.array([0.4, -0.6, 0.7])

    def added(w):
        found = dense(INDICES, w) + dense(OTHERS, w**2)
        if threshold > 0.24:
            found[1, 0] = 0  # the threshold is of entries that both have
        return found

    assert_twice_differentiable(
        lambda w: tf.sparse.to_dense(
            tf.sparse.add(sparse(INDICES, w), sparse(OTHERS, w**2), threshold)
        ),
        added,
        w,
    )


def test_a_sum_of_sparse_tensors_without_entries():
    def function(w):
        nothing = tf.reshape(w, [-1])[:0]
        none = tf.zeros([0, 2], tf.int64)
        return tf.sparse.to_dense(tf.sparse.add(sparse(none, nothing), sparse(none, nothing))) + w

    assert_twice_differentiable(function, lambda w: w, drawn(3, 3))


def test_the_softmax_of_a_sparse_tensor():
    w = np.array([0.5, 300.0, 300.7])

    def softmax(w):
        powers = np.exp(w[1:] - 300.0)
        return dense(INDICES, np.array([1, *powers / powers.sum()]))

    assert_twice_differentiable(
        lambda w: tf.sparse.to_dense(tf.sparse.softmax(sparse(INDICES, w))), softmax, w
    )

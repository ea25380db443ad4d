"""Sums and softmax of sparse tensors, by sums of segments: TensorFlow's have no second derivative.

A sparse tensor is its indices (n, rank), its values (n,) and its shape.
"""

from __future__ import annotations

import tensorflow as tf


def add(
    op: tf.Operation,
    a_indices: tf.Tensor,
    a: tf.Tensor,
    a_shape: tf.Tensor,
    b_indices: tf.Tensor,
    b: tf.Tensor,
    b_shape: tf.Tensor,
    threshold: tf.Tensor,
) -> list[tf.Tensor]:
    """The sum, without the entries that are not above the threshold."""
    indices, _, shape = tf.raw_ops.SparseAdd(
        a_indices=a_indices,
        a_values=tf.stop_gradient(a),
        a_shape=a_shape,
        b_indices=b_indices,
        b_values=tf.stop_gradient(b),
        b_shape=b_shape,
        thresh=threshold,
    )
    kept = _numbers(indices, shape)
    added = _numbers(tf.concat([a_indices, b_indices], 0), shape)
    at = tf.searchsorted(kept, added)
    is_kept = tf.equal(tf.gather(tf.concat([kept, [-1]], 0), at), added)
    at = tf.where(is_kept, at, -1)
    values = tf.math.unsorted_segment_sum(tf.concat([a, b], 0), at, tf.size(kept))
    return [indices, values, shape]


def softmax(op: tf.Operation, indices: tf.Tensor, values: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """The softmax of the entries of each row."""
    rows, ids = tf.unique(_numbers(indices[:, :-1], shape[:-1]))
    count = tf.size(rows)
    largest = tf.math.unsorted_segment_max(tf.stop_gradient(values), ids, count)
    powers = tf.exp(values - tf.gather(largest, ids))
    return powers / tf.gather(tf.math.unsorted_segment_sum(powers, ids, count), ids)


def _numbers(indices: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """(n,) the positions of entries in the dense tensor, row-major."""
    return tf.reduce_sum(indices * tf.math.cumprod(shape, exclusive=True, reverse=True), -1)

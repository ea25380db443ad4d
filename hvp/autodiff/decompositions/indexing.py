"""Operations that place numbers by index, and are linear in the numbers: TensorFlow has no gradient
of them, or their kernel is XLA's.
"""

from __future__ import annotations

import tensorflow as tf


def one_hot(
    op: tf.Operation, ids: tf.Tensor, depth: tf.Tensor, on: tf.Tensor, off: tf.Tensor
) -> tf.Tensor | None:
    """Rows that hold one number `on` each, and `off` elsewhere, where these are not constants."""
    if tf.get_static_value(on) is not None and tf.get_static_value(off) is not None:
        return None
    is_on = tf.one_hot(ids, depth, on_value=True, off_value=False, axis=op.get_attr("axis"))
    return tf.where(is_on, on, off)


def bincount(
    op: tf.Operation, ids: tf.Tensor, size: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor | None:
    """The sum of the weights of each number below `size`, of all (n,) or of each row (m, n)."""
    is_count = weights.shape.num_elements() in (None, 0)
    if is_count or op.get_attr("binary_output") or not weights.dtype.is_floating:
        return None
    is_counted = ids < size
    if ids.shape.rank == 1:
        return tf.math.unsorted_segment_sum(weights, tf.where(is_counted, ids, -1), size)
    rows = tf.cast(tf.shape(ids)[0], ids.dtype)
    cells = ids + size * tf.range(rows)[:, None]
    sums = tf.math.unsorted_segment_sum(weights, tf.where(is_counted, cells, -1), rows * size)
    return tf.reshape(sums, tf.stack([rows, size]))


def update_slice(op: tf.Operation, x: tf.Tensor, update: tf.Tensor, starts: tf.Tensor) -> tf.Tensor:
    """x with a block replaced, which is moved inside of x where it would reach beyond it."""
    free = tf.shape(x) - tf.shape(update)
    before = tf.clip_by_value(tf.cast(starts, tf.int32), 0, free)
    paddings = tf.stack([before, free - before], 1)
    placed = tf.pad(update, paddings)
    is_inside = tf.pad(tf.ones_like(update, tf.bool), paddings)
    placed.set_shape(x.shape)
    is_inside.set_shape(x.shape)
    return tf.where(is_inside, placed, x)

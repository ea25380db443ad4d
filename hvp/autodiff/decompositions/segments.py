"""Sums, means, extremes and products of segments.

TensorFlow's gradients of `SegmentMean`, `SegmentMax` and `SegmentMin` divide by the number of
entries of a segment, 0/0 for an empty one: the gradient never reads that, a second derivative does.
Those of products divide by the factors, and those of the sparse operations have no derivative.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from hvp.autodiff.decompositions.products import is_number

# The sum over segments of a tensor (n, …).
Sum = Callable[[tf.Tensor], tf.Tensor]


def mean(op: tf.Operation, x: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """The sum of each segment over how many entries it has; zero for an empty one."""
    return _mean(lambda t: tf.math.segment_sum(t, ids), x, ids)


def _mean(total: Sum, x: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    counts = total(tf.ones_like(ids, x.dtype))
    return total(x) / _beside(tf.maximum(counts, 1), x)


def _beside(numbers: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """A number a segment, shaped to multiply segments of x."""
    return tf.reshape(numbers, [-1, *[1] * (x.shape.rank - 1)])


def sparse(
    op: tf.Operation, x: tf.Tensor, rows: tf.Tensor, ids: tf.Tensor, *num: tf.Tensor
) -> tf.Tensor:
    """Sums, means and sums over √n of segments of some rows of x."""
    picked = tf.gather(x, rows)

    def total(t: tf.Tensor) -> tf.Tensor:
        if num:
            return tf.math.unsorted_segment_sum(t, ids, num[0])
        return tf.math.segment_sum(t, ids)

    if "Mean" in op.type:
        return _mean(total, picked, ids)
    if "SqrtN" in op.type:
        counts = tf.maximum(total(tf.ones_like(ids, x.dtype)), 1)
        return total(picked) / _beside(tf.sqrt(counts), picked)
    return total(picked)


def extreme(op: tf.Operation, x: tf.Tensor, ids: tf.Tensor, *num: tf.Tensor) -> tf.Tensor | None:
    """The largest or the smallest entries: a mean of the winners, linear in x."""
    if not is_number(x):
        return None
    find = getattr(tf.raw_ops, op.type)
    held = tf.stop_gradient(x)
    if num:
        best = find(data=held, segment_ids=ids, num_segments=num[0])
        inside = ids >= 0  # entries of negative segments are dropped

        def total(t: tf.Tensor) -> tf.Tensor:
            return tf.math.unsorted_segment_sum(t, ids, num[0])
    else:
        best, inside = find(data=held, segment_ids=ids), tf.ones_like(ids, tf.bool)

        def total(t: tf.Tensor) -> tf.Tensor:
            return tf.math.segment_sum(t, ids)

    ids = tf.maximum(ids, 0)
    shape = tf.concat([tf.shape(ids), tf.ones([tf.rank(x) - tf.rank(ids)], tf.int32)], 0)
    wins = tf.equal(held, tf.gather(best, ids)) & tf.reshape(inside, shape)
    counts = total(tf.cast(wins, x.dtype))
    weights = tf.cast(wins, x.dtype) / tf.gather(tf.maximum(counts, 1), ids)
    # What does not win counts nothing, even where it is infinite.
    found = total(tf.math.multiply_no_nan(x, tf.stop_gradient(weights)))
    return tf.where(tf.stop_gradient(counts) > 0, found, best)


def product(op: tf.Operation, x: tf.Tensor, ids: tf.Tensor, *num: tf.Tensor) -> tf.Tensor | None:
    """The products of segments, by prefix products within each of them."""
    if not is_number(x) or not x.shape.is_fully_defined() or not ids.shape.is_fully_defined():
        return None
    count = ids.shape.num_elements()
    x, ids = tf.reshape(x, [count, *x.shape[ids.shape.rank :]]), tf.reshape(ids, [-1])
    if num:
        order = tf.argsort(ids, stable=True)
        x, ids = tf.gather(x, order), tf.gather(ids, order)
    step = 1
    while step < count:
        same = _beside(tf.equal(ids[step:], ids[:-step]), x)
        before = tf.where(same, x[:-step], tf.ones_like(x[:-step]))
        x = tf.concat([x[:step], x[step:] * before], 0)
        step *= 2
    rows = tf.range(count)
    if num:
        last = tf.math.unsorted_segment_max(rows, ids, num[0])
        sizes = tf.math.unsorted_segment_sum(tf.ones_like(ids), ids, num[0])
    else:
        last = tf.math.segment_max(rows, ids)
        sizes = tf.math.segment_sum(tf.ones_like(ids), ids)
    found = tf.gather(x, tf.maximum(last, 0))
    return tf.where(_beside(sizes, x) > 0, found, tf.ones_like(found))

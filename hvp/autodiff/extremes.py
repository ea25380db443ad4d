"""Operations that give the largest or the smallest of several entries, and how many reach it.

Where several entries are equal, an extreme has a kink: on each side another entry is the largest.
TensorFlow takes the derivative of the first of them, or the mean of theirs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

Tensors = Sequence[tf.Tensor]


def _along_axes(op: tf.Operation, inputs: Tensors, result: tf.Tensor) -> tf.Tensor:
    x, axes = inputs
    find = tf.reduce_max if op.type == "Max" else tf.reduce_min
    reached = tf.equal(x, find(x, axes, keepdims=True))
    return tf.math.count_nonzero(reached, axes, keepdims=op.get_attr("keep_dims"), dtype=tf.int32)


def _in_windows(op: tf.Operation, inputs: Tensors, result: tf.Tensor) -> tf.Tensor:
    """Each place of the window is compared with the largest entry of all windows at once."""
    (x,) = inputs
    sizes, strides = op.get_attr("ksize"), op.get_attr("strides")
    padded = tf.pad(x, _paddings(op, x.shape, result.shape), constant_values=x.dtype.min)
    count = tf.zeros(result.shape, tf.int32)
    for place in itertools.product(*map(range, sizes)):
        ends = [p + (n - 1) * s + 1 for p, n, s in zip(place, result.shape, strides, strict=True)]
        entries = tf.strided_slice(padded, place, ends, strides)
        count += tf.cast(tf.equal(entries, result), tf.int32)
    return count


def _paddings(op: tf.Operation, shape: Sequence[int], pooled: Sequence[int]) -> list[list[int]]:
    """Before and after each axis, as far as windows reach."""
    padding, sizes, strides = (op.get_attr(name) for name in ("padding", "ksize", "strides"))
    if padding == b"EXPLICIT":
        return np.reshape(op.get_attr("explicit_paddings"), (-1, 2)).tolist()
    found = []
    for n, m, size, stride in zip(shape, pooled, sizes, strides, strict=True):
        missing = max((m - 1) * stride + size - n, 0) if padding == b"SAME" else 0
        found.append([missing // 2, missing - missing // 2])
    return found


def _in_segments(op: tf.Operation, inputs: Tensors, result: tf.Tensor) -> tf.Tensor:
    x, ids, *_ = inputs
    # Entries with a negative number are in no segment.
    inside = tf.reshape(ids >= 0, [*ids.shape, *[1] * (x.shape.rank - ids.shape.rank)])
    reached = inside & tf.equal(x, tf.gather(result, tf.maximum(ids, 0)))
    return tf.math.unsorted_segment_sum(tf.cast(reached, tf.int32), ids, tf.shape(result)[0])


_MEAN, _FIRST = "the mean of the derivatives of all of them", "the derivative of the first"
# How many entries reach the first result of an operation, by the entries of the result.
NUM_REACHING: dict[str, Callable[[tf.Operation, Tensors, tf.Tensor], tf.Tensor]] = {
    **dict.fromkeys(["Max", "Min"], _along_axes),
    **dict.fromkeys(["MaxPool", "MaxPool3D", "MaxPoolWithArgmax"], _in_windows),
    **dict.fromkeys(
        ["SegmentMax", "SegmentMin", "UnsortedSegmentMax", "UnsortedSegmentMin"], _in_segments
    ),
}
# What products take at a tie.
TAKEN = {
    **dict.fromkeys(NUM_REACHING, _MEAN),
    **dict.fromkeys(["MaxPool", "MaxPoolWithArgmax"], _FIRST),
    "MaxPool3D": "one of their derivatives, or the mean of them",
    **dict.fromkeys(["Maximum", "Minimum"], "the derivative of the first input"),
}

"""Prefix sums of exponentials, in logarithms.

TensorFlow differentiates `CumulativeLogsumexp` by logarithms of the positive and of the negative
part of the cotangents: where a cotangent is zero the second derivative is wrong. Here it is a
binary recursion by doubling of log(eᵃ + eᵇ), as prefix products are.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def cumulative_logsumexp(op: tf.Operation, x: tf.Tensor, axis: tf.Tensor) -> tf.Tensor | None:
    """log of the prefix sums of exp x along an axis."""
    along = tf.get_static_value(axis)
    if along is None or not x.shape.is_fully_defined():
        return None
    along = int(along) % x.shape.rank
    order = [along, *(i for i in range(x.shape.rank) if i != along)]
    terms = tf.transpose(x, order)
    if op.get_attr("reverse"):
        terms = tf.reverse(terms, [0])
    if op.get_attr("exclusive"):
        terms = _shifted(terms, 1)
    step = 1
    while step < terms.shape[0]:
        terms = _logaddexp(terms, _shifted(terms, step))
        step *= 2
    if op.get_attr("reverse"):
        terms = tf.reverse(terms, [0])
    return tf.transpose(terms, np.argsort(order))


def _shifted(x: tf.Tensor, step: int) -> tf.Tensor:
    """x moved by some rows, with the lowest number, which stands for log 0, where there was none.

    The exclusive prefix sums of TensorFlow begin with it too.
    """
    step = min(step, x.shape[0])
    lowest = tf.fill([step, *x.shape[1:]], tf.constant(x.dtype.min, x.dtype))
    return tf.concat([lowest, x[: x.shape[0] - step]], 0)


def _logaddexp(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    largest = tf.stop_gradient(tf.maximum(a, b))
    return largest + tf.math.log(tf.exp(a - largest) + tf.exp(b - largest))

"""Prefix sums of exponentials, in logarithms.

TensorFlow differentiates `CumulativeLogsumexp` by logarithms of the positive and of the negative
part of the cotangents: where a cotangent is zero the second derivative is wrong. Here it is a
binary recursion by doubling of log(eᵃ + eᵇ), as prefix products are.
"""

from __future__ import annotations

import tensorflow as tf

from hvp.autodiff.decompositions.prefixes import prefixes


def cumulative_logsumexp(op: tf.Operation, x: tf.Tensor, axis: tf.Tensor) -> tf.Tensor | None:
    """log of the prefix sums of exp x along an axis; the lowest number stands for log 0."""
    return prefixes(op, x, axis, _logaddexp, x.dtype.min)


def _logaddexp(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    largest = tf.stop_gradient(tf.maximum(a, b))
    return largest + tf.math.log(tf.exp(a - largest) + tf.exp(b - largest))

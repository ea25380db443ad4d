"""The absolute value of complex numbers, which has no derivative at zero.

TensorFlow takes its derivative at zero to be zero, as if it were a constant there. Here its second
derivative is infinite, as that of a norm: a product with it is refused.
"""

from __future__ import annotations

import tensorflow as tf


def complex_abs(op: tf.Operation, z: tf.Tensor) -> tf.Tensor:
    """|z|, with infinite curvature at zero."""
    size = tf.raw_ops.ComplexAbs(x=z, Tout=op.get_attr("Tout"))
    infinite = tf.where(size == 0, tf.constant(float("inf"), size.dtype), tf.zeros_like(size))
    for part in (tf.math.real(z), tf.math.imag(z)):
        change = tf.where(size == 0, part, tf.zeros_like(part))
        size += tf.math.multiply_no_nan(tf.math.multiply_no_nan(infinite, change), change)
    return size

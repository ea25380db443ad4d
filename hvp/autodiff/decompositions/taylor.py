"""A function by its Taylor polynomial of degree two around the point at which it is.

With s = stop_gradient(x), the polynomial f(s) + f'(s)(x - s) + f''(s)(x - s)²/2 has the value and
the first two derivatives of f at x. Products need no more. So f' and f'' may be formulas that could
not be differentiated themselves, as quotients whose limits at zero are given apart.
"""

from __future__ import annotations

import tensorflow as tf


def change(x: tf.Tensor) -> tf.Tensor:
    """x - s: zero, with the derivatives of x."""
    return x - tf.stop_gradient(x)


def taylor(x: tf.Tensor, value: tf.Tensor, slope: tf.Tensor, curvature: tf.Tensor) -> tf.Tensor:
    """A function of x entry by entry, from its value, f' and f'' at stop_gradient(x)."""
    step = change(x)
    return value + slope * step + curvature / 2 * step * step


def series(x: tf.Tensor, coefficients: list[float]) -> tf.Tensor:
    """Σ cₖ xᵏ by Horner's rule."""
    result = tf.zeros_like(x)
    for coefficient in reversed(coefficients):
        result = result * x + tf.constant(coefficient, x.dtype)
    return result


def near_zero(x: tf.Tensor, radius: float, inside: tf.Tensor, quotient: tf.Tensor) -> tf.Tensor:
    """A series where |x| is below its radius, and elsewhere the quotient that it stands for."""
    return tf.where(tf.abs(x) < tf.constant(radius, x.dtype), inside, quotient)

"""Bessel functions and Spence's function, whose derivatives are quotients 0/0 at one point.

TensorFlow gives a constant there, whose derivative is zero, and loses all digits near it. With C₀,
C₁ for I₀, I₁ (σ = 1) or J₀, J₁ (σ = -1), and q = C₁/x (Abramowitz and Stegun 1964, chapter 9):

    C₀' = σC₁,  C₀'' = σ(C₀ - q),  C₁' = C₀ - q,  C₁'' = σC₁ - (C₀ - 2q)/x.

Near zero q and (C₀ - 2q)/x are power series in σx²/4. The derivative of Spence's function is
log x / (1 - x), a power series in 1 - x near one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from hvp.autodiff.decompositions.taylor import near_zero, series, taylor

# Radii within which the series are used, and their numbers of terms: enough for float64.
BESSEL_RADIUS, BESSEL_TERMS = 1.0, 12
SPENCE_RADIUS, SPENCE_TERMS = 0.1, 18


def bessel(op: tf.Operation, x: tf.Tensor) -> tf.Tensor:
    """I₀, I₁, J₀ or J₁, and I₀ and I₁ times exp(-|x|), as the operation's type says."""
    kind, order = op.type[6], int(op.type[7])
    at = tf.stop_gradient(x)
    sign = 1.0 if kind == "I" else -1.0
    is_scaled = op.type.endswith("e")
    c0, c1 = (_raw(f"Bessel{kind}{n}{'e' if is_scaled else ''}")(at) for n in (0, 1))
    q, r = _quotients(at, c0, c1, sign, tf.exp(-tf.abs(at)) if is_scaled else tf.ones_like(at))
    value, slope, curvature = (
        (c0, sign * c1, sign * (c0 - q)) if order == 0 else (c1, c0 - q, sign * c1 - r)
    )
    if is_scaled:  # (e^-|x| f)' = e^-|x| (f' - s f), and once more, with s = sign x
        s = tf.sign(at)
        slope, curvature = slope - s * value, curvature - 2 * s * slope + s * s * value
    return taylor(x, value, slope, curvature)


def _raw(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda x: getattr(tf.raw_ops, name)(x=x)


def _quotients(
    x: tf.Tensor, c0: tf.Tensor, c1: tf.Tensor, sign: float, factor: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """C₁/x and (C₀ - 2C₁/x)/x, of functions that are scaled by a factor."""
    t = sign * x * x / 4
    squared = [1 / math.factorial(k) ** 2 for k in range(BESSEL_TERMS)]
    by_x = [c / (2 * (k + 1)) for k, c in enumerate(squared)]
    rest = [sign * k * squared[k] / (4 * (k + 1)) for k in range(1, BESSEL_TERMS)]
    safe = tf.where(tf.abs(x) < BESSEL_RADIUS, tf.ones_like(x), x)
    q = near_zero(x, BESSEL_RADIUS, factor * series(t, by_x), c1 / safe)
    r = near_zero(x, BESSEL_RADIUS, factor * x * series(t, rest), (c0 - 2 * q) / safe)
    return q, r


def spence(op: tf.Operation, x: tf.Tensor) -> tf.Tensor:
    """-∫ log t / (t - 1) dt from 1 to x."""
    at = tf.stop_gradient(x)
    u = 1 - at
    is_near = tf.abs(u) < SPENCE_RADIUS
    safe, t = tf.where(is_near, tf.ones_like(u), u), tf.where(is_near, 0.5 * tf.ones_like(at), at)
    slope = near_zero(
        u,
        SPENCE_RADIUS,
        series(u, [-1 / (k + 1) for k in range(SPENCE_TERMS)]),
        tf.math.log(t) / safe,
    )
    curvature = near_zero(
        u,
        SPENCE_RADIUS,
        series(u, [(k + 1) / (k + 2) for k in range(SPENCE_TERMS)]),
        (safe / t + tf.math.log(t)) / (safe * safe),
    )
    return taylor(x, tf.raw_ops.Spence(x=at), slope, curvature)

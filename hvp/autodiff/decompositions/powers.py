"""Powers and logarithms at zero, where TensorFlow's derivatives are 0·∞ or leave a term out.

`Pow` differentiates xⁿ as n·xⁿ⁻¹, and that as n(n - 1)·xⁿ⁻², which is 0·∞ at x = 0 for n = 1: small
whole powers are multiplications. `Xlogy`, `Xlog1py` and `Xdivy` take the derivative in x to be zero
where x is zero; it is log y, log(1 + y) and 1/y.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from hvp.autodiff.decompositions.taylor import change

MAX_EXPONENT = 64


def power(op: tf.Operation, x: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor | None:
    """Whole powers of one exponent as multiplications; several exponents by their derivatives."""
    known = tf.get_static_value(exponent)
    if not (x.dtype.is_floating or x.dtype.is_complex) or (
        known is not None and not np.size(known)
    ):
        return None
    if known is None or not np.any(known) or not (known == np.ravel(known)[0]).all():
        return None if x.dtype.is_complex else _taylor(x, exponent)
    first = np.ravel(known)[0]
    if np.iscomplexobj(first) and np.imag(first):
        return None
    whole = int(np.real(first)) if np.isfinite(first) else 0
    if whole != first or abs(whole) > MAX_EXPONENT:
        return None
    result = _multiplied(x, abs(whole))
    if np.ndim(known):  # a tensor of one number may broadcast
        result = result * tf.ones_like(exponent)
    return 1 / result if whole < 0 else result


def _taylor(x: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    """xⁿ by its Taylor polynomial: a factor n or n - 1 that is zero makes a derivative zero."""
    at, m = tf.stop_gradient(x), tf.stop_gradient(n)
    one, none = tf.ones_like(at * m), tf.zeros_like(at * m)
    is_inside = at > 0
    log = tf.where(is_inside, tf.math.log(tf.where(is_inside, at, tf.ones_like(at))), none)

    def term(factor: tf.Tensor, lower: float) -> tf.Tensor:
        return tf.where(factor == 0, none, factor * tf.pow(at * one, m - lower))

    value, dx, dn = tf.pow(at, m), change(x), change(n)
    in_n = value * log
    slope, curvature = term(m * one, 1.0), term(m * (m - 1) * one, 2.0) / 2
    # An infinite derivative must show, but in x alone: x may be data.
    is_finite = tf.math.is_finite(slope) & tf.math.is_finite(curvature)
    steep = tf.pow(tf.where(is_finite, one, x * one), m)
    slope, curvature = (tf.where(is_finite, t, none) for t in (slope, curvature))
    in_x = tf.where(is_finite, value + slope * dx + curvature * dx * dx, steep)
    # At x = 0 the mixed derivative of x¹ is infinite; elsewhere there it is zero, or none.
    mixed = term(one, 1.0) * (1 + m * log)
    mixed = tf.where((at == 0) & (m > 1), none, tf.where((at == 0) & (m == 1), -one / 0.0, mixed))
    both = tf.math.multiply_no_nan(tf.math.multiply_no_nan(mixed, dx * one), dn * one)
    return in_x + in_n * dn + in_n * log / 2 * dn * dn + both


def _multiplied(x: tf.Tensor, count: int) -> tf.Tensor:
    """xⁿ by squaring."""
    if count == 0:
        return tf.ones_like(x)
    half = _multiplied(x, count // 2) if count > 1 else None
    if half is None:
        return x
    return half * half * x if count % 2 else half * half


def xlogy(op: tf.Operation, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor | None:
    """x log y, and 0 where x is 0: there y counts nothing, unless its logarithm is finite."""
    if x.dtype.is_complex:
        return None
    return _times(x, tf.math.log, y, y > 0, 1.0)


def xlog1py(op: tf.Operation, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor | None:
    """x log(1 + y)."""
    if x.dtype.is_complex:
        return None
    return _times(x, tf.math.log1p, y, y > -1, 0.0)


def xdivy(op: tf.Operation, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor | None:
    """x/y."""
    if x.dtype.is_complex:
        return None
    return _times(x, lambda y: 1 / y, y, tf.not_equal(y, 0), 1.0)


def _times(
    x: tf.Tensor,
    function: Callable[[tf.Tensor], tf.Tensor],
    y: tf.Tensor,
    is_inside: tf.Tensor,
    instead: float,
) -> tf.Tensor:
    """x f(y); x f(instead) where x is zero and y is outside the domain of f."""
    inside = is_inside | tf.not_equal(x, 0)
    return x * function(tf.where(inside, y, tf.constant(instead, y.dtype)))

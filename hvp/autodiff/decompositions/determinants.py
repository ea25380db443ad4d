"""Determinants by their own derivatives, and factorisations of symmetric matrices.

TensorFlow differentiates det A as det A · A⁻ᵀ, which is 0·∞ where A is singular, and from 2.22 on
by the singular values, which have no right derivatives where two of them are equal. Small
determinants are written without a division, by Bird's recursion (2011): with μ(F) the part of F
above its diagonal, and on the diagonal minus the sums of what stands below it there,

    F₁ = A,  F_(j+1) = μ(F_j) A,  det A = (-1)ⁿ⁻¹ (F_n)₁₁.

Others, and log det A, are Taylor polynomials in M = A⁻¹ dA:

    log det (A + dA) = log det A + tr M - tr M²/2 + ….

Cholesky's factorisation reads the lower triangle alone, and TensorFlow spreads its gradient over
both triangles, as is right for a symmetric matrix that both come from.
"""

from __future__ import annotations

import tensorflow as tf

from hvp.autodiff.decompositions.taylor import change

# Beyond so many rows its rounding is too far from that of a factorisation.
MAX_ROWS = 6


def determinant(op: tf.Operation, a: tf.Tensor) -> tf.Tensor:
    """det A of each matrix (…, n, n)."""
    count = a.shape[-1]
    if count is None or not 1 <= count <= MAX_ROWS:
        value = tf.linalg.det(tf.stop_gradient(a))
        is_regular = tf.not_equal(value, 0)
        first, second = _traces(a, is_regular)
        return value * (1 + first + (first * first - second) / 2) + _slope(a, is_regular)
    f = a
    for _ in range(count - 1):
        diagonal = tf.linalg.diag_part(f)
        below = tf.cumsum(diagonal, axis=-1, exclusive=True, reverse=True)
        above = f - tf.linalg.band_part(f, -1, 0)
        f = tf.matmul(above - tf.linalg.diag(below), a)
    return f[..., 0, 0] * (-1) ** (count - 1)


def log_determinant(op: tf.Operation, a: tf.Tensor) -> list[tf.Tensor]:
    """det A/|det A| and log |det A| of each matrix (…, n, n)."""
    sign, value = tf.raw_ops.LogMatrixDeterminant(input=tf.stop_gradient(a))
    is_regular = tf.not_equal(sign, 0)
    first, second = _traces(a, is_regular)
    moved = first - second / 2
    if a.dtype.is_complex:
        sign *= tf.exp(tf.complex(tf.zeros_like(tf.math.imag(moved)), tf.math.imag(moved)))
        moved = tf.cast(tf.math.real(moved), moved.dtype)
    return [sign, value + moved + _slope(a, is_regular)]


def _traces(a: tf.Tensor, is_regular: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """tr M and tr M² for M = A⁻¹ dA, where dA is zero with the derivatives of A."""
    at, one = tf.stop_gradient(a), tf.eye(tf.shape(a)[-1], dtype=a.dtype)
    inverse = tf.linalg.inv(tf.where(is_regular[..., None, None], at, one))
    moved = inverse @ change(a)
    return tf.linalg.trace(moved), tf.linalg.trace(moved @ moved)


def _slope(a: tf.Tensor, is_regular: tf.Tensor) -> tf.Tensor:
    """Zero for each matrix, with infinite derivatives for a singular one."""
    moved = tf.reduce_sum(change(a), [-2, -1])
    one = tf.ones_like(moved)
    return tf.sqrt(tf.where(is_regular, one, moved)) - tf.where(is_regular, one, 0 * one)


def cholesky(op: tf.Operation, a: tf.Tensor) -> tf.Tensor:
    """The factor of the Hermitian matrix that has the lower triangle of a."""
    lower = tf.linalg.band_part(a, -1, 0)
    return tf.linalg.cholesky(lower + tf.linalg.adjoint(lower) - tf.linalg.band_part(a, 0, 0))

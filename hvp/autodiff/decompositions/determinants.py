"""Determinants as polynomials of their entries, and factorisations of symmetric matrices.

TensorFlow differentiates det A as det A · A⁻ᵀ, which is 0·∞ where A is singular. Small determinants
are written without a division, by Bird's recursion (2011): with μ(F) the part of F above its
diagonal, and on the diagonal minus the sums of what stands below it there,

    F₁ = A,  F_(j+1) = μ(F_j) A,  det A = (-1)ⁿ⁻¹ (F_n)₁₁.

Cholesky's factorisation reads the lower triangle alone, and TensorFlow spreads its gradient over
both triangles, as is right for a symmetric matrix that both come from.
"""

from __future__ import annotations

import tensorflow as tf

# Beyond so many rows its rounding is too far from that of a factorisation.
MAX_ROWS = 6


def determinant(op: tf.Operation, a: tf.Tensor) -> tf.Tensor | None:
    """det A of each matrix (…, n, n)."""
    count = a.shape[-1]
    if count is None or not 1 <= count <= MAX_ROWS:
        return None
    f = a
    for _ in range(count - 1):
        diagonal = tf.linalg.diag_part(f)
        below = tf.cumsum(diagonal, axis=-1, exclusive=True, reverse=True)
        above = f - tf.linalg.band_part(f, -1, 0)
        f = tf.matmul(above - tf.linalg.diag(below), a)
    return f[..., 0, 0] * (-1) ** (count - 1)


def cholesky(op: tf.Operation, a: tf.Tensor) -> tf.Tensor:
    """The factor of the Hermitian matrix that has the lower triangle of a."""
    lower = tf.linalg.band_part(a, -1, 0)
    return tf.linalg.cholesky(lower + tf.linalg.adjoint(lower) - tf.linalg.band_part(a, 0, 0))

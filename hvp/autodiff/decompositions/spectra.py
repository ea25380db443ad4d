"""Eigenvalues and singular values of matrices, scaled so that their largest entry is one.

TensorFlow differentiates by the reciprocals x/(x² + 10⁻²⁰) of differences of the values, which are
wrong for matrices of small norm. The decomposition of A/c, with a constant c near the norm of A, is
the same up to the factor c. Where values are equal the derivatives are wrong at any scale
(`hvp.autodiff.singular_points`).
"""

from __future__ import annotations

import tensorflow as tf


def eigh(op: tf.Operation, a: tf.Tensor) -> list[tf.Tensor]:
    """The eigenvalues of symmetric matrices, and their vectors."""
    scale = _scale(a)
    values, vectors = tf.raw_ops.SelfAdjointEigV2(
        input=a / tf.cast(scale, a.dtype), compute_v=op.get_attr("compute_v")
    )
    return [values * tf.cast(scale[..., 0], values.dtype), vectors]


def svd(op: tf.Operation, a: tf.Tensor) -> list[tf.Tensor]:
    """The singular values, and their vectors."""
    options = {name: op.get_attr(name) for name in ("compute_uv", "full_matrices")}
    scale = _scale(a)
    values, left, right = tf.raw_ops.Svd(input=a / tf.cast(scale, a.dtype), **options)
    return [values * tf.cast(scale[..., 0], values.dtype), left, right]


def _scale(a: tf.Tensor) -> tf.Tensor:
    """The largest entry of each matrix, (…, 1, 1); one for a matrix of zeros."""
    largest = tf.reduce_max(tf.abs(tf.stop_gradient(a)), [-2, -1], keepdims=True)
    return tf.where(largest > 0, largest, tf.ones_like(largest))

"""Products of many factors, written as multiplications of two.

TensorFlow divides by the factors (`div_no_nan`) where it differentiates `Cumprod` and the products
of segments, and its derivative of `Prod` is a `Cumprod`: the second derivatives are wrong where a
factor is zero. A product is a polynomial of its factors; multiplications of two have all its
derivatives. `Prod` is a binary tree, `Cumprod` and the products of segments are prefix products by
doubling (Hillis and Steele 1986): log₂ n multiplications of whole tensors.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvp.autodiff.decompositions.prefixes import prefixes


def is_number(x: tf.Tensor) -> bool:
    """Whether derivatives may flow through a tensor: shapes are computed by products too."""
    return x.dtype.is_floating or x.dtype.is_complex


def prod(op: tf.Operation, x: tf.Tensor, axes: tf.Tensor) -> tf.Tensor | None:
    """The product over some axes."""
    listed = tf.get_static_value(axes)
    if not is_number(x) or listed is None or not x.shape.is_fully_defined():
        return None
    reduced = sorted({int(axis) % x.shape.rank for axis in np.atleast_1d(listed)})
    kept = [axis for axis in range(x.shape.rank) if axis not in reduced]
    shape = [x.shape[axis] for axis in kept]
    factors = tf.reshape(tf.transpose(x, [*kept, *reduced]), [*shape, _count(x, reduced)])
    result = _tree(factors)
    if op.get_attr("keep_dims"):
        shape = [1 if axis in reduced else n for axis, n in enumerate(x.shape)]
    return tf.reshape(result, shape)


def _count(x: tf.Tensor, axes: list[int]) -> int:
    return int(np.prod([x.shape[axis] for axis in axes]))


def _tree(factors: tf.Tensor) -> tf.Tensor:
    """The product over the last axis, whose length is known."""
    while (count := factors.shape[-1]) > 1:
        half = count // 2
        pairs = factors[..., :half] * factors[..., half : 2 * half]
        factors = tf.concat([pairs, factors[..., 2 * half :]], -1) if count % 2 else pairs
    if factors.shape[-1] == 0:
        return tf.ones(factors.shape[:-1], factors.dtype)
    return factors[..., 0]


def cumprod(op: tf.Operation, x: tf.Tensor, axis: tf.Tensor) -> tf.Tensor | None:
    """The prefix products along an axis."""
    return prefixes(op, x, axis, tf.multiply, 1) if is_number(x) else None

"""Matrix products in the form that is fastest, also when they are differentiated.

- A batch of matrices times one matrix is one matrix product. TensorFlow's gradient would repeat the
  matrix for each of the batch and sum the results. Outer products are entrywise products.
- A product with the transpose of a large matrix is the transpose of a product with the matrix.
- Einsum of two operands is one batched matrix product between transpositions. The transposition of
  a known operand is computed once for all products.
- A bias is added, and its gradient summed, by operations without an attribute for the layout of
  channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# From so many entries on a matrix is not transposed.
LARGE_MATRIX_ENTRIES = 1 << 18


def matmul(op: tf.Operation, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor | None:
    """x yᵀ as (y xᵀ)ᵀ where y is large, since TensorFlow is slow to transpose it."""
    if op.get_attr("transpose_a") or not op.get_attr("transpose_b"):
        return None
    if not (x.shape.is_fully_defined() and y.shape.is_fully_defined()):
        return None
    rows, columns = x.shape[0], y.shape[0]
    if y.shape.num_elements() < max(LARGE_MATRIX_ENTRIES, x.shape.num_elements() + rows * columns):
        return None
    return tf.transpose(tf.matmul(y, tf.transpose(x)))


def batch_matmul(op: tf.Operation, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor | None:
    if not (x.shape.is_fully_defined() and y.shape.is_fully_defined()):
        return None
    adjoint_x, adjoint_y = op.get_attr("adj_x"), op.get_attr("adj_y")
    if (x.dtype.is_complex and (adjoint_x or adjoint_y)) or 0 in (*x.shape, *y.shape):
        return None
    rows, inner = (x.shape[-1], x.shape[-2]) if adjoint_x else x.shape[-2:]
    columns = y.shape[-2] if adjoint_y else y.shape[-1]
    if inner == 1:
        x = tf.reshape(x, [*x.shape[:-2], rows, 1])
        return x * tf.reshape(y, [*y.shape[:-2], 1, columns])
    if adjoint_x or len(x.shape) < max(3, len(y.shape)) or any(n > 1 for n in y.shape[:-2]):
        return None
    result = tf.matmul(
        tf.reshape(x, [-1, inner]), tf.reshape(y, y.shape[-2:]), transpose_b=adjoint_y
    )
    return tf.reshape(result, [*x.shape[:-1], columns])


def einsum(op: tf.Operation, *operands: tf.Tensor) -> tf.Tensor | None:
    """One batched matrix product between transpositions."""
    equation = op.get_attr("equation").decode()
    terms, _, result = equation.partition("->")
    if len(operands) != 2 or "." in equation or "->" not in equation:
        return None
    (x, y), (a, b) = operands, terms.split(",")
    if not (x.shape.is_fully_defined() and y.shape.is_fully_defined()):
        return None
    sizes = dict(zip(a + b, (*x.shape, *y.shape), strict=True))
    shared = [c for c in a if c in b and c in result]
    summed = [c for c in a if c in b and c not in result]
    left, right = ([c for c in t if c not in a or c not in b] for t in (a, b))
    has_diagonal = any(len(set(t)) < len(t) for t in (a, b, result))
    if has_diagonal or set(shared + left + right) != set(result):
        return None

    def size(labels: Sequence[str]) -> int:
        return int(np.prod([sizes[c] for c in labels]))

    def matrices(t: tf.Tensor, labels: str, rows: list[str], columns: list[str]) -> tf.Tensor:
        order = [labels.index(c) for c in shared + rows + columns]
        t = tf.transpose(t, order) if order != sorted(order) else t
        return tf.reshape(t, [*([size(shared)] if shared else []), size(rows), size(columns)])

    product = tf.matmul(matrices(x, a, left, summed), matrices(y, b, summed, right))
    axes = shared + left + right
    product = tf.reshape(product, [sizes[c] for c in axes])
    order = [axes.index(c) for c in result]
    return tf.transpose(product, order) if order != sorted(order) else product


def bias_add(op: tf.Operation, x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor | None:
    return x + bias if op.get_attr("data_format") == b"NHWC" else None


def bias_add_grad(op: tf.Operation, x: tf.Tensor) -> tf.Tensor | None:
    if op.get_attr("data_format") != b"NHWC" or x.shape.rank is None:
        return None
    return tf.reduce_sum(x, list(range(x.shape.rank - 1)))

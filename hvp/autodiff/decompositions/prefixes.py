"""Prefix sums, products and the like of an operation that combines two values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf


def prefixes(
    op: tf.Operation,
    x: tf.Tensor,
    axis: tf.Tensor,
    combine: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    neutral: float,
) -> tf.Tensor | None:
    """All prefixes along an axis by doubling, `exclusive` and `reverse` as the operation says.

    `neutral` changes nothing that it is combined with; exclusive prefixes begin with it.
    """
    along = tf.get_static_value(axis)
    if along is None or not x.shape.is_fully_defined():
        return None
    along = int(along) % x.shape.rank
    order = [along, *(i for i in range(x.shape.rank) if i != along)]
    terms = tf.transpose(x, order)
    if op.get_attr("reverse"):
        terms = tf.reverse(terms, [0])
    if op.get_attr("exclusive"):
        terms = _shifted(terms, 1, neutral)
    step = 1
    while step < terms.shape[0]:
        terms = combine(terms, _shifted(terms, step, neutral))
        step *= 2
    if op.get_attr("reverse"):
        terms = tf.reverse(terms, [0])
    return tf.transpose(terms, np.argsort(order))


def _shifted(x: tf.Tensor, step: int, neutral: float) -> tf.Tensor:
    """x moved by some rows, with the neutral number where there was none."""
    step = min(step, x.shape[0])
    first = tf.fill([step, *x.shape[1:]], tf.constant(neutral, x.dtype))
    return tf.concat([first, x[: x.shape[0] - step]], 0)

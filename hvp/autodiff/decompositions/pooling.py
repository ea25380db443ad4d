"""Pooling over fractional regions, whose gradients in TensorFlow have no derivative.

Row i of the result is of the image rows from r_i to r_{i+1}, where the operation draws the numbers
r_0 < r_1 < …; the columns likewise.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvp.errors import InputError


def fractional(op: tf.Operation, x: tf.Tensor) -> list[tf.Tensor] | None:
    """The maxima or the means over the regions, along the rows and then along the columns."""
    if not op.get_attr("deterministic"):
        raise InputError(
            "a loss that is a function of its parameters and data alone",
            f"{op.type}, which draws other regions each time",
            "give it a seed",
        )
    if None in x.shape[1:3]:
        return None
    names = ("pooling_ratio", "pseudo_random", "overlapping", "deterministic", "seed", "seed2")
    options = {name: op.get_attr(name) for name in names}
    with tf.init_scope():  # the regions depend on the shape alone
        _, *drawn = getattr(tf.raw_ops, op.type)(value=tf.zeros([1, *x.shape[1:3], 1]), **options)
    sequences = [edges.numpy() for edges in drawn]
    pooled = x
    for axis, edges in enumerate(sequences, 1):
        last = np.minimum(edges[1:] - (not options["overlapping"]), x.shape[axis] - 1)
        positions = edges[:-1, None] + np.arange(np.max(last - edges[:-1]) + 1)
        inside = positions <= last[:, None]
        regions = tf.gather(pooled, np.where(inside, positions, last[:, None]), axis=axis)
        if op.type == "FractionalMaxPool":
            pooled = tf.reduce_max(regions, axis + 1)
            continue
        shares = np.reshape(
            inside / inside.sum(1, keepdims=True), [*inside.shape, *[1] * (3 - axis)]
        )
        pooled = tf.reduce_sum(regions * tf.constant(shares, x.dtype), axis + 1)
    return [pooled, *map(tf.constant, sequences)]

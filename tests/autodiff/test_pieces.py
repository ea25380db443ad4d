"""Entries at which a loss takes pieces of its operations: which of them count."""

import numpy as np
import pytest
import tensorflow as tf

from hvp.autodiff import isolated_points
from hvp.autodiff.pieces import Pieces
from hvp.autodiff.tracing import trace

SIZE = 200_000


def num_tied(loss, w):
    program = trace(loss, [tf.TensorSpec(w.shape, w.dtype)])
    families = isolated_points.families(program, program.inputs)
    pieces = Pieces(program, [family.choices for family in families], [0], 1e-4)
    return int(tf.reduce_sum(pieces.counts([w])))


def rows(dtype, ties):
    """Pairs of numbers, of which so many are equal."""
    w = np.random.default_rng(0).permutation(2 * SIZE).reshape(SIZE, 2).astype(dtype)
    w[:ties, 1] = w[:ties, 0]
    return tf.constant(w / SIZE)


def largest_of_rows(inputs):
    (w,) = inputs
    return tf.reduce_sum(tf.reduce_max(w, 1) ** 2)


@pytest.mark.parametrize(
    ("dtype", "ties", "counted"),
    [("float32", 1, 0), ("float32", 50, 50), ("float64", 1, 1)],
    ids=["one by chance", "more than by chance", "one in float64"],
)
def test_ties_that_rounding_makes_by_chance_do_not_count(dtype, ties, counted):
    assert num_tied(largest_of_rows, rows(dtype, ties)) == counted


def test_few_entries_are_not_equal_by_chance():
    assert num_tied(largest_of_rows, rows("float32", 1)[:1000]) == 1

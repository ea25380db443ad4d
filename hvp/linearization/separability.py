"""Whether the loss of a data set is the sum of the losses of its batches."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from hvp.autodiff import precision, tensorflow_private
from hvp.autodiff.program import leaves
from hvp.errors import InputError, MixedExamplesError
from hvp.linearization.totals import Totals
from hvp.objective.objective import Objective


def require_sum(objective: Objective, totals: Totals, count: int) -> None:
    """Raise InputError where the loss of all data is not a sum over the batches in `totals`.

    `count` is the number of all batches, of which some may be elsewhere.
    """
    if totals.num_batches == 0:
        raise InputError("at least one batch", "an empty data set", "check where it comes from")
    if count > 1 and not totals.separable:
        layers = ", ".join(objective.mixing)
        raise MixedExamplesError(
            "a loss that is a sum over examples, or a single batch",
            f"{count} batches of a loss that mixes examples or drops some at random"
            f"{f' (in {layers})' if layers else ''}, which is another function of each batch",
            "pass batch_size=len(x), or training=False",
        )
    if count > 1 and totals.whole is not None:
        _require_halves(objective, totals.whole)


def _require_halves(objective: Objective, batch: Any) -> None:
    """Raise InputError where a term of a batch is not the sum over its halves."""
    count = len(leaves(batch)[0])
    if count < 2:
        return
    # The objective computes in its own precision, whatever that of the products.
    epsilon = max(precision.EPSILON[value.dtype] for value in objective.values)
    middle = count // 2
    parts = slice(None), slice(middle), slice(middle, None)
    terms = (_terms(objective, batch, part) for part in parts)
    for whole, first, second in zip(*terms, strict=True):
        if abs(whole - first - second) <= epsilon**0.5 * (abs(first) + abs(second)):
            continue
        raise MixedExamplesError(
            "a loss that is a sum or a mean over examples, as declared, or a single batch",
            f"{whole:g} for a batch whose halves give {first:g} and {second:g}",
            "pass batch_size=len(x), or another reduction",
        )


def _terms(objective: Objective, batch: Any, part: slice) -> list[float]:
    """The terms of the loss, summed over some examples of a batch."""
    cut = tf.nest.map_structure(lambda t: None if t is None else t[part], batch)
    specs = [tf.TensorSpec(value.shape, value.dtype) for value in objective.values]
    evaluate = tensorflow_private.compiled(
        lambda *values: objective.evaluate(values, cut).totals, specs
    )
    return [float(term) for term in evaluate(objective.values)]

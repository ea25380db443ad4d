"""Whether the loss of a data set is the sum of the losses of its batches."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from hvp.autodiff import precision
from hvp.autodiff.program import leaves
from hvp.autodiff.tensorflow_errors import REFUSALS, raise_own, reason
from hvp.errors import InputError, MixedExamplesError
from hvp.linearization.totals import Totals
from hvp.objective.objective import Objective


def require_sum(objective: Objective, totals: Totals, count: int) -> None:
    """Raise InputError where the loss of all data is not a sum over the batches in `totals`.

    `count` is the number of all batches, of which some may be elsewhere.
    """
    if totals.num_batches == 0:
        raise InputError("at least one batch", "an empty data set", "check where it comes from")
    objective.check_count(count)
    if count > 1 and not totals.separable:
        layers = ", ".join(objective.mixing)
        raise MixedExamplesError(
            "a loss that is a sum over examples, or a single batch",
            f"{count} batches of a loss that mixes examples or drops some at random"
            f"{f' (in {layers})' if layers else ''}, which is another function of each batch",
            "pass batch_size=len(x), or training=False",
        )
    if count > 1 and totals.sample is not None:
        _require_halves(objective, totals.sample)


def _require_halves(objective: Objective, batch: Any) -> None:
    """Raise InputError where a term of a batch is not the sum over its halves."""
    middle = len(leaves(batch)[0]) // 2
    if middle == 0:
        return
    # An even number, so that both halves are of one shape, and traced once.
    parts = slice(2 * middle), slice(middle), slice(middle, 2 * middle)
    evaluate = tf.function(
        lambda values, cut: objective.evaluate(values, cut).totals, autograph=False
    )
    terms, epsilons = zip(
        *[_terms(objective, evaluate, batch, part) for part in parts], strict=True
    )
    # The loss may compute in another precision than its parameters and its products.
    epsilon = max(epsilons)
    for whole, first, second in zip(*terms, strict=True):
        if abs(whole - first - second) <= epsilon**0.5 * (abs(first) + abs(second)):
            continue
        raise MixedExamplesError(
            "a loss that is a sum or a mean over examples, as declared, or a single batch",
            f"{whole:g} for a batch whose halves give {first:g} and {second:g}",
            "look for a layer or a loss that computes across the batch axis, or pass "
            "batch_size=len(x), or another reduction",
        )


def _terms(
    objective: Objective, evaluate: Any, batch: Any, part: slice
) -> tuple[list[float], float]:
    """The terms of the loss, summed over some examples of a batch, and their lowest epsilon."""
    cut = tf.nest.map_structure(lambda t: None if t is None else t[part], batch)
    try:
        function = evaluate.get_concrete_function(list(objective.values), cut)
        terms = [float(term) for term in evaluate(list(objective.values), cut)]
        return terms, _lowest_epsilon(function)
    except REFUSALS as error:
        raise_own(error)
        raise MixedExamplesError(
            "a loss that takes any number of examples, or a single batch",
            f"{reason(error)!r} for {len(leaves(cut)[0])} of {len(leaves(batch)[0])} examples",
            "pass batch_size=len(x)",
        ) from error


def _lowest_epsilon(function: Any) -> float:
    """The epsilon of the lowest precision that a function computes in."""
    results = (t for op in function.graph.get_operations() for t in op.outputs)
    return max(precision.EPSILON.get(t.dtype, 0.0) for t in results)

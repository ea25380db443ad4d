"""Batch sharpness: the curvature of the loss of each batch along the gradient of that batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from hvp.errors import InputError
from hvp.linearization.batch_sum import BatchSum, Term
from hvp.linearization.evaluation import Evaluator
from hvp.linearization.products import H
from hvp.linearization.refusals import refusals_as_input_errors
from hvp.linearization.snapshot import Snapshot


@refusals_as_input_errors
def batch_sharpness(snapshot: Snapshot, evaluator: Evaluator, sums: BatchSum) -> np.ndarray:
    """gᵀHg / ‖g‖² for each batch: see `Linearization.batch_sharpness`.

    The loss of a batch is its share in the loss of all data, times `_scales`, plus the penalty.
    """
    penalty: Term | None = None
    if snapshot.traced_loss.penalty is not None:
        penalty = deque(sums.terms(H), maxlen=1)[0]
        penalty_gradient = deque(evaluator.shares(), maxlen=1)[0]
    found = []
    # The penalty, which comes last, has no scale: zip ends before it.
    pieces = zip(_scales(snapshot), evaluator.shares(), sums.terms(H), strict=False)
    for scale, share, term in pieces:
        g = scale * share
        if penalty is None:
            Hg = scale * _product(term, g)
        else:
            g += penalty_gradient
            Hg = scale * _product(term, g) + _product(penalty, g)
        found.append(_quotient(g, Hg))
    return np.array(found)


def _product(term: Term, v: np.ndarray) -> np.ndarray:
    linear_map, saved = term
    return linear_map.multiply(tf.constant(v), saved).numpy()


def _quotient(g: np.ndarray, Hg: np.ndarray) -> float:
    """gᵀHg / ‖g‖², in float64; NaN where g is zero."""
    form, square = np.vdot(g, Hg.astype(np.float64)), np.vdot(g, g.astype(np.float64))
    return float(form / square) if square > 0 else np.nan


def _scales(snapshot: Snapshot) -> Iterator[float]:
    """The loss of each batch alone over its share in the loss of all data.

    A term that is a mean is divided by the divisor of the batch instead of by that of all batches.
    """
    for number, (programs, batch) in enumerate(snapshot.pieces(penalty=False), 1):
        divisors = programs.evaluate_at(snapshot.values, batch).divisors
        ratios = [
            1.0 if own is None else _ratio(total, float(own), number)
            for total, own in zip(snapshot.traced_loss.divisors, divisors, strict=True)
        ]
        if not np.allclose(ratios, ratios[0], rtol=1e-6):
            raise InputError(
                "a loss whose terms give a batch the same weight",
                f"{', '.join(f'{1 / ratio:.3g}' for ratio in ratios)} for batch {number}",
                "give all outputs the same sample weights and masks",
            )
        yield ratios[0]


def _ratio(total: float, own: float, number: int) -> float:
    if own <= 0:
        raise InputError(
            "weights and masks with a positive sum in every batch",
            f"{own:g} in batch {number}",
            "leave out the examples that do not count",
        )
    return total / own

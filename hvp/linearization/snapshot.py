"""A loss at one point, which stays as it is when the model is trained on."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from hvp.linearization.refusals import refusals_as_input_errors
from hvp.linearization.share import WHOLE, Share
from hvp.linearization.totals import Totals
from hvp.linearization.traced_loss import LossValue, Piece, TracedLoss
from hvp.objective.batches import as_array, content
from hvp.objective.objective import Objective, Point
from hvp.objective.parameters import Layout


class Snapshot:
    """A traced loss at the values of its parameters and its state; the products belong to it.

    Args:
        traced_loss: what all points share.
        point: in the types that its programs take.
        value: the loss there; it is evaluated when it is first asked for if it is not given.
    """

    def __init__(self, traced_loss: TracedLoss, point: Point, value: LossValue | None = None):
        self.traced_loss = traced_loss
        self.values, self.state = tuple(point.values), tuple(point.state)
        self._point, self._given_value = point, value

    @classmethod
    def trace(
        cls,
        objective: Objective,
        layout: Layout,
        batches: Iterable[Any] | None,
        chosen: Sequence[int],
        *,
        promoted: bool,
        share: Share = WHOLE,
    ) -> Snapshot:
        """Trace an objective at its own values; the arguments are those of `TracedLoss.trace`."""
        point = Point(*(list(map(tf.identity, t)) for t in (objective.values, objective.state)))
        traced_loss = TracedLoss.trace(
            objective, layout, batches, chosen, point, promoted=promoted, share=share
        )
        return cls(traced_loss, traced_loss.cast(point), traced_loss.first_value)

    @property
    def family(self) -> object:
        """What is the same for all points at which the same linear maps serve."""
        return self.traced_loss

    @property
    def here(self) -> Point:
        """The point, in the types that its programs take."""
        return Point(list(self.values), list(self.state))

    @property
    def loss(self) -> float:
        """L with its penalties."""
        return self._value.loss

    @property
    def accuracy(self) -> float | None:
        """The share of examples whose class is right, None without classes."""
        return self._value.accuracy

    @functools.cached_property
    def _value(self) -> LossValue:
        return self._given_value or self.traced_loss.evaluate(self._point)

    @functools.cached_property
    @refusals_as_input_errors
    def is_convex(self) -> bool:
        """Whether the loss has outputs, and the numerical test finds it convex in them."""
        return self.traced_loss.has_outputs and self.traced_loss.is_convex(self._point)

    @functools.cached_property
    def weights_digest(self) -> str:
        """SHA-256 of all that the loss depends on besides the data."""
        digest = hashlib.sha256()
        for tensor in (*self.values, *self.state, *self.traced_loss.constants):
            digest.update(content(as_array(tensor)))
        return digest.hexdigest()

    def pieces(self, *, penalty: bool) -> Iterator[Piece]:
        """The terms of a sum over the batches: see `TracedLoss.pieces`."""
        return self.traced_loss.pieces(self.state, penalty=penalty)

    def held(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Those of the tensors of a term that are in memory in any case."""
        are_all_held = self.traced_loss.are_batches_held
        return list(tensors if are_all_held else tensors[: len(self.state)])

    def at(self, point: Point) -> Snapshot:
        """The same loss at another point; nothing is traced.

        Raises InputError where an operation has no right second derivatives there.
        """
        has_other_state = any(a is not b for a, b in zip(point.state, self.state, strict=True))
        point = self.traced_loss.cast(point)
        self.traced_loss.check_point(point, has_other_state=has_other_state)
        loss = self.traced_loss
        has_value = loss.has_own_divisors and not loss.share.is_part
        return Snapshot(
            self.traced_loss, point, self.traced_loss.evaluate(point) if has_value else None
        )

    def totals(self) -> Totals:
        """The sums over the batches that are here."""
        return self.traced_loss.totals(self._point)

    def penalty(self) -> float:
        """The penalty on the weights, zero where it is not added here."""
        return self.traced_loss.penalty_at(self._point)

    def with_penalty(self) -> Snapshot:
        """The same part of the loss, with the penalty on the weights if there is one."""
        return Snapshot(self.traced_loss.with_penalty(), self._point)

    def in_float64(self) -> Snapshot:
        """The same snapshot, evaluated in float64."""
        traced_loss = self.traced_loss.in_float64(self._point)
        return Snapshot(traced_loss, traced_loss.cast(self._point), traced_loss.first_value)

"""A loss on one data set, traced for each shape of its batches: all that its points share."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hvp.autodiff import precision
from hvp.autodiff.curvature import Tensors
from hvp.autodiff.differentiability import comparing_loop
from hvp.autodiff.digest import digest
from hvp.autodiff.program import Node, leaves
from hvp.autodiff.replay import promoted
from hvp.errors import InputError
from hvp.linearization import loss_structure
from hvp.linearization.audit import Auditor
from hvp.linearization.batch_programs import BatchPrograms, Signature, signature
from hvp.linearization.separability import require_sum
from hvp.linearization.share import WHOLE, Share
from hvp.linearization.totals import Totals
from hvp.objective.objective import Objective, Point
from hvp.objective.parameters import Layout

# The programs of a term of a sum over batches, and the tensors that follow the parameters.
Piece = tuple[BatchPrograms, list[tf.Tensor]]


class LossValue(NamedTuple):
    """L with its penalties, and the share of examples whose class is right if there are classes."""

    loss: float
    accuracy: float | None

    @classmethod
    def of(cls, totals: Totals, penalty: float) -> LossValue:
        """The loss of these sums. Raises InputError where it is not finite."""
        loss = totals.loss + penalty
        if not np.isfinite(loss):
            raise InputError("a finite loss", loss, "check weights, data and loss")
        return cls(loss, totals.accuracy)


class TracedLoss:
    """A loss with its programs for each shape of batches, and its sums over the data.

    The batches are read once, at the point `first`; with `audit`, each is traced and checked then.
    With `promoted`, all values are computed in the precision of the layout, even where the loss
    casts to a lower one. With a `share` that is a part, the batches are those of this process.

    Attributes:
        objective: the loss as functions of parameters and batch.
        share: which of all batches are here; counts and outputs are those of these.
        layout: of all its parameters.
        penalty: the programs of the penalty on the weights, None if there is none.
        findings: those of the audit.
        num_batches, num_examples: how many there are.
        examples: (B,) the number of examples of each batch.
        num_outputs: M, the entries of the outputs; 0 where the loss is not a function of outputs.
        divisors: what each term of the loss is divided by, over all batches.
        data_digest: SHA-256 of the data.
        first_totals: the sums over the batches at the first point.
        first_value: the loss there; None for a part of the batches.
    """

    def __init__(
        self,
        auditor: Auditor,
        layout: Layout,
        batches: Iterable[Any],
        first: Point,
        *,
        promoted: bool,
        audit: bool,
        share: Share = WHOLE,
    ):
        self.objective: Objective = auditor.objective
        self.layout, self.share = layout, share
        self._auditor, self._batches, self._is_promoted = auditor, batches, promoted
        self._programs: dict[Signature, BatchPrograms] = {}
        self._convexity_tests: dict[BatchPrograms, Callable[[Tensors, Tensors], bool]] = {}
        self.penalty = self._penalty() if share.has_penalty else None
        first = self.cast(first)
        totals = self._totals(first, audit=audit)
        require_sum(self.objective, totals, share.total(totals.num_batches))
        self.num_batches, self.num_examples = totals.num_batches, totals.num_examples
        self.examples = np.array(totals.examples)
        self.num_outputs = totals.num_outputs
        self.divisors = [] if share.is_part else totals.divisors
        self.data_digest, self.first_totals = totals.digest, totals.without_data()
        self.first_value = None if share.is_part else self._value(totals, first)
        self.findings = tuple(auditor.findings)

    @classmethod
    def trace(
        cls,
        objective: Objective,
        layout: Layout,
        batches: Iterable[Any] | None,
        chosen: Sequence[int],
        first: Point,
        *,
        promoted: bool,
        share: Share = WHOLE,
    ) -> TracedLoss:
        """Trace each shape of the batches, for derivatives in the `chosen` parameters.

        None for the batches is a loss of the parameters alone, which has a single, empty batch.
        """
        auditor = Auditor(objective, layout, chosen, promoted=promoted, first=share.first)
        read: Iterable[Any] = [()] if batches is None else batches
        if isinstance(read, list):
            read = list(map(_as_tensors, read))
        return cls(auditor, layout, read, first, promoted=promoted, audit=True, share=share)

    def in_float64(self, first: Point) -> TracedLoss:
        """The same loss, evaluated in float64."""
        old = self.layout
        layout = Layout(old.names, old.shapes, np.dtype(np.float64), old.channel_axes)
        return TracedLoss(
            self._auditor,
            layout,
            self._batches,
            first,
            promoted=True,
            audit=False,
            share=self.share,
        )

    def with_penalty(self) -> TracedLoss:
        """The same part of the loss, with the penalty on the weights if there is one."""
        found = copy.copy(self)
        found.penalty = self._penalty()
        return found

    @property
    def are_batches_held(self) -> bool:
        """Whether all batches, in the precision of the programs, are in memory in any case."""
        return isinstance(self._batches, list) and not self._is_promoted

    @property
    def has_outputs(self) -> bool:
        """Whether the loss is a function of outputs."""
        return self.num_outputs > 0

    @functools.cached_property
    def has_scores(self) -> bool:
        """Whether the loss is a weighted sum of values, each of its own part of the outputs."""
        point = self.cast(Point(list(self.objective.values), list(self.objective.state)))
        return all(
            p.network is not None
            and p.network.weigh is not None
            and loss_structure.has_scores(p.network, p.targets, point.values, batch)
            for p, batch in self._first_of_each_shape(point)
        )

    @property
    def has_distributions(self) -> bool:
        """Whether every term of the loss is a known negative log-likelihood."""
        targets = [t for programs in self._programs.values() for t in programs.targets]
        return all(target.distribution is not None for target in targets)

    @functools.cached_property
    def has_own_divisors(self) -> bool:
        """Whether what a term is divided by depends on parameters or state."""
        count = len(self.objective.values) + len(self.objective.state)
        for evaluate in (programs.evaluate for programs in self._programs.values()):
            divisors = {number for number in evaluate.outputs.divisors if number is not None}
            if divisors & evaluate.reach(evaluate.inputs[:count]):
                return True
        return False

    @property
    def constants(self) -> list[tf.Tensor]:
        """The tensors from elsewhere that the loss is computed from, for the first shape."""
        captures = next(iter(self._programs.values())).loss.captures
        found = [captures[number] for number in sorted(captures)]
        # A loop captures handles of variables too, but reads the values captured with them.
        return [tensor for tensor in found if tensor.dtype != tf.resource]

    @functools.cached_property
    def objective_digest(self) -> str:
        """SHA-256 of the operations of the loss and of its penalties."""
        programs = [*self._programs.values(), self.penalty]
        return digest(None if each is None else each.loss for each in programs)

    def comparing_loop(self, chosen: Sequence[int]) -> Node | None:
        """A loop that compares numbers which depend on the `chosen` parameters."""
        losses = [programs.loss for programs in self._programs.values()]
        loops = (comparing_loop(loss, [loss.inputs[i] for i in chosen]) for loss in losses)
        return next((loop for loop in loops if loop is not None), None)

    def require_outputs(self) -> None:
        """Raise InputError where the loss is not a function of outputs."""
        if not self.has_outputs:
            raise InputError(
                "a loss that is a function of outputs (J, G and R need them)",
                "a loss that sees its parameters another way",
                "give linearize_function outputs=",
            )

    def require_likelihood(self, *, known: bool) -> None:
        """Raise InputError where the loss is not made of loss values, or of `known` likelihoods."""
        self.require_outputs()
        if not self.has_scores or (known and not self.has_distributions):
            raise InputError(
                "a Keras loss of the outputs that is a cross-entropy or the mean of squares"
                if known
                else "a Keras loss whose values depend on their own part of the outputs each",
                self.objective.loss_name,
                "use GaussNewton, which is defined for any loss",
            )

    def divisors_of(self, programs: BatchPrograms) -> list[float]:
        """What the terms of a batch, or the penalty, are divided by: a batch by that of all."""
        return [1.0] if programs.is_penalty else self.divisors

    def num_state(self, programs: BatchPrograms) -> int:
        """How many tensors of the state are inputs of these programs."""
        return 0 if programs.is_penalty else len(self.objective.state)

    def pieces(self, state: Sequence[tf.Tensor], *, penalty: bool) -> Iterator[Piece]:
        """The terms of a sum, each as its programs and its tensors.

        They are the batches in order and, with `penalty`, that on the weights if there is one.
        """
        for batch in self._nests():
            yield self._piece(batch, state)
            del batch  # before the next one is read
        if penalty and self.penalty is not None:
            yield self.penalty, []

    def cast(self, point: Point) -> Point:
        """A point in the types that the programs take."""
        dtype = tf.as_dtype(self.layout.dtype)
        types = [tensor.dtype for tensor in self.objective.state]
        if self._is_promoted:
            types = [promoted(own, dtype) for own in types]
        state = [tf.cast(given, own) for given, own in zip(point.state, types, strict=True)]
        return Point([tf.cast(value, dtype) for value in point.values], state)

    def check_point(self, point: Point, *, has_other_state: bool) -> None:
        """Raise InputError where an operation has no right second derivatives at a point.

        `has_other_state` says whether its state is not that of the point it was reached from.
        """
        if has_other_state:
            self._auditor.require_replaceable_state()
        self._auditor.check_points(self._nests(), point)

    def evaluate(self, point: Point) -> LossValue:
        """The loss at a point. Raises InputError where it is not finite."""
        totals = self.totals(point)
        totals.require_divisors(self.divisors)
        return self._value(totals, point)

    def is_convex(self, point: Point) -> bool:
        """Whether a numerical test finds the loss convex in the outputs at a point."""
        return all(
            programs.network is not None
            and self._convexity_test(programs, point, batch)(point.values, batch)
            for programs, batch in self._first_of_each_shape(point)
        )

    def _convexity_test(
        self, programs: BatchPrograms, point: Point, batch: Sequence[tf.Tensor]
    ) -> Callable[[Tensors, Tensors], bool]:
        """The test for batches of this shape, compiled once for all points."""
        if programs not in self._convexity_tests:
            assert programs.network is not None
            test = loss_structure.convexity_test(programs.network, point.values, batch)
            self._convexity_tests[programs] = test
        return self._convexity_tests[programs]

    def _totals(self, point: Point, *, audit: bool) -> Totals:
        """Evaluate the loss on all batches; with `audit`, trace and check each before."""
        totals = Totals()
        for batch in self._nests():
            if audit:
                self._auditor.audit(batch, totals.num_batches + 1)
            programs, tensors = self._piece(batch, point.state)
            rows = 0 if programs.network is None else programs.network.rows
            totals.add(batch, programs.evaluate_at(point.values, tensors), rows)
            del batch, tensors  # before the next one is read
        return totals

    def totals(self, point: Point) -> Totals:
        """The sums over the batches that are here, at a point."""
        return self._totals(point, audit=False)

    def penalty_at(self, point: Point) -> float:
        """The penalty on the weights at a point, zero where it is not added here."""
        if self.penalty is None:
            return 0.0
        return float(tf.add_n(self.penalty.loss.replay(*point.values)))

    def _value(self, totals: Totals, point: Point) -> LossValue:
        return LossValue.of(totals, self.penalty_at(point))

    def _penalty(self) -> BatchPrograms | None:
        found = self._auditor.penalty
        return None if found is None else self._in_precision(found)

    def _first_of_each_shape(self, point: Point) -> Iterator[Piece]:
        seen = set()
        for programs, batch in self.pieces(point.state, penalty=False):
            if programs not in seen:
                seen.add(programs)
                yield programs, batch
            if len(seen) == len(self._programs):
                return

    def _piece(self, batch: Any, state: Sequence[tf.Tensor]) -> Piece:
        """The programs of a batch, and the state and its tensors in their precision."""
        shape = signature(batch)
        if shape not in self._programs:
            self._programs[shape] = self._in_precision(self._auditor.programs(batch))
        tensors, dtype = leaves(batch), tf.as_dtype(self.layout.dtype)
        if self._is_promoted:
            tensors = [precision.cast(tensor, dtype) for tensor in tensors]
        return self._programs[shape], [*state, *tensors]

    def _in_precision(self, programs: BatchPrograms) -> BatchPrograms:
        if not self._is_promoted:
            return programs
        return programs.promoted(len(self.objective.values), tf.as_dtype(self.layout.dtype))

    def _nests(self) -> Iterator[Any]:
        """The batches as nests of tensors."""
        return map(_as_tensors, self._batches)


def _as_tensors(batch: Any) -> Any:
    return tf.nest.map_structure(lambda t: None if t is None else tf.convert_to_tensor(t), batch)

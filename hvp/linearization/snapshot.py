"""A snapshot: an objective at fixed parameter values on a fixed data set, traced and checked once.

It holds the parameter values, the programs of each batch shape, the divisors of the loss and the
findings of the audit. The products are built from it.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff import precision, tensorflow_private
from hvp.autodiff.curvature import Tensors
from hvp.autodiff.program import leaves
from hvp.autodiff.replay import promoted
from hvp.autodiff.tensorflow_errors import reason
from hvp.errors import InputError, MixedExamplesError
from hvp.linearization import loss_structure
from hvp.linearization.audit import Auditor
from hvp.linearization.batch_programs import BatchPrograms
from hvp.linearization.refusals import refusals_as_input_errors
from hvp.linearization.totals import Totals
from hvp.objective.batches import content
from hvp.objective.objective import Evaluation, Objective, Point
from hvp.objective.parameters import Layout

Signature = tuple[tuple[tuple[int, ...], str], ...]


class Snapshot:
    """Reads `batches` once: traces each batch shape, and adds up loss, divisors and examples.

    With `promoted`, all values are computed in the precision of the layout, even where the loss
    casts to a lower one.
    """

    def __init__(
        self,
        objective: Objective,
        layout: Layout,
        batches: Iterable[Any] | None,
        chosen: Sequence[int],
        *,
        promoted: bool,
    ):
        self.objective = objective
        self.chosen = tuple(chosen)
        self.layout = layout
        dtype = tf.as_dtype(layout.dtype)
        self.values = tuple(tf.cast(tf.identity(value), dtype) for value in objective.values)
        self.state = tuple(
            precision.cast(t, dtype) if promoted else tf.identity(t) for t in objective.state
        )
        # What is compiled for products serves for the points of one family.
        self.family = object()
        self._batches = batches
        self._tensors = None
        if isinstance(batches, list):
            self._tensors = [tf.nest.map_structure(_tensor, batch) for batch in batches]
        self._programs: dict[Signature, BatchPrograms] = {}
        # As traced, before they were promoted to another precision.
        self._traced: dict[Signature, BatchPrograms] = {}
        self._convexity_tests: dict[BatchPrograms, Callable[[Tensors, Tensors], bool]] = {}
        self._is_promoted = promoted
        tracer = Auditor(objective, layout, self.chosen, promoted=promoted)
        self._traced_penalty = penalty = tracer.penalty()
        self.penalty = None if penalty is None else self._in_precision(penalty)
        self._auditor = tracer
        self._loss: float | None = None
        self._read(tracer)
        self.findings = tuple(tracer.findings)

    @property
    def in_memory(self) -> bool:
        """Whether all batches, in the precision of the snapshot, are in memory in any case."""
        is_held = self._tensors is not None or self._batches is None
        return is_held and not self._is_promoted

    @property
    def has_outputs(self) -> bool:
        """Whether the loss is a function of outputs."""
        return self.num_outputs > 0

    @functools.cached_property
    @refusals_as_input_errors
    def is_convex(self) -> bool:
        """Whether the loss has outputs, and the numerical test finds it convex in them."""
        return self.has_outputs and all(
            p.network is not None and self._convexity_test(p, batch)(self.values, batch)
            for p, batch in self._shapes()
        )

    def _convexity_test(
        self, programs: BatchPrograms, batch: Sequence[tf.Tensor]
    ) -> Callable[[Tensors, Tensors], bool]:
        """The test for batches of this shape, compiled once for all points."""
        if programs not in self._convexity_tests:
            assert programs.network is not None
            test = loss_structure.convexity_test(programs.network, self.values, batch)
            self._convexity_tests[programs] = test
        return self._convexity_tests[programs]

    @functools.cached_property
    def has_scores(self) -> bool:
        """Whether the loss is a weighted sum of values, each of its own part of the outputs."""
        return all(
            p.network is not None
            and p.network.weigh is not None
            and loss_structure.has_scores(p.network, p.targets, self.values, batch)
            for p, batch in self._shapes()
        )

    def _shapes(self) -> Iterator[tuple[BatchPrograms, list[tf.Tensor]]]:
        """The programs of each batch shape, with the first batch of that shape."""
        seen = set()
        for programs, batch in self.pieces(penalty=False):
            if programs not in seen:
                seen.add(programs)
                yield programs, batch

    @property
    def has_distributions(self) -> bool:
        """Whether every term of the loss is a known negative log-likelihood."""
        targets = [t for programs in self._programs.values() for t in programs.targets]
        return all(target.distribution is not None for target in targets)

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

    def batches(self) -> Iterator[list[tf.Tensor]]:
        """The batches in order, each as a flat list of its tensors."""
        return map(self._flat, self._structured())

    def held(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Those of the state and the tensors of a batch that are in memory in any case."""
        return list(tensors if self.in_memory else tensors[: len(self.state)])

    def pieces(self, *, penalty: bool) -> Iterator[tuple[BatchPrograms, list[tf.Tensor]]]:
        """The terms of a sum, each as its programs and its tensors.

        They are the batches in order and, with `penalty`, that on the weights if there is one.
        """
        for batch in self.batches():
            yield self.programs(batch), batch
        if penalty and self.penalty is not None:
            yield self.penalty, []

    def divisors_of(self, programs: BatchPrograms) -> list[float]:
        """What the terms of a batch, or the penalty, are divided by: a batch by that of all."""
        return [1.0] if programs.is_penalty else self.divisors

    def num_state(self, programs: BatchPrograms) -> int:
        """How many tensors of the state are inputs of these programs."""
        return 0 if programs.is_penalty else len(self.state)

    def programs(self, batch: Sequence[tf.Tensor]) -> BatchPrograms:
        """The programs for the shape of a batch. Raises InputError for a new shape."""
        try:
            return self._programs[_signature(batch)]
        except KeyError:
            shapes = [tuple(tensor.shape) for tensor in batch]
            raise InputError(
                "batches of the shapes read at first", f"shapes {shapes}", "keep the data fixed"
            ) from None

    def _read(self, tracer: Auditor | None) -> None:
        """Evaluate the loss on all batches; with a tracer, trace each new batch shape."""
        totals = Totals()
        for number, batch in enumerate(self._structured(), 1):
            tensors = self._flat(batch)
            if tracer is not None:
                self._trace(tracer, batch, tensors)
            programs = self.programs(tensors)
            self._check_targets(programs, batch)
            if tracer is not None:
                traced = self._traced[_signature(leaves(batch))]
                tracer.judge(traced, batch, number - 1)
                tracer.check_point(traced, batch, f"batch {number}")
            rows = 0 if programs.network is None else programs.network.rows
            totals.add(batch, self.evaluate(programs, tensors), rows)
        self._check_sum(totals)
        self.num_batches, self.num_examples = totals.num_batches, totals.num_examples
        self.examples = np.array(totals.examples)
        self.num_outputs = totals.num_outputs
        self.divisors = totals.divisors
        self.data_digest = totals.digest
        self._add_up(totals)

    def _add_up(self, totals: Totals) -> None:
        """Take loss and accuracy from the sums over all batches."""
        loss = totals.loss + self._penalty_now()
        if not np.isfinite(loss):
            raise InputError("a finite loss", loss, "check weights, data and loss")
        self._loss, self._accuracy = loss, totals.accuracy

    @property
    def loss(self) -> float:
        """L with its penalties."""
        self._evaluate_all()
        assert self._loss is not None
        return self._loss

    @property
    def accuracy(self) -> float | None:
        """The share of examples whose class is right, None without classes."""
        self._evaluate_all()
        return self._accuracy

    def _evaluate_all(self) -> None:
        """Evaluate the loss on all batches, unless that was done at this point."""
        if self._loss is not None:
            return
        totals = Totals()
        for batch in self._structured():
            tensors = self._flat(batch)
            totals.add(batch, self.evaluate(self.programs(tensors), tensors), 0)
        if not np.allclose(totals.divisors, self.divisors, rtol=1e-6):
            raise InputError(
                "a loss that is divided by the same number at every point",
                f"{totals.divisors} after {self.divisors}",
                "linearise it anew at this point",
            )
        self._add_up(totals)

    def _trace(self, tracer: Auditor, batch: Any, tensors: Sequence[tf.Tensor]) -> None:
        """The programs of a new batch shape."""
        signature = _signature(tensors)
        if signature in self._programs:
            return
        traced = tracer.batch(batch)
        self._traced[_signature(leaves(batch))] = traced
        self._programs[signature] = self._in_precision(traced)

    def _check_sum(self, totals: Totals) -> None:
        """Raise InputError where the loss of all data is not a sum over the batches."""
        count = totals.num_batches
        if count == 0:
            raise InputError("at least one batch", "an empty data set", "check where it comes from")
        if count > 1 and not totals.separable:
            layers = ", ".join(self.objective.mixing)
            raise MixedExamplesError(
                "a loss that is a sum over examples, or a single batch",
                f"{count} batches of a loss that mixes examples or drops some at random"
                f"{f' (in {layers})' if layers else ''}, which is another function of each batch",
                "pass batch_size=len(x), or training=False",
            )
        if count > 1 and totals.whole is not None:
            self._check_mean(totals.whole)

    def _check_targets(self, programs: BatchPrograms, batch: Any) -> None:
        if programs.network is not None:
            lasts = [shape[-1] if shape else 1 for shape in programs.network.shapes]
            self.objective.check_targets(batch, lasts)

    def _check_mean(self, batch: Any) -> None:
        """Raise InputError where a term of a batch is not the sum over its halves."""
        count = len(leaves(batch)[0])
        if count < 2:
            return

        def totals(part: slice) -> np.ndarray:
            cut, values = _slice(batch, part), self.objective.values
            specs = [tf.TensorSpec(value.shape, value.dtype) for value in values]
            found = tensorflow_private.compiled(
                lambda *values: self.objective.evaluate(values, cut).totals, specs
            )(values)
            return np.array([float(total) for total in found])

        middle = count // 2
        wholes, firsts, seconds = map(totals, (slice(None), slice(middle), slice(middle, None)))
        for whole, first, second in zip(wholes, firsts, seconds, strict=True):
            error = abs(whole - first - second)
            if error <= np.sqrt(np.finfo(self.layout.dtype).eps) * (abs(first) + abs(second)):
                continue
            raise MixedExamplesError(
                "a loss that is a sum or a mean over examples, as declared, or a single batch",
                f"{whole:g} for a batch whose halves give {first:g} and {second:g}",
                "pass batch_size=len(x), or another reduction",
            )

    @functools.cached_property
    def weights_digest(self) -> str:
        """SHA-256 of all that the loss depends on besides the data."""
        digest = hashlib.sha256()
        captures = next(iter(self._programs.values())).loss.captures
        captured = [captures[number] for number in sorted(captures)]
        # A loop captures handles of variables too, but reads the values captured with them.
        found = (t for t in captured if t.dtype != tf.resource)
        for tensor in (*self.values, *self.state, *found):
            digest.update(content(np.asarray(tensor)))
        return digest.hexdigest()

    def evaluate(self, programs: BatchPrograms, batch: Sequence[tf.Tensor]) -> Evaluation:
        """The terms of the loss on a batch. Raises InputError where TensorFlow fails."""
        try:
            return programs.evaluate_now(*self.values, *batch)
        except tf.errors.OpError as error:
            raise InputError(
                "a loss that can be evaluated", reason(error), "check model, loss and data"
            ) from error

    def at(self, point: Point) -> Snapshot:
        """The same loss at another point; nothing is traced.

        Raises InputError where an operation has no right second derivatives there.
        """
        other = copy.copy(self)
        for name in ("is_convex", "weights_digest"):
            other.__dict__.pop(name, None)
        has_other_state = any(a is not b for a, b in zip(point.state, self.state, strict=True))
        if has_other_state and self._auditor.reads_state:
            raise InputError(
                "the same frozen weights and statistics, as a loop reads them from the model",
                "others",
                "linearise the model anew at this point",
            )
        dtype = tf.as_dtype(self.layout.dtype)
        other.values = tuple(tf.cast(value, dtype) for value in point.values)
        other.state = tuple(
            tf.cast(given, own.dtype) for given, own in zip(point.state, self.state, strict=True)
        )
        other._loss = other._accuracy = None
        other._check_points()
        if any(self._has_own_divisors(programs) for programs in self._programs.values()):
            other._evaluate_all()
        return other

    def _check_points(self) -> None:
        """Raise InputError where an operation has no right second derivatives for a batch."""
        point, auditor = Point(list(self.values), list(self.state)), self._auditor
        if self._traced_penalty is not None:
            auditor.check_point(self._traced_penalty, (), "the penalty", point)
        if any(map(auditor.has_point_checks, self._traced.values())):
            for number, batch in enumerate(self._structured(), 1):
                traced = self._traced[_signature(leaves(batch))]
                auditor.check_point(traced, batch, f"batch {number}", point)

    def _has_own_divisors(self, programs: BatchPrograms) -> bool:
        """Whether what a term is divided by depends on parameters or state."""
        evaluate, count = programs.evaluate, len(self.values) + len(self.state)
        divisors = {number for number in evaluate.outputs.divisors if number is not None}
        return bool(divisors & evaluate.reach(evaluate.inputs[:count]))

    def in_float64(self) -> Snapshot:
        """The same snapshot, evaluated in float64."""
        other = copy.copy(self)
        old = self.layout
        other.layout = Layout(old.names, old.shapes, np.dtype(np.float64), old.channel_axes)
        other._is_promoted = True
        other.family, other._convexity_tests = object(), {}
        other.values = tuple(tf.cast(value, tf.float64) for value in self.values)
        other.state = tuple(tf.cast(value, tf.float64) for value in self.state)
        other.penalty = None if self.penalty is None else other._in_precision(self.penalty)
        other._programs = {
            tuple((shape, _promoted_name(name)) for shape, name in signature): (
                other._in_precision(programs)
            )
            for signature, programs in self._programs.items()
        }
        other._read(None)
        return other

    def _in_precision(self, programs: BatchPrograms) -> BatchPrograms:
        if not self._is_promoted:
            return programs
        return programs.promoted(len(self.values), tf.as_dtype(self.layout.dtype))

    def _flat(self, batch: Any) -> list[tf.Tensor]:
        """The state and the tensors of a batch, in the precision of the programs."""
        tensors, dtype = [*self.state, *leaves(batch)], tf.as_dtype(self.layout.dtype)
        return [precision.cast(t, dtype) for t in tensors] if self._is_promoted else tensors

    def _structured(self) -> Iterator[Any]:
        """The batches as nests of tensors."""
        if self._batches is None:
            yield ()
            return
        for batch in self._tensors or self._batches:
            yield tf.nest.map_structure(_tensor, batch)

    def _penalty_now(self) -> float:
        if self.penalty is None:
            return 0.0
        return float(tf.add_n(self.penalty.loss.replay(*self.values)))


def _slice(batch: Any, part: slice) -> Any:
    return tf.nest.map_structure(lambda t: None if t is None else t[part], batch)


def _tensor(leaf: Any) -> tf.Tensor | None:
    return None if leaf is None else tf.convert_to_tensor(leaf)


def _promoted_name(name: str) -> str:
    return promoted(tf.as_dtype(name), tf.float64).name


def _signature(batch: Sequence[tf.Tensor]) -> Signature:
    return tuple((tuple(tensor.shape), tensor.dtype.name) for tensor in batch)

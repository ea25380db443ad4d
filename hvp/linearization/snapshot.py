"""A snapshot: an objective at fixed parameter values on a fixed data set, traced and checked once.

It holds the parameter values, the programs of each batch shape, the divisors of the loss and the
findings of the audit. The products are built from it.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff import precision, tensorflow_private
from hvp.autodiff.program import leaves
from hvp.autodiff.replay import promoted
from hvp.autodiff.tensorflow_errors import reason
from hvp.errors import InputError, MixedExamplesError
from hvp.linearization import loss_structure
from hvp.linearization.audit import Auditor
from hvp.linearization.batch_programs import BatchPrograms
from hvp.objective.batches import content
from hvp.objective.objective import Evaluation, Objective
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
        self._batches = batches
        self._tensors = None
        if isinstance(batches, list):
            self._tensors = [tf.nest.map_structure(_tensor, batch) for batch in batches]
        self._programs: dict[Signature, BatchPrograms] = {}
        # As traced, before they were promoted to another precision.
        self._traced: dict[Signature, BatchPrograms] = {}
        self._is_promoted = promoted
        tracer = Auditor(objective, layout, self.chosen, promoted=promoted)
        penalty = tracer.penalty()
        self.penalty = None if penalty is None else self._in_precision(penalty)
        self._read(tracer)
        self.findings = tuple(tracer.findings)
        self.weights_digest = self._weights_digest()

    @property
    def in_memory(self) -> bool:
        """Whether all batches are in memory in any case."""
        return self._tensors is not None or self._batches is None

    @functools.cached_property
    def is_convex(self) -> bool:
        """Whether the numerical test finds the loss convex in the outputs."""
        return all(
            p.network is not None and loss_structure.is_convex(p.network, self.values, batch)
            for p, batch in self._shapes()
        )

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
        for batch in self.batches():
            programs = self.programs(batch)
            if programs not in seen:
                seen.add(programs)
                yield programs, batch

    @property
    def has_distributions(self) -> bool:
        """Whether every term of the loss is a known negative log-likelihood."""
        targets = [t for programs in self._programs.values() for t in programs.targets]
        return all(target.distribution is not None for target in targets)

    def batches(self) -> Iterator[list[tf.Tensor]]:
        """The batches in order, each as a flat list of its tensors."""
        return map(self._flat, self._structured())

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
        hits = 0.0
        totals: list[float] = []
        divisors: list[float | None] = []
        count = rows = 0
        examples: list[int] = []
        separable, whole = True, None
        digests: list[Any] = []
        for batch in self._structured():
            flat = self._flat(batch)
            if _signature(flat) not in self._programs and tracer is not None:
                traced = tracer.batch(batch)
                self._traced[_signature(flat)] = traced
                self._programs[_signature(flat)] = self._in_precision(traced)
            programs = self.programs(flat)
            self._check_targets(programs, batch)
            if tracer is not None:
                traced = self._traced[_signature(flat)]
                tracer.judge(traced, batch, count)
                tracer.check_point(traced, batch, f"batch {count + 1}")
            evaluation = self.evaluate(programs, flat)
            totals = _plus(totals, evaluation.totals)
            divisors = _plus(divisors, evaluation.divisors)
            if bool(evaluation.whole) and whole is None:
                whole = batch
            separable &= bool(evaluation.separable)
            hits += np.nan if evaluation.hits is None else float(evaluation.hits)
            examples.append(int(flat[0].shape[0]) if flat else 1)
            count += 1
            rows += programs.network.rows if programs.network is not None else 0
            digests = digests or [hashlib.sha256() for _ in flat]
            for digest, tensor in zip(digests, leaves(batch), strict=True):
                digest.update(content(np.asarray(tensor)))
        if count == 0:
            raise InputError("at least one batch", "an empty data set", "check where it comes from")
        if count > 1 and not separable:
            layers = ", ".join(self.objective.mixing)
            raise MixedExamplesError(
                "a loss that is a sum over examples, or a single batch",
                f"{count} batches of a loss that mixes examples or drops some at random"
                f"{f' (in {layers})' if layers else ''}, which is another function of each batch",
                "pass batch_size=len(x), or training=False",
            )
        if count > 1 and whole is not None:
            self._check_mean(whole)
        self.num_batches = count
        self.examples = np.array(examples)
        self.num_examples = sum(examples)
        self.num_outputs = rows
        self.divisors = [1.0 if divisor is None else divisor for divisor in divisors]
        if not all(divisor > 0 for divisor in self.divisors):
            raise InputError(
                "weights and masks with a positive sum", min(self.divisors), "check the data"
            )
        shares = [total / divisor for total, divisor in zip(totals, self.divisors, strict=True)]
        self.loss = sum(shares) + self._penalty_now()
        if not np.isfinite(self.loss):
            raise InputError("a finite loss", self.loss, "check weights, data and loss")
        self.accuracy = None if np.isnan(hits) else hits / self.num_examples
        joined = b"".join(digest.digest() for digest in digests)
        self.data_digest = hashlib.sha256(joined).hexdigest()

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

    def _weights_digest(self) -> str:
        digest = hashlib.sha256()
        captures = next(iter(self._programs.values())).loss.captures
        captured = [captures[number] for number in sorted(captures)]
        # A loop captures handles of variables too, but reads the values captured with them.
        for tensor in (*self.values, *(t for t in captured if t.dtype != tf.resource)):
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

    def in_float64(self) -> Snapshot:
        """The same snapshot, evaluated in float64."""
        other = copy.copy(self)
        old = self.layout
        other.layout = Layout(old.names, old.shapes, np.dtype(np.float64))
        other._is_promoted = True
        other.values = tuple(tf.cast(value, tf.float64) for value in self.values)
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
        """The tensors of a batch, in the precision that the programs were promoted to."""
        tensors, dtype = leaves(batch), tf.as_dtype(self.layout.dtype)
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


def _plus(sums: list[Any], found: Sequence[tf.Tensor | None]) -> list[Any]:
    """The sums plus the new numbers; a sum of None stays None."""
    numbers = [None if number is None else float(number) for number in found]
    if not sums:
        return numbers
    return [None if b is None else a + b for a, b in zip(sums, numbers, strict=True)]


def _slice(batch: Any, part: slice) -> Any:
    return tf.nest.map_structure(lambda t: None if t is None else t[part], batch)


def _tensor(leaf: Any) -> tf.Tensor | None:
    return None if leaf is None else tf.convert_to_tensor(leaf)


def _promoted_name(name: str) -> str:
    return promoted(tf.as_dtype(name), tf.float64).name


def _signature(batch: Sequence[tf.Tensor]) -> Signature:
    return tuple((tuple(tensor.shape), tensor.dtype.name) for tensor in batch)

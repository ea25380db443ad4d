"""A snapshot: an objective at one point on one data set, traced, audited and weighed once.

It holds the parameters' values, one program a batch shape, the divisor and what the audit found.
Products are built from it; it knows none of them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from hvp import audit, autodiff, graph, moments
from hvp.audit import Finding
from hvp.errors import InputError, reason
from hvp.objective import Evaluation, Objective
from hvp.params import Layout

Signature = tuple[tuple[tuple[int, ...], str], ...]


@dataclass(frozen=True, eq=False)
class Network:
    """A loss cut in two: `outputs` gives z from parameters and batch, `loss_of` the loss from z.

    `loss_of` takes z and then the batch; `shape` is that of z.
    """

    outputs: graph.Program
    loss_of: graph.Program
    shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True, eq=False)
class Programs:
    """The programs of one batch shape, as functions of the parameters and then of the batch.

    `loss` gives the batch's summed loss alone; `network` is None where the loss is not a function
    of outputs.
    """

    evaluate: graph.Program
    loss: graph.Program
    network: Network | None = None

    @classmethod
    def cut(cls, evaluate: graph.Program, num_params: int) -> Programs:
        """Cut the loss at the first candidate that it sees the parameters through alone."""
        result: Evaluation = evaluate.outputs
        loss = evaluate.part(evaluate.inputs, result.total)
        for z in result.outputs:
            loss_of = evaluate.part((z, *evaluate.inputs[num_params:]), result.total)
            if not loss_of.free():
                outputs = evaluate.part(evaluate.inputs, z)
                return cls(
                    evaluate, loss, Network(outputs, loss_of, tuple(evaluate.specs[z].shape))
                )
        return cls(evaluate, loss)

    @functools.cached_property
    def evaluate_now(self) -> Callable[..., Evaluation]:
        """`evaluate` compiled."""
        specs = [self.evaluate.specs[number] for number in self.evaluate.inputs]
        return tf.function(self.evaluate.replay, autograph=False).get_concrete_function(*specs)


class Snapshot:
    """Reads `batches` once: traces each shape, adds up loss, divisor, examples and hashes."""

    def __init__(
        self,
        objective: Objective,
        layout: Layout,
        batches: Iterable[Any] | None,
        chosen: Sequence[int],
    ):
        self.objective = objective
        self.chosen = tuple(chosen)
        self.layout = layout
        self.values = tuple(tf.identity(value) for value in objective.values)
        self._batches = batches
        self._tensors = None
        if isinstance(batches, list):
            self._tensors = [tf.nest.map_structure(_tensor, batch) for batch in batches]
        self._programs: dict[Signature, Programs] = {}
        self._findings: dict[Finding, None] = {}
        self.penalty = self._trace_penalty()
        self._read()
        self.findings = tuple(self._findings)
        self.weights_digest = self._weights_digest()

    @property
    def in_memory(self) -> bool:
        """Whether the batches are held in memory anyway."""
        return self._tensors is not None or self._batches is None

    def batches(self) -> Iterator[list[tf.Tensor]]:
        """The batches in order, each flattened to its tensors."""
        return map(_flat, self._structured())

    def programs(self, batch: Sequence[tf.Tensor]) -> Programs:
        """The programs of a batch's shape. Raises InputError for a shape not seen before."""
        try:
            return self._programs[_signature(batch)]
        except KeyError:
            shapes = [tuple(tensor.shape) for tensor in batch]
            raise InputError(
                "the batches that were there at first", f"shapes {shapes}", "keep the data fixed"
            ) from None

    def _read(self) -> None:
        total = divisor = hits = 0.0
        examples = count = rows = 0
        separable = True
        digests: list[Any] = []
        for batch in self._structured():
            flat = _flat(batch)
            if _signature(flat) not in self._programs:
                self._programs[_signature(flat)] = self._trace(batch)
            programs = self.programs(flat)
            if programs.network is not None:
                self.objective.check_labels(batch, programs.network.shape[-1:])
            evaluation = self._evaluate(programs, flat)
            total += float(evaluation.total)
            divisor += float(evaluation.divisor)
            separable &= bool(evaluation.separable)
            hits += np.nan if evaluation.hits is None else float(evaluation.hits)
            examples += int(flat[0].shape[0]) if flat else 1
            count += 1
            rows += programs.network.rows if programs.network is not None else 0
            digests = digests or [hashlib.sha256() for _ in flat]
            for digest, tensor in zip(digests, flat, strict=True):
                digest.update(tensor.numpy().tobytes())
        if count == 0:
            raise InputError("at least one batch", "an empty data set", "check where it comes from")
        if count > 1 and not separable:
            raise InputError(
                "a loss that is a sum over examples, or a single batch",
                f"{count} batches of a loss that mixes examples or drops some at random",
                "pass batch_size=len(x), or training=False",
            )
        self.num_batches = count
        self.num_examples = examples
        self.num_outputs = rows
        self.divisor = divisor if self.objective.divided else 1.0
        if not self.divisor > 0:
            raise InputError("weights with a positive sum", self.divisor, "check the weights")
        self.loss = total / self.divisor + self._penalty_now()
        if not np.isfinite(self.loss):
            raise InputError("a finite loss", self.loss, "check weights, data and loss")
        self.accuracy = None if np.isnan(hits) else hits / examples
        joined = b"".join(digest.digest() for digest in digests)
        self.data_digest = hashlib.sha256(joined).hexdigest()

    def _weights_digest(self) -> str:
        digest = hashlib.sha256()
        captures = next(iter(self._programs.values())).loss.captures
        for tensor in (*self.values, *(captures[number] for number in sorted(captures))):
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def _evaluate(self, programs: Programs, batch: Sequence[tf.Tensor]) -> Evaluation:
        try:
            return programs.evaluate_now(*self.values, *batch)
        except tf.errors.OpError as error:
            raise InputError(
                "a loss that can be evaluated", reason(error), "check model, loss and data"
            ) from error

    def _structured(self) -> Iterator[Any]:
        """The batches as nests of tensors."""
        if self._batches is None:
            yield ()
            return
        for batch in self._tensors or self._batches:
            yield tf.nest.map_structure(_tensor, batch)

    def _trace(self, batch: Any) -> Programs:
        params = [_spec(value) for value in self.values]
        specs = tf.nest.map_structure(lambda t: None if t is None else _spec(t), batch)
        try:
            traced = graph.trace(self.objective.evaluate, params, specs)
        except InputError:
            raise
        except graph.REFUSALS as error:
            shapes = ", ".join(str(tuple(t.shape)) for t in _flat(batch))
            raise InputError(
                "a loss that takes the parameters and batches given",
                f"{reason(error)!r} for batches of shape {shapes or '()'}",
                "check shapes and types, and use TensorFlow operations alone",
            ) from error
        if any(handle is v.handle for handle in traced.handles for v in self.objective.variables):
            raise InputError(
                "a loss that takes its parameters as arguments",
                "one that reads their variables from outside",
                "use the values that the function is given",
            )
        evaluate, freed = moments.free(traced)
        for place in freed:
            message = "StopGradient of tf.nn.moments taken out, it falsifies second derivatives"
            self._note(Finding("note", place, message))
        programs = Programs.cut(evaluate, len(self.values))
        self._audit(programs.loss, [*params, *map(_spec, _flat(batch))])
        if evaluate.custom_gradients:
            self._compare_rules(programs.loss, batch)
        network = programs.network
        if network is not None and network.outputs.outputs != evaluate.outputs.outputs[0]:
            message = "the outputs of G are the logits that the loss is computed from"
            self._note(Finding("note", "the last layer", message))
        return programs

    def _audit(self, loss: graph.Program, specs: Sequence[tf.TensorSpec]) -> None:
        params = [loss.inputs[i] for i in self.chosen]
        active = self._audit_twice(loss, specs)
        if loss.outputs not in active:
            raise InputError(
                "a loss that depends on its parameters",
                "one that no parameter reaches",
                "compute it from the parameters that the function is given",
            )
        unreached = audit.unreached(loss, params, active)
        for name in (self.layout.names[i] for i in self.chosen if loss.inputs[i] in unreached):
            self._note(
                Finding(
                    "note", name, "does not reach the loss: its derivatives through it are zero"
                )
            )
        self._note(*audit.stop_findings(loss, active))
        self._note(*audit.precision_findings(loss, active, tf.as_dtype(self.layout.dtype)))

    def _audit_twice(self, loss: graph.Program, specs: Sequence[tf.TensorSpec]) -> set[int]:
        """Prove that a missing derivative is a zero one: in the loss, then in its gradient."""
        count = len(self.values)

        def slope(*inputs: tf.Tensor) -> list[tf.Tensor]:
            rest = inputs[count:]
            values = list(inputs[:count])

            def value(chosen: Sequence[tf.Tensor]) -> tf.Tensor:
                for position, tensor in zip(self.chosen, chosen, strict=True):
                    values[position] = tensor
                return loss.replay(*values, *rest)

            return autodiff.gradient(value, [inputs[i] for i in self.chosen])

        active = audit.differentiable_paths(loss, [loss.inputs[i] for i in self.chosen])
        gradient = graph.trace(slope, *specs)
        audit.differentiable_paths(gradient, [gradient.inputs[i] for i in self.chosen])
        return active

    def _compare_rules(self, loss: graph.Program, batch: Any) -> None:
        """Note where `fit` follows custom gradients that are not their functions' derivatives."""

        # The rules live in the traced graph alone: only the objective itself still follows them.
        @tf.function(autograph=False)
        def both(params: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            ruled = autodiff.gradient(lambda p: self.objective.evaluate(p, batch).total, params)
            plain = autodiff.gradient(lambda p: loss.replay(*p, *_flat(batch)), params)
            return self.layout.join(ruled), self.layout.join(plain)

        ruled, plain = both(list(self.values))
        error = float(tf.norm(ruled - plain)) / max(float(tf.norm(ruled)), np.finfo(float).tiny)
        if error > np.sqrt(np.finfo(self.layout.dtype).eps):
            message = (
                f"a custom gradient is not the derivative of its function (the gradients differ by "
                f"{error:.1e}): products are those of the function"
            )
            for place in loss.custom_gradients:
                self._note(Finding("different", place, message))

    def _note(self, *findings: Finding) -> None:
        self._findings.update(dict.fromkeys(findings))

    def _trace_penalty(self) -> Programs | None:
        if self.objective.penalty is None:
            return None
        specs = [_spec(value) for value in self.values]
        penalty = graph.trace(self.objective.penalty, specs)
        self._audit_twice(penalty, specs)
        return Programs(penalty, penalty)

    def _penalty_now(self) -> float:
        return 0.0 if self.objective.penalty is None else float(self.objective.penalty(self.values))


def _tensor(leaf: Any) -> tf.Tensor | None:
    return None if leaf is None else tf.convert_to_tensor(leaf)


def _flat(batch: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(batch) if leaf is not None]


def _spec(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def _signature(batch: Sequence[tf.Tensor]) -> Signature:
    return tuple((tuple(tensor.shape), tensor.dtype.name) for tensor in batch)

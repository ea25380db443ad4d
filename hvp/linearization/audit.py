"""An objective traced for a batch shape, freed of what falsifies its derivatives, and audited."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff import (
    curvature,
    differentiability,
    precision,
    stop_gradients,
    tensorflow_private,
    tracing,
)
from hvp.autodiff.program import Program, leaves
from hvp.autodiff.tensorflow_errors import REFUSALS, raise_own, reason
from hvp.errors import Finding, InputError
from hvp.linearization.batch_programs import BatchPrograms
from hvp.objective.objective import Objective
from hvp.objective.parameters import Layout


class Auditor:
    """Makes the programs of an objective for the parameters chosen.

    `findings` is what was seen in all that was traced. Of programs that will be `promoted` to
    float64 the precision is not judged.
    """

    def __init__(
        self, objective: Objective, layout: Layout, chosen: Sequence[int], *, promoted: bool
    ):
        self._objective = objective
        self._layout = layout
        self._chosen = tuple(chosen)
        self._is_promoted = promoted
        self._active: set[int] = set()
        self.findings: dict[Finding, None] = {}
        self._note(*(Finding("note", place, message) for place, message in objective.notes))

    def batch(self, batch: Any) -> BatchPrograms:
        """The programs of a batch's shape, a nest of tensors. Raises InputError for what cannot be
        traced or differentiated twice."""
        program, freed = stop_gradients.remove_from_moments(self._traced(batch))
        for place in freed:
            message = "StopGradient of tf.nn.moments taken out, it falsifies second derivatives"
            self._note(Finding("note", place, message, "StopGradient"))
        targets = self._objective.targets(batch)
        programs = BatchPrograms.cut(program, len(self._objective.values), targets)
        self._active = self._audit(programs.loss, batch)
        network = programs.network
        if network is not None and network.outputs.outputs != [
            first for first, *_ in program.outputs.outputs
        ]:
            message = "the outputs of G are the logits that the loss is computed from"
            self._note(Finding("note", "the last layer", message))
        return programs

    def judge(self, programs: BatchPrograms, batch: Any) -> None:
        """Note what shows only where the last programs are run, on a batch with right targets."""
        if programs.evaluate.custom_gradients:
            self._compare_rules(programs.loss, batch)
        self._judge_precision(programs.loss, self._active, batch)

    def penalty(self) -> BatchPrograms | None:
        """The programs of the penalty on the weights, which takes no batch."""
        if not self._objective.has_penalty:
            return None
        specs = [spec(value) for value in self._objective.values]
        program = tracing.trace(lambda values: [self._objective.penalty(values)], specs)
        self._audit_twice(program, specs)
        return BatchPrograms(program, program, program.loops(program.inputs))

    def _traced(self, batch: Any) -> Program:
        params = [spec(value) for value in self._objective.values]
        specs = tf.nest.map_structure(lambda t: None if t is None else spec(t), batch)
        try:
            traced = tracing.trace(
                self._objective.evaluate,
                params,
                specs,
                variables=self._objective.variables,
                layers=self._objective.layers,
            )
        except InputError:
            raise
        except REFUSALS as error:
            raise_own(error)
            shapes = ", ".join(str(tuple(t.shape)) for t in leaves(batch))
            raise InputError(
                "a loss that takes the parameters and batches given",
                f"{reason(error)!r} for batches of shape {shapes or '()'}",
                "check shapes and types, and use TensorFlow operations alone",
            ) from error
        if any(handle is v.handle for handle in traced.handles for v in self._objective.variables):
            raise InputError(
                "a loss that takes its parameters as arguments",
                "one that reads their variables from outside, in a loop or a branch",
                "use the values that the function is given",
            )
        return traced

    def _audit(self, loss: Program, batch: Any) -> set[int]:
        """The values through which derivatives flow."""
        params = [loss.inputs[i] for i in self._chosen]
        values = [spec(value) for value in self._objective.values]
        active = self._audit_twice(loss, [*values, *map(spec, leaves(batch))])
        if not active & set(leaves(loss.outputs)):
            raise InputError(
                "a loss that depends on its parameters",
                "one that no parameter reaches",
                "compute it from the parameters that the function is given",
            )
        unreached = differentiability.unreached(loss, params, active)
        for name in (self._layout.names[i] for i in self._chosen if loss.inputs[i] in unreached):
            self._note(
                Finding(
                    "note", name, "does not reach the loss: its derivatives through it are zero"
                )
            )
        self._note(
            *differentiability.stop_findings(loss, active),
            *differentiability.loop_findings(loss, active),
        )
        return active

    def _audit_twice(self, loss: Program, specs: Sequence[tf.TensorSpec]) -> set[int]:
        """Prove that a missing derivative is a zero one: in the loss, then in its gradient."""
        count = len(self._objective.values)

        def slope(*inputs: tf.Tensor) -> list[tf.Tensor]:
            rest = inputs[count:]
            values = list(inputs[:count])

            def value(chosen: Sequence[tf.Tensor]) -> tf.Tensor:
                for position, tensor in zip(self._chosen, chosen, strict=True):
                    values[position] = tensor
                return tf.add_n(loss.replay(*values, *rest))

            return curvature.gradient(value, [inputs[i] for i in self._chosen])

        active = differentiability.differentiable_paths(
            loss, [loss.inputs[i] for i in self._chosen]
        )
        try:
            gradient = tracing.trace(slope, *specs, layers=self._objective.layers)
        except (LookupError, NotImplementedError) as error:
            raise InputError(
                "a loss that is twice differentiable in its parameters",
                repr(reason(error)),
                "replace the operation",
            ) from error
        differentiability.differentiable_paths(gradient, [gradient.inputs[i] for i in self._chosen])
        return active

    def _compare_rules(self, loss: Program, batch: Any) -> None:
        """Note where `fit` follows custom gradients that are not their functions' derivatives."""
        error = self._difference(
            # The rules live in the traced graph alone: only the objective still follows them.
            lambda p: tf.add_n(self._objective.evaluate(p, batch).totals),
            lambda p: tf.add_n(loss.replay(*p, *leaves(batch))),
        )
        if error > np.sqrt(np.finfo(self._layout.dtype).eps):
            message = (
                f"a custom gradient is not the derivative of its function (the gradients differ by "
                f"{error:.1e}): products are those of the function"
            )
            remedy = "write the layer without a rule of its own where fit is to follow them too"
            for place in loss.custom_gradients:
                self._note(Finding("different", place, message, remedy=remedy))

    def _judge_precision(self, loss: Program, active: set[int], batch: Any) -> None:
        """Refuse half precision, and measure what is left of another."""
        lower = differentiability.lower_precisions(loss, active, self._objective.values[0].dtype)
        if self._is_promoted or not lower:
            return
        halves = [place for place, dtype in lower.items() if dtype == tf.float16]
        if halves:
            raise InputError(
                "layers that compute in float32, bfloat16 or float64",
                f"float16 in {halves[0]!r}, whose range second derivatives leave",
                'pass dtype="float64", or train with mixed_bfloat16',
            )
        exact = precision.promote(loss, tf.float64)

        def exactly(params: Sequence[tf.Tensor]) -> tf.Tensor:
            tensors = [precision.cast(t, tf.float64) for t in (*params, *leaves(batch))]
            return tf.add_n(exact.replay(*tensors))

        error = self._difference(exactly, lambda p: tf.add_n(loss.replay(*p, *leaves(batch))))
        for place in self._innermost(lower):
            message = (
                f"computes in {lower[place].name}: the gradient differs from that in float64 by "
                f"{error:.0e} of its size"
            )
            remedy = 'dtype="float64" gives all digits'
            self._note(Finding("different", place, message, remedy=remedy))

    def _innermost(self, places: Iterable[str]) -> list[str]:
        """The places without those that hold others of them, such as the model of its layers."""
        places = list(places)
        inside = [p for p in places if not any(q.startswith(f"{p}/") for q in places)]
        layers = [place for place in inside if place not in self._objective.layers[:1]]
        return layers or inside

    def _difference(
        self, first: Callable[..., tf.Tensor], second: Callable[..., tf.Tensor]
    ) -> float:
        """‖∇first - ∇second‖ / ‖∇first‖ at the parameters."""

        def relative(*params: tf.Tensor) -> tf.Tensor:
            one, other = (
                tf.cast(self._layout.join(curvature.gradient(function, params)), tf.float64)
                for function in (first, second)
            )
            return tf.norm(one - other) / tf.maximum(tf.norm(one), np.finfo(float).tiny)

        values = self._objective.values
        (error,) = tensorflow_private.compiled(relative, map(spec, values))(values)
        return float(error)

    def _note(self, *findings: Finding) -> None:
        self.findings.update(dict.fromkeys(findings))


def spec(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype)

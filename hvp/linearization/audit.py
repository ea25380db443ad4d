"""Trace an objective for each batch shape, and check that its derivatives are right.

StopGradients that falsify second derivatives are removed. Missing derivatives and low precision
are refused, or noted as findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from hvp.autodiff import (
    curvature,
    differentiability,
    identities,
    stop_gradients,
    tracing,
)
from hvp.autodiff.program import Program, leaves
from hvp.autodiff.tensorflow_errors import (
    REFUSALS,
    is_python_control_flow,
    raise_own,
    reason,
)
from hvp.errors import DataError, Finding, InputError
from hvp.linearization.batch_programs import BatchPrograms, Signature, signature
from hvp.linearization.gradient_checks import GradientChecks
from hvp.linearization.point_checks import PointChecks
from hvp.linearization.stop_checks import StopChecks
from hvp.objective.objective import Objective, Point
from hvp.objective.parameters import Layout


class Auditor:
    """Makes the programs of an objective, for derivatives in the chosen parameters.

    With `promoted`, the programs will be promoted to float64, and their precision is not checked.
    `first` is the number of batches that are elsewhere, before these.

    Attributes:
        penalty: the programs of the penalty on the weights, which needs no batch; None without one.
        findings: those of all traces and batches, in order.
    """

    def __init__(
        self,
        objective: Objective,
        layout: Layout,
        chosen: Sequence[int],
        *,
        promoted: bool,
        first: int = 0,
    ):
        self.objective = objective
        self._layout = layout
        self._chosen = tuple(chosen)
        self._is_promoted = promoted
        self._first = first
        self._programs: dict[Signature, BatchPrograms] = {}
        self._active: set[int] = set()
        # Values with larger numbers are not of the objective: they were written for derivatives.
        self._num_traced = 0
        # Where TensorFlow's gradient may differ from the derivative, and which it is.
        self._doubtful: dict[str, str] = {}
        self._points: dict[BatchPrograms, PointChecks] = {}
        # Whether a loop reads variables of the state from outside.
        self._reads_state = False
        self._stops: dict[BatchPrograms, StopChecks] = {}
        self.findings: dict[Finding, None] = {}
        self._note(*(Finding("note", place, message) for place, message in objective.notes))
        self.penalty = self._penalty()

    def audit(self, batch: Any, number: int) -> None:
        """Trace the shape of a batch if it is new, and check the derivatives on its tensors.

        `number` is that of the batch here, counted from 1. Raises InputError for an objective that
        cannot be traced or differentiated twice, and for targets that its outputs cannot have.
        """
        shape = signature(batch)
        number += self._first
        if shape not in self._programs:
            self._programs[shape] = self._trace(batch)
        programs = self._programs[shape]
        if programs.network is not None:
            lasts = [shape[-1] if shape else 1 for shape in programs.network.shapes]
            self.objective.check_targets(batch, lasts)
        self._judge(programs, batch, number)
        self._check_point(programs, batch, f"batch {number}")

    def programs(self, batch: Any) -> BatchPrograms:
        """The programs for the shape of a batch. Raises InputError for a new shape."""
        try:
            return self._programs[signature(batch)]
        except KeyError:
            shapes = [tuple(tensor.shape) for tensor in leaves(batch)]
            raise InputError(
                "batches of the shapes read at first", f"shapes {shapes}", "keep the data fixed"
            ) from None

    def check_points(self, batches: Iterable[Any], point: Point) -> None:
        """Raise InputError where an operation has no right second derivatives at another point."""
        if self.penalty is not None:
            self._check_point(self.penalty, (), "the penalty", point)
        if any(self._points[programs].is_needed for programs in self._programs.values()):
            for number, batch in enumerate(batches, 1 + self._first):
                self._check_point(self.programs(batch), batch, f"batch {number}", point)

    def require_replaceable_state(self) -> None:
        """Raise InputError where a loop reads the state from the model, which keeps its own."""
        if self._reads_state:
            raise InputError(
                "the same frozen weights and statistics, as a loop reads them from the model",
                "others",
                "linearise the model anew at this point",
            )

    def _trace(self, batch: Any) -> BatchPrograms:
        """The programs for the shape of a batch, which is a nest of tensors."""
        traced = self._traced(batch)
        plain, removed = stop_gradients.remove_from_moments(traced)
        for place in removed:
            message = "StopGradient of tf.nn.moments removed, it falsifies second derivatives"
            self._note(Finding("note", place, message, "StopGradient"))
        params = plain.inputs[: len(self.objective.values)]
        program, rewritten = identities.apply_identities(plain, params)
        targets = self.objective.targets(batch)
        programs = BatchPrograms.cut(program, len(self.objective.values), targets, plain)
        self._num_traced = len(traced.specs)
        self._active = self._audit(programs.loss, batch)
        self._doubtful = {
            **{place: f"TensorFlow's gradient of {op}" for place, op in rewritten.items()},
            **dict.fromkeys(programs.loss.custom_gradients, "a custom gradient"),
            **dict.fromkeys(
                stop_gradients.differentiated_moments(traced),
                "TensorFlow's gradient of a derivative of tf.nn.moments",
            ),
            **{
                node.place: f"TensorFlow's gradient of {node.op.type}"
                for node in differentiability.wrong_gradients(programs.loss, self._active)
            },
        }
        if programs.network is not None and programs.network.at_logits:
            message = "the outputs of G are the logits that the loss is computed from"
            self._note(Finding("note", "the last layer", message))
        return programs

    def _judge(self, programs: BatchPrograms, batch: Any, number: int) -> None:
        """Note what only the numbers of a batch show, which must have valid targets.

        These are StopGradients that matter; and on the first batch after the programs were traced,
        custom gradients that differ from the derivative, and low precision.
        """
        tensors = self.objective.tensors(batch)
        if programs in self._stops:
            noted = {f.layer for f in self.findings if f.op == "StopGradient" and f.remedy}
            stops = self._stops[programs].findings(tensors, f"batch {number}", noted)
            self._note(*stops)
            return
        objective, layout, active = self.objective, self._layout, self._active
        self._stops[programs] = StopChecks(
            programs.loss, active, self._num_traced, layout, objective.values
        )
        self._note(*self._stops[programs].findings(tensors, "the first batch"))
        checks = GradientChecks(
            objective, layout, programs.loss, active, batch, promoted=self._is_promoted
        )
        self._note(*checks.findings(self._doubtful))

    def _check_point(
        self, programs: BatchPrograms, batch: Any, where: str, point: Point | None = None
    ) -> None:
        """Raise InputError where an operation has no right second derivatives for a batch.

        `point` is another one than that of the objective.
        """
        objective = self.objective
        at = point or Point(list(objective.values), list(objective.state))
        state = [] if programs.is_penalty else [*at.state, *leaves(batch)]
        specs = [programs.loss.specs[number] for number in programs.loss.inputs]
        pairs = zip([*at.values, *state], specs, strict=True)
        inputs = [t if t.dtype == spec.dtype else tf.cast(t, spec.dtype) for t, spec in pairs]
        if programs not in self._points:
            self._points[programs] = PointChecks(programs.loss, self._chosen, inputs)
        found = self._points[programs].check(inputs, where)
        if point is None:
            noted = {(finding.layer, finding.op) for finding in self.findings}
            self._note(*(each for each in found if (each.layer, each.op) not in noted))

    def _penalty(self) -> BatchPrograms | None:
        if not self.objective.has_penalty:
            return None
        specs = [spec(value) for value in self.objective.values]
        try:
            traced = tracing.trace(lambda values: [self.objective.penalty(values)], specs)
        except InputError:
            raise
        except REFUSALS as error:
            raise_own(error)
            raise InputError(
                "penalties that can be computed from the weights",
                repr(reason(error)),
                'use float32 layers and pass dtype="float64", or another regulariser',
            ) from error
        program, _ = identities.apply_identities(traced)
        self._audit_twice(program, specs)
        programs = BatchPrograms(program, program, program.loops(program.inputs))
        self._check_point(programs, (), "the penalty")
        return programs

    def _traced(self, batch: Any) -> Program:
        objective = self.objective
        params, state = ([spec(t) for t in each] for each in (objective.values, objective.state))
        specs = tf.nest.map_structure(lambda t: None if t is None else spec(t), batch)
        try:
            traced = tracing.trace(
                lambda params, state, batch: objective.evaluate(params, batch, state),
                params,
                state,
                specs,
                variables=[*objective.variables, *objective.state_variables],
                layers=self.objective.layers,
            )
        except InputError:
            raise
        except REFUSALS as error:
            raise_own(error)
            if is_python_control_flow(error):
                raise InputError(
                    "if, for and while that TensorFlow can trace",
                    f"a tensor in Python's own ({reason(error)!r})",
                    "decorate the function, or the layer's call, that holds it with @tf.function, "
                    "or write it with tf.cond, tf.where or tf.while_loop",
                ) from error
            shapes = ", ".join(str(tuple(t.shape)) for t in leaves(batch))
            raise DataError(
                "a loss that takes the parameters and batches given",
                f"{reason(error)!r} for batches of shape {shapes or '()'}",
                "check shapes and types, and use TensorFlow operations alone",
            ) from error
        handles = [v.handle for v in self.objective.variables if v is not None]
        if any(read is handle for read in traced.handles for handle in handles):
            raise InputError(
                "a loss that takes its parameters as arguments",
                "one that reads their variables from outside, in a loop or a branch",
                "use the values that the function is given",
            )
        state = [variable.handle for variable in self.objective.state_variables]
        self._reads_state |= any(read is handle for read in traced.handles for handle in state)
        return traced

    def _audit(self, loss: Program, batch: Any) -> set[int]:
        """The numbers of the values through which derivatives flow."""
        params = [loss.inputs[i] for i in self._chosen]
        values = [spec(value) for value in self.objective.values]
        active = self._audit_twice(loss, [*values, *map(spec, self.objective.tensors(batch))])
        if not active & set(leaves(loss.outputs)):
            raise InputError(
                "a loss that depends on its parameters",
                "one that no parameter reaches",
                "compute it from the parameters that the function is given; rounding, signs and "
                "comparisons end a path: for a straight-through estimate add "
                "tf.stop_gradient(round(x) - x) to x instead of a custom gradient",
            )
        unreached = differentiability.unreached(loss, params, active)
        for name in (self._layout.names[i] for i in self._chosen if loss.inputs[i] in unreached):
            self._note(
                Finding(
                    "note", name, "does not reach the loss: its derivatives through it are zero"
                )
            )
        self._note(
            *differentiability.rounding_findings(loss, active),
            *differentiability.loop_findings(loss, active),
        )
        return active

    def _audit_twice(self, loss: Program, specs: Sequence[tf.TensorSpec]) -> set[int]:
        """Check that each missing derivative is zero: first in the loss, then in its gradient."""
        count = len(self.objective.values)

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
            gradient = tracing.trace(slope, *specs, layers=self.objective.layers)
        except (LookupError, NotImplementedError) as error:
            raise InputError(
                "a loss that is twice differentiable in its parameters",
                f"an operation without a second derivative: {reason(error)!r}",
                "use other operations in its place",
            ) from error
        differentiability.differentiable_paths(gradient, [gradient.inputs[i] for i in self._chosen])
        return active

    def _note(self, *findings: Finding) -> None:
        self.findings.update(dict.fromkeys(findings))


def spec(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype)

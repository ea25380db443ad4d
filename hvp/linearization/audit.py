"""Trace an objective for each batch shape, and check that its derivatives are right.

StopGradients that falsify second derivatives are removed. Missing derivatives and low precision
are refused, or noted as findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff import (
    curvature,
    differentiability,
    identities,
    precision,
    singular_points,
    stop_gradients,
    tensorflow_private,
    tracing,
)
from hvp.autodiff.program import Node, Program, leaves
from hvp.autodiff.tensorflow_errors import REFUSALS, raise_own, reason
from hvp.errors import Finding, InputError
from hvp.linearization.batch_programs import BatchPrograms
from hvp.objective.objective import Objective
from hvp.objective.parameters import Layout

EPSILON = {
    tf.bfloat16: 2.0**-7,
    tf.float16: 2.0**-10,
    tf.float32: 2.0**-23,
    tf.float64: 2.0**-52,
}
# What is added to the value of a StopGradient, to see whether the loss depends on it. It is small
# enough for the exponential of any shifted value to stay finite.
SHIFT = 0.37

Distances = Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]
Gradient = Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]


class Auditor:
    """Makes the programs of an objective, for derivatives in the chosen parameters.

    `findings` collects the findings of all traces. With `promoted`, the programs will be promoted
    to float64, and their precision is not checked.
    """

    def __init__(
        self, objective: Objective, layout: Layout, chosen: Sequence[int], *, promoted: bool
    ):
        self._objective = objective
        self._layout = layout
        self._chosen = tuple(chosen)
        self._is_promoted = promoted
        self._active: set[int] = set()
        # Values with larger numbers are not of the objective: they were written for derivatives.
        self._num_traced = 0
        # Where TensorFlow's gradient may differ from the derivative, and which it is.
        self._doubtful: dict[str, str] = {}
        # By programs: the operations whose points are checked, and how far they are from them.
        self._distances: dict[BatchPrograms, tuple[list[Node], Distances]] = {}
        self.findings: dict[Finding, None] = {}
        self._note(*(Finding("note", place, message) for place, message in objective.notes))

    def batch(self, batch: Any) -> BatchPrograms:
        """The programs for the shape of a batch, which is a nest of tensors.

        Raises InputError for an objective that cannot be traced or differentiated twice.
        """
        traced = self._traced(batch)
        program, removed = stop_gradients.remove_from_moments(traced)
        for place in removed:
            message = "StopGradient of tf.nn.moments removed, it falsifies second derivatives"
            self._note(Finding("note", place, message, "StopGradient"))
        program, rewritten = identities.apply_identities(program)
        targets = self._objective.targets(batch)
        programs = BatchPrograms.cut(program, len(self._objective.values), targets)
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
        network = programs.network
        if network is not None and network.outputs.outputs != [
            first for first, *_ in program.outputs.outputs
        ]:
            message = "the outputs of G are the logits that the loss is computed from"
            self._note(Finding("note", "the last layer", message))
        return programs

    def judge(self, programs: BatchPrograms, batch: Any) -> None:
        """Run the programs that were traced last, and note what only their numbers show.

        These are StopGradients that matter, custom gradients that differ from the derivative, and
        low precision. The batch must have valid targets.
        """
        stops = differentiability.stops(programs.loss, self._active, self._num_traced)
        if stops:
            self._judge_stops(programs.loss, stops, batch)
        for node in stop_gradients.in_bodies(programs.loss, self._active):
            self._judge_stops_within(programs.loss, node, batch)
        if self._doubtful:
            self._compare_gradients(programs.loss, batch)
        self._judge_precision(programs.loss, self._active, batch)

    def check_point(self, programs: BatchPrograms, batch: Any, where: str) -> None:
        """Raise InputError where an operation has no right second derivatives for a batch."""
        if programs not in self._distances:
            self._distances[programs] = self._distances_of(programs, batch)
        nodes, distances = self._distances[programs]
        if not nodes:
            return
        found = distances([*self._objective.values, *leaves(batch)])
        for node, distance in zip(nodes, found, strict=True):
            eps = float(np.finfo(node.op.outputs[0].dtype.real_dtype.as_numpy_dtype).eps)
            singular_points.require_regular(node, float(distance), eps, where)

    def _distances_of(self, programs: BatchPrograms, batch: Any) -> tuple[list[Node], Distances]:
        loss = programs.loss
        active = differentiability.differentiable_paths(
            loss, [loss.inputs[i] for i in self._chosen]
        )
        singular_points.refuse_in_loops(loss, active)
        nodes = singular_points.checked_nodes(loss, active)

        def distances(*inputs: tf.Tensor) -> list[tf.Tensor]:
            return singular_points.distances(loss, nodes, inputs)

        specs = [*map(spec, self._objective.values), *map(spec, leaves(batch))]
        return nodes, tensorflow_private.compiled(distances, specs) if nodes else _nothing

    def penalty(self) -> BatchPrograms | None:
        """The programs of the penalty on the weights, which needs no batch."""
        if not self._objective.has_penalty:
            return None
        specs = [spec(value) for value in self._objective.values]
        try:
            traced = tracing.trace(lambda values: [self._objective.penalty(values)], specs)
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
        self.check_point(programs, (), "the penalty")
        return programs

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
        handles = [v.handle for v in self._objective.variables if v is not None]
        if any(read is handle for read in traced.handles for handle in handles):
            raise InputError(
                "a loss that takes its parameters as arguments",
                "one that reads their variables from outside, in a loop or a branch",
                "use the values that the function is given",
            )
        return traced

    def _audit(self, loss: Program, batch: Any) -> set[int]:
        """The numbers of the values through which derivatives flow."""
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
            *differentiability.rounding_findings(loss, active),
            *differentiability.loop_findings(loss, active),
        )
        return active

    def _audit_twice(self, loss: Program, specs: Sequence[tf.TensorSpec]) -> set[int]:
        """Check that each missing derivative is zero: first in the loss, then in its gradient."""
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
                f"an operation without a second derivative: {reason(error)!r}",
                "use other operations in its place",
            ) from error
        differentiability.differentiable_paths(gradient, [gradient.inputs[i] for i in self._chosen])
        return active

    def _compare_gradients(self, loss: Program, batch: Any) -> None:
        """Note gradients, which `fit` follows, that differ from the true derivative."""
        objective = self._objective

        def followed(params: Sequence[tf.Tensor]) -> tf.Tensor:
            return tf.add_n(objective.evaluate(params, batch).totals)

        def with_variables(params: Sequence[tf.Tensor]) -> list[tf.Tensor]:
            pairs = zip(objective.variables, params, strict=True)
            return curvature.gradient(followed, [t if v is None else v for v, t in pairs])

        # A program leaves out custom gradients; the objective itself follows them.
        error = self._difference(with_variables, _replayed_gradient(loss, batch))
        if not error <= np.sqrt(self._rounding(loss)):
            size = f"the gradients differ by {error:.1e}" if np.isfinite(error) else "it is NaN"
            for place, gradient in self._doubtful.items():
                message = (
                    f"{gradient} is not the derivative of its function ({size}): products are "
                    "those of the function, fit follows the gradient"
                )
                remedy = "write it another way if fit is to follow the function too"
                self._note(Finding("different", place, message, remedy=remedy))

    def _judge_stops(self, loss: Program, stops: Sequence[Node], batch: Any) -> None:
        """Note each StopGradient that matters: another value of it would change the derivatives."""
        change = self._effect_of_stops(loss, stops, batch)
        each = np.eye(len(stops))
        nothing = np.zeros(len(stops))
        tolerance = self._rounding(loss) ** (2 / 3)
        if change(SHIFT * each.sum(0), nothing) <= tolerance:
            return
        for node, one in zip(stops, each, strict=True):
            if change(SHIFT * one, nothing) <= tolerance:
                continue
            size = change(nothing, one)
            self._note_stop(node, size if size > tolerance else 0.0)

    def _judge_stops_within(self, loss: Program, node: Node, batch: Any) -> None:
        """Note a loop or branch whose StopGradients change the gradient."""
        opened = stop_gradients.without_those_of(loss, node)
        try:
            size = self._difference(
                _replayed_gradient(loss, batch), _replayed_gradient(opened, batch)
            )
        except REFUSALS:
            size = np.inf  # what is stopped has no derivative
        if size > self._rounding(loss) ** (2 / 3):
            self._note_stop(node, size)

    def _note_stop(self, node: Node, size: float) -> None:
        without = f"differs by {size:.1e} of its size" if size > 0 else "is the same"
        message = (
            "stop_gradient: its input is a constant for H and G, as for the gradient, which "
            f"{without} without it"
        )
        remedy = "remove it where its input should be differentiated"
        self._note(Finding("different", node.place, message, "StopGradient", remedy))

    def _effect_of_stops(
        self, loss: Program, stops: Sequence[Node], batch: Any
    ) -> Callable[[np.ndarray, np.ndarray], float]:
        """How much loss or gradient change, relatively, if StopGradients are shifted or passed."""

        def evaluated(shifts: tf.Tensor, passed: tf.Tensor, *params: tf.Tensor) -> list[tf.Tensor]:
            def total(values: Sequence[tf.Tensor]) -> tf.Tensor:
                inputs = [*values, *leaves(batch)]
                return tf.add_n(stop_gradients.varied(loss, inputs, stops, shifts, passed))

            gradient = self._layout.join(curvature.gradient(total, params))
            return [total(params), gradient]

        values, marks = self._objective.values, np.zeros(len(stops))
        specs = [*map(spec, map(tf.constant, (marks, marks))), *map(spec, values)]
        run = tensorflow_private.compiled(evaluated, specs)

        def at(shifts: np.ndarray, passed: np.ndarray) -> list[np.ndarray]:
            found = run([tf.constant(shifts), tf.constant(passed), *values])
            return [tensor.numpy().astype(float) for tensor in found]

        before = at(marks, marks)

        def change(shifts: np.ndarray, passed: np.ndarray) -> float:
            pairs = zip(at(shifts, passed), before, strict=True)
            changes = [_relative(now, then) for now, then in pairs]
            return float(np.nan_to_num(max(changes), nan=np.inf))

        return change

    def _judge_precision(self, loss: Program, active: set[int], batch: Any) -> None:
        """Refuse float16, and measure the error of the gradient in other low precisions."""
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

        error = self._difference(
            lambda p: curvature.gradient(exactly, p), _replayed_gradient(loss, batch)
        )
        for place in self._innermost(lower):
            message = (
                f"computes in {lower[place].name}: the gradient differs from that in float64 by "
                f"{error:.0e} of its size"
            )
            remedy = 'dtype="float64" gives all digits'
            self._note(Finding("different", place, message, remedy=remedy))

    def _rounding(self, loss: Program) -> float:
        """The machine epsilon of the lowest precision on the path."""
        dtype = self._objective.values[0].dtype
        lower = differentiability.lower_precisions(loss, self._active, dtype).values()
        return max(EPSILON[each] for each in (dtype, *lower))

    def _innermost(self, places: Iterable[str]) -> list[str]:
        """The places without those that contain other places, such as a model and its layers."""
        places = list(places)
        innermost = [p for p in places if not any(q.startswith(f"{p}/") for q in places)]
        layers = [place for place in innermost if place not in self._objective.layers[:1]]
        return layers or innermost

    def _difference(self, first: Gradient, second: Gradient) -> float:
        """‖first - second‖ / ‖first‖ of two gradients at the parameters."""

        def relative(*params: tf.Tensor) -> tf.Tensor:
            one, other = (
                tf.cast(self._layout.join(gradient(params)), tf.float64)
                for gradient in (first, second)
            )
            return tf.norm(one - other) / tf.maximum(tf.norm(one), np.finfo(float).tiny)

        values = self._objective.values
        (error,) = tensorflow_private.compiled(relative, map(spec, values))(values)
        return float(error)

    def _note(self, *findings: Finding) -> None:
        self.findings.update(dict.fromkeys(findings))


def _relative(now: np.ndarray, then: np.ndarray) -> float:
    size = max(float(np.linalg.norm(then)), np.finfo(float).tiny)
    return float(np.linalg.norm(now - then)) / size


def _replayed_gradient(loss: Program, batch: Any) -> Gradient:
    """The gradient of the program of a loss on a batch."""
    return lambda params: curvature.gradient(
        lambda values: tf.add_n(loss.replay(*values, *leaves(batch))), params
    )


def spec(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def _nothing(inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    return []

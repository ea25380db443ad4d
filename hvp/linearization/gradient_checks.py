"""What only the numbers of a batch show of derivatives, as findings.

These are StopGradients that matter, gradients of TensorFlow that are not the derivative, and low
precision. They are judged on the first batch of each shape alone, and the findings say so: what
matters only for the numbers of a later batch gives no finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff import (
    curvature,
    differentiability,
    precision,
    stop_gradients,
    tensorflow_private,
)
from hvp.autodiff.program import Node, Program
from hvp.autodiff.tensorflow_errors import REFUSALS
from hvp.errors import Finding, InputError
from hvp.objective.objective import Objective
from hvp.objective.parameters import Layout

# What is added to the value of a StopGradient, to see whether the loss depends on it. It is small
# enough for the exponential of any shifted value to stay finite.
SHIFT = 0.37

Gradient = Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]


class GradientChecks:
    """The checks of a loss on one batch, which must have valid targets.

    Args:
        objective: evaluates the loss as training does.
        layout: where its parameters lie in a vector.
        loss: the program that products differentiate.
        active: the values of the program through which derivatives flow.
        batch: a nest of tensors.
        promoted: whether the program will be promoted to float64.
    """

    def __init__(
        self,
        objective: Objective,
        layout: Layout,
        loss: Program,
        active: set[int],
        batch: Any,
        *,
        promoted: bool,
    ):
        self._objective, self._layout = objective, layout
        self._loss, self._active, self._batch = loss, active, batch
        self._tensors = objective.tensors(batch)
        self._is_promoted = promoted

    def findings(self, num_traced: int, doubtful: Mapping[str, str]) -> Iterator[Finding]:
        """The findings of all checks.

        Args:
            num_traced: values with larger numbers are not of the objective.
            doubtful: place -> the gradient of TensorFlow there which may not be the derivative.
        """
        stops = differentiability.stops(self._loss, self._active, num_traced)
        if stops:
            yield from self._stops(stops)
        for node in stop_gradients.in_bodies(self._loss, self._active):
            yield from self._stops_within(node)
        if doubtful:
            yield from self._wrong_gradients(doubtful)
        yield from self._low_precision()

    def _wrong_gradients(self, doubtful: Mapping[str, str]) -> Iterator[Finding]:
        """Note gradients, which `fit` follows, that differ from the true derivative."""
        objective = self._objective

        def followed(params: Sequence[tf.Tensor]) -> tf.Tensor:
            return tf.add_n(objective.evaluate(params, self._batch).totals)

        def with_variables(params: Sequence[tf.Tensor]) -> list[tf.Tensor]:
            pairs = zip(objective.variables, params, strict=True)
            return curvature.gradient(followed, [t if v is None else v for v, t in pairs])

        # A program leaves out custom gradients; the objective itself follows them.
        try:
            error = self._difference(with_variables, _replayed_gradient(self._loss, self._tensors))
        except LookupError:  # TensorFlow has no gradient there that `fit` could follow
            return
        if not error <= np.sqrt(self._rounding()):
            size = f"differ by {error:.1e} of their size" if np.isfinite(error) else "are NaN"
            for place, gradient in doubtful.items():
                message = (
                    f"{gradient} is not the derivative of its function (on the first batch the "
                    f"gradients {size}): products are those of the function, fit follows the "
                    "gradient"
                )
                remedy = "write it another way if fit is to follow the function too"
                yield Finding("different", place, message, remedy=remedy)

    def _stops(self, stops: Sequence[Node]) -> Iterator[Finding]:
        """Note each StopGradient that matters: another value of it would change the derivatives."""
        change = self._effect_of_stops(stops)
        each = np.eye(len(stops))
        nothing = np.zeros(len(stops))
        tolerance = self._rounding() ** (2 / 3)
        if change(SHIFT * each.sum(0), nothing) <= tolerance:
            return
        for node, one in zip(stops, each, strict=True):
            if change(SHIFT * one, nothing) <= tolerance:
                continue
            size = change(nothing, one)
            yield _stop_finding(node, size if size > tolerance else 0.0)

    def _stops_within(self, node: Node) -> Iterator[Finding]:
        """Note a loop or branch whose StopGradients change the gradient."""
        opened = stop_gradients.without_those_of(self._loss, node)
        try:
            size = self._difference(
                _replayed_gradient(self._loss, self._tensors),
                _replayed_gradient(opened, self._tensors),
            )
        except REFUSALS:
            size = np.inf  # what is stopped has no derivative
        if size > self._rounding() ** (2 / 3):
            yield _stop_finding(node, size)

    def _effect_of_stops(self, stops: Sequence[Node]) -> Callable[[np.ndarray, np.ndarray], float]:
        """How much loss or gradient change, relatively, if StopGradients are shifted or passed."""

        def evaluated(shifts: tf.Tensor, passed: tf.Tensor, *params: tf.Tensor) -> list[tf.Tensor]:
            def total(values: Sequence[tf.Tensor]) -> tf.Tensor:
                inputs = [*values, *self._tensors]
                return tf.add_n(stop_gradients.varied(self._loss, inputs, stops, shifts, passed))

            gradient = self._layout.join(curvature.gradient(total, params))
            return [total(params), gradient]

        values, marks = self._objective.values, np.zeros(len(stops))
        specs = _specs([tf.constant(marks), tf.constant(marks), *values])
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

    def _low_precision(self) -> Iterator[Finding]:
        """Refuse float16, and measure the error of the gradient in other low precisions."""
        lower = differentiability.lower_precisions(
            self._loss, self._active, self._objective.values[0].dtype
        )
        if self._is_promoted or not lower:
            return
        halves = [node for dtype, node in lower.values() if dtype == tf.float16]
        if halves:
            raise InputError(
                "a loss in float32, bfloat16 or float64",
                f"float16 in {halves[0].place!r} from {halves[0].op.type} on, whose range second "
                "derivatives leave",
                'pass dtype="float64", which computes all in float64, or use bfloat16 there, as '
                "mixed_bfloat16 does",
            )
        exact = precision.promote(self._loss, tf.float64)

        def exactly(params: Sequence[tf.Tensor]) -> tf.Tensor:
            tensors = [precision.cast(t, tf.float64) for t in (*params, *self._tensors)]
            return tf.add_n(exact.replay(*tensors))

        error = self._difference(
            lambda p: curvature.gradient(exactly, p), _replayed_gradient(self._loss, self._tensors)
        )
        for place in self._innermost(lower):
            message = (
                f"computes in {lower[place][0].name}: the gradient differs from that in float64 by "
                f"{error:.0e} of its size on the first batch"
            )
            remedy = 'dtype="float64" gives all digits'
            yield Finding("different", place, message, remedy=remedy)

    def _rounding(self) -> float:
        """The machine epsilon of the lowest precision on the path."""
        dtype = self._objective.values[0].dtype
        lower = differentiability.lower_precisions(self._loss, self._active, dtype).values()
        return max(precision.EPSILON[each] for each in (dtype, *(found for found, _ in lower)))

    def _innermost(self, places: Iterable[str]) -> list[str]:
        """The places without those that contain other places, such as a model and its layers."""
        places = list(places)
        innermost = [p for p in places if not any(q.startswith(f"{p}/") for q in places)]
        layers = [place for place in innermost if place not in self._objective.layers[:1]]
        return layers or innermost

    def _difference(self, first: Gradient, second: Gradient) -> float:
        """‖first - second‖ / ‖first‖ of two gradients at the parameters; 1 if the first is zero."""

        def joined(*params: tf.Tensor) -> list[tf.Tensor]:
            return [self._layout.join(gradient(params)) for gradient in (first, second)]

        values = self._objective.values
        one, other = tensorflow_private.compiled(joined, _specs(values))(values)
        return _relative(other.numpy().astype(float), one.numpy().astype(float))


def _stop_finding(node: Node, size: float) -> Finding:
    without = f"differs by {size:.1e} of its size" if size > 0 else "is the same"
    message = (
        "stop_gradient: its input is a constant for H and G, as for the gradient, which "
        f"{without} without it on the first batch"
    )
    remedy = "remove it where its input should be differentiated"
    return Finding("different", node.place, message, "StopGradient", remedy)


def _relative(now: np.ndarray, then: np.ndarray) -> float:
    """‖now - then‖ / ‖then‖, relative to ‖now‖ where `then` is zero; 0 where both are."""
    with np.errstate(invalid="ignore"):  # inf - inf
        change = float(np.linalg.norm(now - then))
    return change / (float(np.linalg.norm(then)) or change) if change else 0.0


def _replayed_gradient(loss: Program, tensors: Sequence[tf.Tensor]) -> Gradient:
    """The gradient of the program of a loss on a batch."""
    return lambda params: curvature.gradient(
        lambda values: tf.add_n(loss.replay(*values, *tensors)), params
    )


def _specs(tensors: Sequence[tf.Tensor]) -> list[tf.TensorSpec]:
    return [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]

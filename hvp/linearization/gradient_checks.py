"""What only the numbers of a batch show of derivatives, as findings.

These are gradients of TensorFlow that are not the derivative, and low precision. They are judged on
the first batch of each shape alone, and the findings say so: what matters only for the numbers of a
later batch gives no finding.
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
    tensorflow_private,
)
from hvp.autodiff.program import Program
from hvp.autodiff.tensorflow_errors import REFUSALS, raise_own
from hvp.errors import Finding, InputError
from hvp.linearization.stop_checks import relative_change
from hvp.objective.objective import Objective
from hvp.objective.parameters import Layout

NOT_IN_FLOAT64 = "how far the gradient is from that in float64 is unknown, TensorFlow has none"
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

    def findings(self, doubtful: Mapping[str, str]) -> Iterator[Finding]:
        """The findings of all checks.

        `doubtful` has by place the gradient of TensorFlow which may not be the derivative there.
        """
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
        except REFUSALS as refusal:
            raise_own(refusal)
            return  # there is no gradient on this machine that `fit` could follow
        dtype = self._objective.values[0].dtype
        epsilon = differentiability.lowest_epsilon(self._loss, self._active, dtype)
        if not error <= np.sqrt(epsilon):
            size = f"differ by {error:.1e} of their size" if np.isfinite(error) else "are NaN"
            for place, gradient in doubtful.items():
                message = (
                    f"{gradient} is not the derivative of its function (on the first batch the "
                    f"gradients {size}): products are those of the function, fit follows the "
                    "gradient"
                )
                remedy = "write it another way if fit is to follow the function too"
                yield Finding("different", place, message, remedy=remedy)

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
        difference = self._difference_from_float64()
        for place in self._innermost(lower):
            message = f"computes in {lower[place][0].name}: {difference}"
            remedy = 'dtype="float64" gives all digits'
            if difference == NOT_IN_FLOAT64:
                remedy = "write it with other operations for all digits"
            yield Finding("different", place, message, remedy=remedy)

    def _difference_from_float64(self) -> str:
        """How far the gradient is from the one in float64, if TensorFlow can compute that."""
        try:
            exact = precision.promote(self._loss, tf.float64)

            def exactly(params: Sequence[tf.Tensor]) -> tf.Tensor:
                tensors = [precision.cast(t, tf.float64) for t in (*params, *self._tensors)]
                return tf.add_n(exact.replay(*tensors))

            error = self._difference(
                lambda p: curvature.gradient(exactly, p),
                _replayed_gradient(self._loss, self._tensors),
            )
        except (InputError, tf.errors.OpError):
            return NOT_IN_FLOAT64
        return (
            f"the gradient differs from that in float64 by {error:.0e} of its size on the first "
            "batch"
        )

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
        return relative_change(other.numpy().astype(float), one.numpy().astype(float))


def _replayed_gradient(loss: Program, tensors: Sequence[tf.Tensor]) -> Gradient:
    """The gradient of the program of a loss on a batch."""
    return lambda params: curvature.gradient(
        lambda values: tf.add_n(loss.replay(*values, *tensors)), params
    )


def _specs(tensors: Sequence[tf.Tensor]) -> list[tf.TensorSpec]:
    return [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]

"""Whether StopGradients change the derivatives of a loss, as findings: on one batch after another.

Those that change nothing, as in log Σ exp(x - s) + s, are judged again on the next batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import tensorflow as tf

from hvp.autodiff import curvature, differentiability, stop_gradients
from hvp.autodiff.program import Node, Program
from hvp.autodiff.tensorflow_errors import REFUSALS
from hvp.autodiff.tensorflow_private import compiled
from hvp.errors import Finding
from hvp.objective.parameters import Layout

# What is added to the value of a StopGradient, to see whether the loss depends on it. It is small
# enough for the exponential of any shifted value to stay finite.
SHIFT = 0.37

Tensors = Sequence[tf.Tensor]


class StopChecks:
    """The StopGradients of a loss that are not known to change its derivatives.

    Args:
        loss: the program that products differentiate.
        active: the values of the program through which derivatives flow.
        num_traced: values with larger numbers are not of the objective.
        layout: where the parameters lie in a vector.
        values: the parameters, which are the first inputs of the program.
    """

    def __init__(
        self,
        loss: Program,
        active: Collection[int],
        num_traced: int,
        layout: Layout,
        values: Tensors,
    ):
        self._loss, self._layout, self._values = loss, layout, values
        self._stops = differentiability.stops(loss, active, num_traced)
        self._holders = stop_gradients.in_bodies(loss, active)
        epsilon = differentiability.lowest_epsilon(loss, active, values[0].dtype)
        self._tolerance = epsilon ** (2 / 3)
        # Those that are left, and the holders that have been differentiated without theirs.
        self._left = list(range(len(self._stops)))
        self._opened: dict[Node, Callable[[Tensors], list[tf.Tensor]]] = {}

    def findings(
        self, batch: Tensors, where: str, noted: Collection[str] = ()
    ) -> Iterator[Finding]:
        """One for each StopGradient that matters on a batch, unless its place is `noted`."""
        self._left = [i for i in self._left if self._stops[i].place not in noted]
        self._holders = [node for node in self._holders if node.place not in noted]
        if self._left:
            yield from self._of_stops(batch, where)
        for node in list(self._holders):
            size = self._size_of_those_in(node, batch)
            if size > self._tolerance:
                self._holders.remove(node)
                yield _finding(node, size, where)

    def _of_stops(self, batch: Tensors, where: str) -> Iterator[Finding]:
        """Those of which another value would change the loss or its gradient."""
        each, nothing = np.eye(len(self._stops)), np.zeros(len(self._stops))
        before = self._varied(nothing, nothing, batch)

        def change(shifts: np.ndarray, passed: np.ndarray) -> float:
            pairs = zip(self._varied(shifts, passed, batch), before, strict=True)
            changes = [relative_change(now, then) for now, then in pairs]
            return float(np.nan_to_num(max(changes), nan=np.inf))

        if change(SHIFT * each[self._left].sum(0), nothing) <= self._tolerance:
            return
        for i in list(self._left):
            if change(SHIFT * each[i], nothing) > self._tolerance:
                self._left.remove(i)
                size = change(nothing, each[i])
                yield _finding(self._stops[i], size if size > self._tolerance else 0.0, where)

    def _varied(self, shifts: np.ndarray, passed: np.ndarray, batch: Tensors) -> list[np.ndarray]:
        """The loss and its gradient, with StopGradients shifted or passed."""
        found = self._run([tf.constant(shifts), tf.constant(passed), *self._values, *batch])
        return [tensor.numpy().astype(float) for tensor in found]

    @functools.cached_property
    def _run(self) -> Callable[[Tensors], list[tf.Tensor]]:
        def evaluated(shifts: tf.Tensor, passed: tf.Tensor, *inputs: tf.Tensor) -> list[tf.Tensor]:
            def total(given: Tensors) -> tf.Tensor:
                outputs = stop_gradients.varied(self._loss, given, self._stops, shifts, passed)
                return tf.add_n(outputs)

            return [total(inputs), self._gradient(total, inputs)]

        marks = tf.TensorSpec([len(self._stops)], tf.float64)
        return compiled(evaluated, [marks, marks, *self._specs])

    def _size_of_those_in(self, node: Node, batch: Tensors) -> float:
        """How much the gradient changes without the StopGradients in a loop or branch."""
        try:
            if node not in self._opened:
                self._opened[node] = self._without_those_in(node)
            stopped, passed = self._opened[node]([*self._values, *batch])
        except REFUSALS:
            return np.inf  # what is stopped has no derivative
        return relative_change(passed.numpy().astype(float), stopped.numpy().astype(float))

    def _without_those_in(self, node: Node) -> Callable[[Tensors], list[tf.Tensor]]:
        opened = stop_gradients.without_those_of(self._loss, node)

        def gradient(loss: Program, inputs: Tensors) -> tf.Tensor:
            return self._gradient(lambda given: tf.add_n(loss.replay(*given)), inputs)

        def gradients(*inputs: tf.Tensor) -> list[tf.Tensor]:
            return [gradient(loss, inputs) for loss in (self._loss, opened)]

        return compiled(gradients, self._specs)

    def _gradient(self, total: Callable[[Tensors], tf.Tensor], inputs: Tensors) -> tf.Tensor:
        count = len(self._values)
        params, batch = inputs[:count], inputs[count:]
        return self._layout.join(
            curvature.gradient(lambda values: total([*values, *batch]), params)
        )

    @property
    def _specs(self) -> list[tf.TensorSpec]:
        return [self._loss.specs[n] for n in self._loss.inputs]


def _finding(node: Node, size: float, where: str) -> Finding:
    without = f"differs by {size:.1e} of its size" if size > 0 else "is the same"
    message = (
        "stop_gradient: its input is a constant for H and G, as for the gradient, which "
        f"{without} without it on {where}"
    )
    remedy = "remove it where its input should be differentiated"
    return Finding("different", node.place, message, "StopGradient", remedy)


def relative_change(now: np.ndarray, then: np.ndarray) -> float:
    """‖now - then‖ / ‖then‖, relative to ‖now‖ where `then` is zero; 0 where both are."""
    with np.errstate(invalid="ignore"):  # inf - inf
        change = float(np.linalg.norm(now - then))
    return change / (float(np.linalg.norm(then)) or change) if change else 0.0

"""A function of tensors that runs as a TensorFlow graph or, on request, compiled by XLA."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from hvp.autodiff import tensorflow_private
from hvp.autodiff.tensorflow_errors import REFUSALS, raise_own
from hvp.linearization import transfer

# XLA rounds differently: it is used only if it takes less than this share of the graph's time.
MAX_TIME_RATIO = 0.9
# How often a function is measured: a single long call is disturbed less by other processes.
FEW_CALLS, MANY_CALLS, LONG_SECONDS = 2, 8, 0.02
GRAPH, XLA = "graph", "XLA"
Function = Callable[..., tf.Tensor]
Run = Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]


class CompiledFunction:
    """A function, called with the list of its tensors.

    Args:
        build: gives the Python function; its argument is True where XLA is to compile it.
        specs: shapes and types of the tensors.

    Attributes:
        backend: "graph" or "XLA".
        seconds: backend -> time of one call, for backends that were measured.
    """

    def __init__(self, build: Callable[[bool], Function], specs: Sequence[tf.TensorSpec]):
        self._build = build
        self._specs = specs
        self._run = tensorflow_private.compiled(build(False), specs)
        self.backend = GRAPH
        self.seconds: dict[str, float] = {}

    def __call__(self, tensors: list[tf.Tensor]) -> tf.Tensor:
        return self._run(tensors)[0]

    def summed(self, count: int) -> Run:
        """One call that adds the values at the same first tensor and `count` lists of the others.

        It takes the first tensor and then all lists, one after the other.
        """
        function = tf.function(self._build(self.backend == XLA), autograph=False)
        first, *others = self._specs

        def total(x: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
            lists = zip(*[iter(tensors)] * len(others), strict=True) if others else [()] * count
            return functools.reduce(tf.add, [function(x, *rest) for rest in lists])

        return tensorflow_private.compiled(total, [first, *(others * count)])

    def measure(self, tensors: list[tf.Tensor]) -> float:
        """Seconds of a call with the present backend: the shortest of several, after a first."""
        if self.backend not in self.seconds:
            self(tensors)
            first = _seconds(self, tensors)
            count = FEW_CALLS if first > LONG_SECONDS else MANY_CALLS
            times = [first, *(_seconds(self, tensors) for _ in range(count - 1))]
            self.seconds[self.backend] = min(times)
        return self.seconds[self.backend]

    def compile(self) -> None:
        """Use XLA from now on."""
        self._run, self.backend = tensorflow_private.compiled(self._build(True), self._specs), XLA

    def compile_if_faster(self, tensors: list[tf.Tensor]) -> None:
        """Use XLA from now on if it can run the function, agrees with the graph and is faster."""
        graph, graph_seconds = self._run, self.measure(tensors)
        expected = self(tensors)
        tolerance = np.sqrt(np.finfo(expected.dtype.as_numpy_dtype).eps)
        try:
            self.compile()
            agrees = transfer.difference(self(tensors), expected) <= tolerance
            if agrees and self.measure(tensors) < MAX_TIME_RATIO * graph_seconds:
                return
        except REFUSALS as refusal:
            # XLA has no kernel for an operation: the graph, which runs, stays.
            raise_own(refusal)
        self._run, self.backend = graph, GRAPH


def _seconds(function: Callable[[list[tf.Tensor]], tf.Tensor], tensors: list[tf.Tensor]) -> float:
    begin = time.perf_counter()
    function(tensors)
    return time.perf_counter() - begin

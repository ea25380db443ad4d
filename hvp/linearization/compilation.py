"""A function of tensors, run as a TensorFlow graph or compiled by XLA, whichever is faster."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from hvp.autodiff import tensorflow_private
from hvp.autodiff.tensorflow_errors import REFUSALS, raise_own, reason
from hvp.linearization import transfer

# XLA's last bits differ from the graph's: a way is taken where it gains more than this.
GAIN = 0.9
Function = Callable[..., tf.Tensor]
Run = Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]


class CompiledFunction:
    """A function, called with the list of its tensors.

    `build` gives the function, told whether XLA is to compile it.

    Attributes:
        way: "graph" or "XLA", how it runs.
        seconds: of a call by each way that was tried.
        refusal: why XLA does not run it, None where it does or was not tried.
    """

    def __init__(self, build: Callable[[bool], Function], specs: Sequence[tf.TensorSpec]):
        self._build = build
        self._specs = specs
        self._run = tensorflow_private.compiled(build(False), specs)
        self.way = "graph"
        self.seconds: dict[str, float] = {}
        self.refusal: str | None = None

    def __call__(self, tensors: list[tf.Tensor]) -> tf.Tensor:
        return self._run(tensors)[0]

    def summed(self, count: int) -> Run:
        """The sum of its values at one first tensor and `count` lists of the others."""
        function = tf.function(self._build(self.way == "XLA"), autograph=False)
        first, *others = self._specs

        def total(x: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
            lists = zip(*[iter(tensors)] * len(others), strict=True) if others else [()] * count
            return functools.reduce(tf.add, [function(x, *rest) for rest in lists])

        return tensorflow_private.compiled(total, [first, *(others * count)])

    def measure(self, tensors: list[tf.Tensor]) -> float:
        """Seconds of a call the way it runs."""
        if self.way not in self.seconds:
            self(tensors)
            self.seconds[self.way] = min(_seconds(self, tensors) for _ in range(2))
        return self.seconds[self.way]

    def compile(self) -> None:
        """Let XLA run it from now on."""
        self._run, self.way = tensorflow_private.compiled(self._build(True), self._specs), "XLA"

    def compile_where_faster(self, tensors: list[tf.Tensor]) -> None:
        """Let XLA run it if it can, agrees and gains; `refusal` says why it cannot."""
        graphed, before = self._run, self.measure(tensors)
        expected = self(tensors)
        try:
            self.compile()
            error = transfer.difference(self(tensors), expected)
            after = self.measure(tensors)
        except REFUSALS as refusal:
            raise_own(refusal)
            self.refusal = reason(refusal)
        else:
            if not error <= np.sqrt(np.finfo(expected.dtype.as_numpy_dtype).eps):
                self.refusal = f"its result differs by {error:.0e}"
            elif after < GAIN * before:
                return
        self._run, self.way = graphed, "graph"


def _seconds(function: Callable[[list[tf.Tensor]], tf.Tensor], tensors: list[tf.Tensor]) -> float:
    begun = time.perf_counter()
    function(tensors)
    return time.perf_counter() - begun

"""The known part of a product: what of it does not depend on the vector."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

from hvp.autodiff import tensorflow_private
from hvp.autodiff.program import Node, Program
from hvp.linearization import work
from hvp.linearization.compilation import Run
from hvp.operators import Work
from hvp.passes import memory_estimate
from hvp.passes.partial_eval import Split

SavedTensors = list[tf.Tensor]


class KnownPart:
    """What of a product does not depend on the vector: it gives the saved tensors of a batch.

    Its inputs are the values of the point, then the tensors of a batch. What depends on the point
    alone, such as weights in another precision, are the constants of all batches.

    Args:
        parts: a program, split.
        count: how many first inputs of the linear part are tangents; the saved tensors follow.
        num_values: how many inputs are values of the point.

    Attributes:
        program: the whole of it.
        branch_bytes: the most that optional values among the saved tensors take.
    """

    def __init__(self, parts: Split, count: int, num_values: int):
        known, inputs = parts.known, parts.known.inputs
        saved = parts.linear.inputs[count:]
        computed = [number for number in saved if number not in inputs]
        by_batch = known.reach(inputs[num_values:])
        constant = [n for n in computed if n not in by_batch and known.specs[n].dtype != tf.variant]
        others = [n for n in computed if n not in constant]
        self.program = known.part(inputs, computed)
        self._num_values = num_values
        of_point = known.part(inputs[:num_values], constant)
        of_batch = known.part((*constant, *inputs), others)
        self._constants, self._others = _compiled(of_point), _compiled(of_batch)
        self._parts = of_point, of_batch
        # Positions of the saved tensors in the constants, the inputs and the others.
        self._positions = [(*constant, *inputs, *others).index(n) for n in saved]
        self.branch_bytes = memory_estimate.branch_bytes(self.program)

    @functools.cached_property
    def work(self) -> tuple[Work, Work]:
        """The work of what runs once at a point, and of what runs once a batch."""
        of_point, of_batch = self._parts
        return work.of_program(of_point), work.of_program(of_batch, of_point)

    def constants(self, inputs: Sequence[tf.Tensor]) -> SavedTensors:
        """What is the same for all batches."""
        return self._constants(list(inputs[: self._num_values]))

    def __call__(
        self, inputs: Sequence[tf.Tensor], constants: Sequence[tf.Tensor] | None = None
    ) -> SavedTensors:
        """The saved tensors of a batch."""
        given = [*(self.constants(inputs) if constants is None else constants), *inputs]
        tensors = [*given, *self._others(given)]
        return [tensors[position] for position in self._positions]

    def first_not_finite(self, inputs: Sequence[tf.Tensor]) -> Node | None:
        """The operation that first gives NaN or infinity, None if all are finite."""
        return self.program.first_not_finite(inputs)


def _compiled(program: Program) -> Run:
    """The program, compiled, from a list of tensors to a list of tensors."""
    specs = [program.specs[number] for number in program.inputs]
    if not program.outputs:
        return lambda tensors: []
    return tensorflow_private.compiled(program.replay, specs)

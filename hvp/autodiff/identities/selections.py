"""Entries that a mask, a slice or a gather leaves out: the others are computed alone.

log(w)[1:] does not depend on w₀, but its derivative there is 0·∞ where w₀ = 0; so it is with a
target that is NaN where it is missing, and left out after the squares. A selection of an entrywise
expression is written as the expression of selections, log(w[1:]): no entry that is left out is
computed. This is done where an operation of the expression may be infinite, or data are in it.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvp.autodiff.identities.identity import Identity
from hvp.autodiff.op_types import op_type
from hvp.autodiff.program import Node

RESHAPES = {"ExpandDims", "Reshape", "Squeeze"}


class Selections(Identity):
    """Writes selections of entrywise expressions as expressions of selections."""

    kinds = frozenset({"GatherNd", "GatherV2", "Slice", "StridedSlice"})

    def rewritten(self, node: Node) -> int | None:
        if node.op.type not in self.kinds or not self.specs[node.outputs[0]].dtype.is_floating:
            return None
        steps, number = [node], node.inputs[0]
        # A mask of several axes joins them first.
        while (maker := self.makers.get(number)) is not None and maker.op.type in RESHAPES:
            steps, number = [maker, *steps], maker.inputs[0]
        if not self.specs[number].shape.is_fully_defined():
            return None
        selection = _Selection(self, steps, self.specs[number])
        self._infinite = selection.infinite_operation(number)
        if not self._infinite and not selection.has_data(number):
            return None
        return selection.of(number)

    def without_derivative(self, node: Node) -> str:
        return self._infinite

    def may_be_missing(self, number: int) -> bool:
        """Whether a value is data that may be NaN or infinite."""
        if number not in self.data or not self.specs[number].dtype.is_floating:
            return False
        constant = self.literals.get(number, self.captures.get(number))
        return constant is None or not np.isfinite(constant).all()


class _Selection:
    """A selection, and reshapes before it, of values with the shape and type of `spec`."""

    def __init__(self, writer: Selections, steps: list[Node], spec: tf.TensorSpec):
        self._writer, self._steps, self._spec = writer, steps, spec
        self._written: dict[int, int] = {}

    def infinite_operation(self, number: int) -> str:
        """An operation that may be infinite in the expression of a value; empty without one."""
        maker = self._maker(number)
        if maker is None:
            return ""
        is_variable = any(n not in self._writer.literals for n in maker.inputs)
        if op_type(maker.op.type).finite_at is not None and is_variable:
            return maker.op.type
        return next(filter(None, map(self.infinite_operation, maker.inputs)), "")

    def has_data(self, number: int) -> bool:
        """Whether data that may be missing are in the expression of a value."""
        maker = self._maker(number)
        if maker is None:
            return self._writer.specs[number] == self._spec and self._writer.may_be_missing(number)
        return any(map(self.has_data, maker.inputs))

    def of(self, number: int) -> int:
        """The selection of a value, which is broadcast to the shape."""
        if number not in self._written:
            self._written[number] = self._write(number)
        return self._written[number]

    def _write(self, number: int) -> int:
        writer, last = self._writer, self._steps[-1]
        if writer.specs[number].shape.rank == 0:
            return number
        maker = self._maker(number)
        if maker is not None:
            shape = writer.specs[last.outputs[0]].shape
            return writer.put_like(maker, *map(self.of, maker.inputs), shape=shape)
        if writer.specs[number].shape != self._spec.shape:
            number = writer.put(last, lambda t: tf.broadcast_to(t, self._spec.shape), number)
        for step in self._steps:
            number = writer.put_on(step, number)
        return number

    def _maker(self, number: int) -> Node | None:
        """The entrywise operation that makes a value of the expression, None where it begins."""
        writer, maker = self._writer, self._writer.makers.get(number)
        if maker is None or number in writer.data or len(maker.outputs) != 1:
            return None
        types = {writer.specs[n].dtype for n in maker.inputs}
        is_alike = writer.specs[number] == self._spec and types <= {self._spec.dtype, tf.bool}
        return maker if is_alike and op_type(maker.op.type).is_entrywise else None

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

# Longer expressions stay as they are: a chain of selections, each of several of the one before, as
# steps in time on a grid are, would grow without end.
MAX_OPERATIONS = 100
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
        selection = _Selection(self, steps, number)
        if selection.num_operations > MAX_OPERATIONS:
            return None
        self._infinite = selection.infinite_operation
        return selection.written() if self._infinite or selection.has_data else None

    def without_derivative(self, node: Node) -> str:
        return self._infinite

    def may_be_missing(self, number: int) -> bool:
        """Whether a value is data that may be NaN or infinite."""
        if number not in self.data or not self.specs[number].dtype.is_floating:
            return False
        constant = self.literals.get(number, self.captures.get(number))
        return constant is None or not np.isfinite(constant).all()


class _Selection:
    """A selection, and reshapes before it, of a value that an entrywise expression makes."""

    def __init__(self, writer: Selections, steps: list[Node], number: int):
        self._writer, self._steps = writer, steps
        self._number, self._spec = number, writer.specs[number]
        self._makers = self._expression()

    @property
    def num_operations(self) -> int:
        return sum(maker is not None for maker in self._makers.values())

    @property
    def infinite_operation(self) -> str:
        """An operation of the expression that may be infinite; empty without one."""
        constants = self._writer.literals.keys()
        for maker in filter(None, self._makers.values()):
            if op_type(maker.op.type).finite_at is not None and not constants >= {*maker.inputs}:
                return maker.op.type
        return ""

    @property
    def has_data(self) -> bool:
        """Whether data that may be missing are in the expression."""
        return any(
            maker is None
            and self._writer.specs[number] == self._spec
            and self._writer.may_be_missing(number)
            for number, maker in self._makers.items()
        )

    def written(self) -> int:
        """The expression of selections."""
        shape = self._writer.specs[self._steps[-1].outputs[0]].shape
        selected: dict[int, int] = {}
        for number, maker in self._makers.items():
            if maker is None:
                selected[number] = self._selected(number)
            else:
                inputs = [selected[n] for n in maker.inputs]
                selected[number] = self._writer.put_like(maker, *inputs, shape=shape)
        return selected[self._number]

    def _selected(self, number: int) -> int:
        """The selection of a value at which the expression begins; numbers stay."""
        shape = self._writer.specs[number].shape
        if shape.rank == 0:
            return number
        if shape != self._spec.shape:
            number = self._writer.put(
                self._steps[-1], lambda t: tf.broadcast_to(t, self._spec.shape), number
            )
        for step in self._steps:
            number = self._writer.put_on(step, number)
        return number

    def _expression(self) -> dict[int, Node | None]:
        """The values of the expression, each after those it is made of, and what makes them.

        Those at which the expression begins have no maker.
        """
        found: dict[int, Node | None] = {}
        waiting = [self._number]
        while waiting:
            maker = self._maker(waiting[-1])
            before = [] if maker is None else [n for n in maker.inputs if n not in found]
            if not before:
                found[waiting.pop()] = maker
            waiting += before
        return found

    def _maker(self, number: int) -> Node | None:
        """The entrywise operation that makes a value of the expression, None where it begins."""
        writer, maker = self._writer, self._writer.makers.get(number)
        if maker is None or number in writer.data or len(maker.outputs) != 1:
            return None
        types = {writer.specs[n].dtype for n in maker.inputs}
        is_alike = writer.specs[number] == self._spec and types <= {self._spec.dtype, tf.bool}
        return maker if is_alike and op_type(maker.op.type).is_entrywise else None

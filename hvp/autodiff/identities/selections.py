"""Entries that a mask, a slice or a gather leaves out: the others are computed alone.

log(w)[1:] does not depend on w₀, but its derivative there is 0·∞ where w₀ = 0; so it is with a
target that is NaN where it is missing, and left out after the squares. A selection of an entrywise
expression is written as the expression of selections, log(w[1:]): no entry that is left out is
computed. This is done where an operation of the expression may be infinite, or data are in it.

An operation that gives several parts, as `unstack` does, is a selection for each part where one of
them is not used.
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
# Operations that give parts of a value, and which of their inputs it is.
PARTITIONS = {"DynamicPartition": 0, "Split": 1, "SplitV": 0, "Unpack": 0}


class Selections(Identity):
    """Writes selections of entrywise expressions as expressions of selections."""

    kinds = frozenset({"GatherNd", "GatherV2", "Slice", "StridedSlice", *PARTITIONS})

    def rewritten(self, node: Node) -> tuple[int, ...] | None:
        if node.op.type not in self.kinds or not self.specs[node.outputs[0]].dtype.is_floating:
            return None
        if node.op.type in PARTITIONS and all(map(self.users.get, node.outputs)):
            return None
        steps, number = [node], node.inputs[PARTITIONS.get(node.op.type, 0)]
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
        """How many are written: those of the expression for each part."""
        count = sum(maker is not None for maker in self._makers.values())
        return count * len(self._steps[-1].outputs)

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

    def written(self) -> tuple[int, ...]:
        """The expression of selections, for each part that the selection gives."""
        shapes = [self._writer.specs[number].shape for number in self._steps[-1].outputs]
        selected: dict[int, tuple[int, ...]] = {}
        for number, maker in self._makers.items():
            if maker is None:
                selected[number] = self._selected(number, len(shapes))
            else:
                inputs = zip(*(selected[n] for n in maker.inputs), strict=True)
                selected[number] = tuple(
                    self._writer.put_like(maker, *given, shape=shape)
                    for given, shape in zip(inputs, shapes, strict=True)
                )
        return selected[self._number]

    def _selected(self, number: int, num_parts: int) -> tuple[int, ...]:
        """The selections of a value at which the expression begins; numbers stay."""
        writer, (*reshapes, selection) = self._writer, self._steps
        shape = writer.specs[number].shape
        if shape.rank == 0:
            return (number,) * num_parts
        if shape != self._spec.shape:
            number = writer.put(selection, lambda t: tf.broadcast_to(t, self._spec.shape), number)
        for step in reshapes:
            (number,) = writer.put_on(step, number)
        if selection.op.type == "DynamicPartition":
            return self._masked(number, num_parts)
        return writer.put_on(selection, number, PARTITIONS.get(selection.op.type, 0))

    def _masked(self, number: int, num_parts: int) -> tuple[int, ...]:
        """The parts of a dynamic partition by masks: TensorFlow's optimiser of graphs takes parts
        of different lengths for equal ones where a program has several partitions."""
        writer, selection = self._writer, self._steps[-1]
        return tuple(
            writer.put(
                selection,
                lambda value, parts, part=part: tf.boolean_mask(value, tf.equal(parts, part)),
                number,
                selection.inputs[1],
            )
            for part in range(num_parts)
        )

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

"""Which indices of a loop are distinct, whatever its inputs are.

An array of indices is known up to numbers that are added to all its entries, or to all of a
column: the counter i of a loop in i + (0, 1, 2). That leaves distinct rows distinct.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hvp.autodiff.program import Node, Program


class Shift(enum.IntEnum):
    """What may be added to an array of which the rest is known."""

    NONE = 0
    OF_ALL = 1
    OF_COLUMNS = 2


class Known(NamedTuple):
    """An array of numbers up to a shift."""

    array: np.ndarray
    shift: Shift


RESHAPES = {"ExpandDims", "Reshape", "Squeeze"}


class KnownValues:
    """The whole numbers of a program that are known up to shifts.

    Args:
        program: the body of a loop or of a branch.
        given: what is known of its inputs, by their numbers.
    """

    def __init__(self, program: Program, given: Mapping[int, Known]):
        self._program, self._known = program, dict(given)
        for number, array in program.literals.items():
            self._known[number] = Known(array, Shift.NONE)
        for number in program.inputs:
            self._note(number, None)
        for node in program.nodes:
            for number in node.outputs:
                self._note(number, self._made(node) if len(node.outputs) == 1 else None)

    def are_distinct(self, lists: Sequence[int]) -> bool:
        """Whether no row stands twice in arrays of indices (…, n), nor in two of them."""
        found = [self._known.get(n) for n in lists]
        known = [each for each in found if each is not None]
        most = Shift.OF_COLUMNS if len(lists) == 1 else Shift.NONE
        if len(known) < len(found) or any(each.shift > most for each in known):
            return False
        width = known[0].array.shape[-1] if known[0].array.ndim else 1
        rows = np.concatenate([each.array.reshape(-1, width) for each in known])
        return len(np.unique(rows, axis=0)) == len(rows)

    def of(self, numbers: Sequence[int]) -> list[Known | None]:
        return [self._known.get(n) for n in numbers]

    def _note(self, number: int, known: Known | None) -> None:
        spec = self._program.specs[number]
        if known is None and spec.dtype.is_integer and spec.shape.num_elements() == 1:
            known = Known(np.zeros(spec.shape, int), Shift.OF_ALL)
        if known is not None:
            self._known.setdefault(number, known)

    def _made(self, node: Node) -> Known | None:
        """What is known of a result by those of the inputs."""
        (number,) = node.outputs
        spec, kind = self._program.specs[number], node.op.type
        if not spec.dtype.is_integer or not spec.shape.is_fully_defined():
            return None
        given = self.of(node.inputs)
        if kind == "Range" and (step := given[2]) is not None and step.shift == Shift.NONE:
            return Known(np.arange(spec.shape[0]) * int(step.array), Shift.OF_ALL)
        if kind == "Fill":
            return Known(np.zeros(spec.shape, int), Shift.OF_ALL)
        known = [each for each in given if each is not None]
        if given and given[0] is not None and self._keeps_order(node, given[0]):
            return Known(given[0].array.reshape(spec.shape), given[0].shift)
        if len(known) < len(given):
            return None
        shift = max(each.shift for each in known)
        if kind == "Cast":
            return known[0]
        if kind in ("Add", "AddV2", "Sub") and shift <= Shift.OF_ALL:
            one, other = (each.array for each in known)
            return Known(one - other if kind == "Sub" else one + other, shift)
        if kind == "Mul" and shift <= Shift.OF_ALL:
            first, second = sorted(known, key=lambda each: each.shift)
            if first.shift == Shift.NONE and first.array.size == 1:
                return Known(first.array * second.array, shift)
        axis = node.op.get_attr("axis") if kind == "Pack" else None
        if axis in (-1, spec.shape.rank - 1) and spec.shape.rank > 1:
            return Known(np.stack([each.array for each in known], -1), Shift.OF_COLUMNS)
        return None

    def _keeps_order(self, node: Node, given: Known) -> bool:
        """Whether it gives another shape to an array that is known up to one number."""
        if node.op.type == "StridedSlice":
            strides = self._program.literals.get(node.inputs[3])
            size = self._program.specs[node.outputs[0]].shape.num_elements()
            if strides is None or (strides != 1).any() or size != given.array.size:
                return False
        elif node.op.type not in RESHAPES:
            return False
        return given.shift <= Shift.OF_ALL

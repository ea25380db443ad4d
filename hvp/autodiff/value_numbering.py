"""Value numbering: which values of a program are equal, who makes them and who uses them.

Values that equal operations make from equal values are equal (Cocke and Schwartz 1970).
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from hvp.autodiff.program import Node, Program
from hvp.autodiff.rewriting import attributes


class ValueNumbering:
    """The values of a program, and of the nodes that are added to it.

    Attributes:
        makers, users: the operation that makes a value, and those that use it.
        literals, specs: as a program's.
    """

    def __init__(self, program: Program):
        self.literals, self.specs = dict(program.literals), dict(program.specs)
        self.makers: dict[int, Node] = {}
        self.users: dict[int, list[Node]] = defaultdict(list)
        self._first: dict[int, int] = {}
        self._made: dict[tuple[str, bytes, tuple[int, ...]], Node] = {}
        for node in program.nodes:
            for number in node.inputs:
                self.users[number].append(node)
            self.register(node)

    def register(self, node: Node) -> None:
        """Take note of what a node makes."""
        self.makers.update(dict.fromkeys(node.outputs, node))
        if not node.bodies and not node.op.op_def.is_stateful:
            key = node.op.type, attributes(node.op), tuple(map(self.first, node.inputs))
            twin = self._made.setdefault(key, node)
            self._first.update(zip(node.outputs, map(self.first, twin.outputs), strict=True))

    def first(self, number: int) -> int:
        """The value that was made first among those made by equal operations."""
        if number in self.literals and number not in self._first:
            array, dtype = self.literals[number], self.specs[number].dtype
            same = (
                n
                for n, other in self.literals.items()
                if n in self._first
                and self.specs[n].dtype == dtype
                and other.shape == array.shape
                and np.array_equal(other, array)
            )
            self._first[number] = next(same, number)
        return self._first.get(number, number)

    def number_in(self, number: int) -> float | None:
        """The number that a constant repeats, None for other values."""
        array = self.literals.get(number)
        if array is None or array.size == 0 or array.dtype == object:
            return None
        values = np.ravel(array)
        if np.iscomplexobj(values) or not (values == values[0]).all():
            return None
        return float(values[0])

"""`Identity`, the base of the identities: it visits a program and writes some operations anew."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import tensorflow as tf

from hvp.autodiff.program import Node, Program
from hvp.autodiff.rewriting import Rewriter, attributes


class Identity(Rewriter):
    """Visits the nodes of a program in order; a node with one result may be written anew.

    Attributes:
        kinds: the types of operations that may be written anew; a program without them is left.
        places: place -> the operation there that has no derivative of its own.
        makers, users: the operation that makes a value, and those that use it.
    """

    kinds: frozenset[str]

    def __init__(self, program: Program):
        super().__init__(program)
        self.places: dict[str, str] = {}
        self.makers: dict[int, Node] = {}
        self.users: dict[int, list[Node]] = defaultdict(list)
        self._first: dict[int, int] = {}
        self._made: dict[tuple[str, bytes, tuple[int, ...]], Node] = {}
        for node in program.nodes:
            for number in node.inputs:
                self.users[number].append(node)
            self._count(node)

    @classmethod
    def applied(cls, program: Program) -> tuple[Program, dict[str, str]]:
        """The program with the identity, and by place the operation that it has rewritten."""
        if not any(node.op.type in cls.kinds for node in program.nodes):
            return program, {}
        written = cls(program)
        for node in program.nodes:
            written._visit(node)
        return (written.program(), written.places) if written.places else (program, {})

    @abstractmethod
    def rewritten(self, node: Node) -> int | None:
        """A value that equals the node's only result, None to leave the node as it is."""

    def _visit(self, node: Node) -> None:
        node = replace(node, inputs=tuple(map(self.resolved, node.inputs)))
        is_single = len(node.outputs) == 1 and not node.bodies
        other = self.rewritten(node) if is_single else None
        if other is None:
            self.nodes.append(node)
            self._count(node)
            return
        (number,) = node.outputs
        shape = self.specs[number].shape
        if shape.is_fully_defined() and self.specs[other].shape != shape:
            other = self.put(node, lambda t: tf.broadcast_to(t, shape), other)
        self.replace(number, other)
        self.places[node.place] = self.without_derivative(node)

    def without_derivative(self, node: Node) -> str:
        """The operation without a derivative of its own for which a node was written anew."""
        return node.op.type

    def put(self, node: Node, function: Callable[..., tf.Tensor], *inputs: int) -> int:
        """Write a function of values in the place of a node, and return the value it gives."""
        begun = len(self.nodes)
        number = self.write_for(node, function, *inputs)
        for written in self.nodes[begun:]:
            self._count(written)
        return number

    def put_like(self, node: Node, *inputs: int, shape: tf.TensorShape | None = None) -> int:
        """Write the node's operation on other inputs, which may give another shape."""
        (result,) = node.outputs
        spec = self.specs[result]
        shape = spec.shape if shape is None else shape
        other = self.value(tf.TensorSpec(shape, spec.dtype))
        self.nodes.append(replace(node, inputs=inputs, outputs=(other,)))
        self._count(self.nodes[-1])
        return other

    def _count(self, node: Node) -> None:
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

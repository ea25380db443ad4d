"""`Identity`, the base of the identities: it visits a program and writes some operations anew."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection
from dataclasses import replace

import tensorflow as tf

from hvp.autodiff.program import Node, Program
from hvp.autodiff.rewriting import Rewriter
from hvp.autodiff.value_numbering import ValueNumbering


class Identity(ValueNumbering, Rewriter):
    """Visits the nodes of a program in order; a node of one result or of its `kinds` may be new.

    Attributes:
        kinds: the types of operations that may be written anew; a program without them is left.
        places: place -> the operation there that has no derivative of its own.
        data: the values that no parameter reaches.
        makers, users: as of `ValueNumbering`.
    """

    kinds: frozenset[str]
    data: frozenset[int] = frozenset()

    def __init__(self, program: Program):
        ValueNumbering.__init__(self, program)
        Rewriter.__init__(self, program)
        self.places: dict[str, str] = {}
        self._is_changed = False

    @classmethod
    def applied(cls, program: Program, params: Collection[int]) -> tuple[Program, dict[str, str]]:
        """The program with the identity, and by place the operation that it has rewritten."""
        if not any(node.op.type in cls.kinds for node in program.nodes):
            return program, {}
        written = cls(program)
        written.data = frozenset(program.specs.keys() - program.reach(params))
        for node in program.nodes:
            written._visit(node)
        return (written.program(), written.places) if written._is_changed else (program, {})

    @abstractmethod
    def rewritten(self, node: Node) -> int | tuple[int, ...] | None:
        """A value that equals the node's result, or several; None to leave the node as it is."""

    def _visit(self, node: Node) -> None:
        node = replace(node, inputs=tuple(map(self.resolved, node.inputs)))
        is_single = len(node.outputs) == 1 or node.op.type in self.kinds
        found = self.rewritten(node) if is_single and not node.bodies else None
        if found is None:
            self.nodes.append(node)
            self.register(node)
            return
        others = found if isinstance(found, tuple) else (found,)
        for number, other in zip(node.outputs, others, strict=True):
            shape = self.specs[number].shape
            if shape.is_fully_defined() and self.specs[other].shape != shape:
                other = self.put(node, lambda t, shape=shape: tf.broadcast_to(t, shape), other)
            self.replace(number, other)
        self._is_changed = True
        if kind := self.without_derivative(node):
            self.places[node.place] = kind

    def without_derivative(self, node: Node) -> str:
        """The operation without a derivative of its own for which a node was written anew.

        It is empty where data alone are the cause.
        """
        return node.op.type

    def put(self, node: Node, function: Callable[..., tf.Tensor], *inputs: int) -> int:
        """Write a function of values in the place of a node, and return the value it gives."""
        begun = len(self.nodes)
        number = self.write_for(node, function, *inputs)
        for written in self.nodes[begun:]:
            self.register(written)
        return number

    def put_like(self, node: Node, *inputs: int, shape: tf.TensorShape | None = None) -> int:
        """Write the node's operation on other inputs, which may give another shape."""
        (result,) = node.outputs
        spec = self.specs[result]
        shape = spec.shape if shape is None else shape
        other = self.value(tf.TensorSpec(shape, spec.dtype))
        self.nodes.append(replace(node, inputs=inputs, outputs=(other,)))
        self.register(self.nodes[-1])
        return other

    def put_on(self, node: Node, number: int, position: int = 0) -> tuple[int, ...]:
        """Write the node's operation on another input of the same shape, of any type."""
        dtype = self.specs[number].dtype
        others = [self.value(tf.TensorSpec(self.specs[n].shape, dtype)) for n in node.outputs]
        inputs = (*node.inputs[:position], number, *node.inputs[position + 1 :])
        self.nodes.append(replace(node, inputs=inputs, outputs=tuple(others)))
        self.register(self.nodes[-1])
        return tuple(others)

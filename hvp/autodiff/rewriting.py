"""`Rewriter`, the base of identities and passes: it writes a program from the values of another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff.program import Node, Program, leaves, map_nest
from hvp.autodiff.tracing import Flattener


class Rewriter:
    """A program being written: the values of another, and new ones made from them.

    Attributes:
        nodes: what has been written so far.
        captures, literals, specs: as a program's.
    """

    def __init__(self, program: Program):
        self.nodes: list[Node] = []
        self.captures = dict(program.captures)
        self.literals = dict(program.literals)
        self.specs = dict(program.specs)
        self._program = program
        self._same: dict[int, int] = {}
        # Where functions are called to see which operations they are.
        self._graph = tf.Graph()
        self._tensors: dict[int, tf.Tensor] = {}
        self._flattener = Flattener(
            captures=self.captures, literals=self.literals, specs=self.specs
        )

    def resolved(self, number: int) -> int:
        """The value used for one of the other program."""
        return self._same.get(number, number)

    def replace(self, number: int, other: int) -> None:
        """Use `other` for the value `number` from now on."""
        self._same[number] = self.resolved(other)

    def expanded(self, function: Callable[..., Any], *inputs: int) -> tuple[list[Node], list[int]]:
        """The operations of a function of values, which are not written yet, and its results.

        A function that returns None gives none.
        """
        flattener, written = self._flattener, len(self._flattener.nodes)
        begun = len(self._graph.get_operations())
        with self._graph.as_default():
            results = function(*map(self._tensor, inputs))
        flattener.inline(self._graph, begun)
        return flattener.nodes[written:], [flattener.number(tensor) for tensor in leaves(results)]

    def _tensor(self, number: int) -> tf.Tensor:
        """The placeholder of a value in calls of Python functions."""
        spec = self.specs[number]
        if number not in self._tensors or self._tensors[number].shape != spec.shape:
            tensor = self._tensors[number] = tf.compat.v1.placeholder(spec.dtype, spec.shape)
            self._flattener.assign(tensor, number)
        return self._tensors[number]

    def write(self, function: Callable[..., tf.Tensor], *inputs: int) -> int:
        """Write the operations of a function of values; return the value it gives."""
        nodes, (value,) = self.expanded(function, *inputs)
        self.nodes += nodes
        return value

    def write_for(self, node: Node, function: Callable[..., tf.Tensor], *inputs: int) -> int:
        """Write the operations of a function in the place of a node; return the value it gives."""
        scope = node.op.name.rpartition("/")[0]

        def scoped(*tensors: tf.Tensor) -> tf.Tensor:
            with tf.name_scope(f"{scope}/") if scope else contextlib.nullcontext():
                return function(*tensors)

        nodes, (value,) = self.expanded(scoped, *inputs)
        self.nodes += [replace(other, place=node.place) for other in nodes]
        return value

    def literal(self, array: np.ndarray) -> int:
        number = self.value(tf.TensorSpec(array.shape, array.dtype))
        self.literals[number] = array
        return number

    def value(self, spec: tf.TensorSpec) -> int:
        """A new value, to be given from outside."""
        number = len(self.specs)
        self.specs[number] = spec
        return number

    def program(self, outputs: Any = None) -> Program:
        """The other program as it is written now, without dead operations."""
        if outputs is None:
            outputs = map_nest(self.resolved, self._program.outputs)
        written = replace(
            self._program,
            nodes=tuple(self.nodes),
            captures=self.captures,
            literals=self.literals,
            specs=self.specs,
        )
        return written.part(self._program.inputs, outputs)


def attributes(op: tf.Operation) -> bytes:
    """The attributes of an operation, equal for operations that differ in name and inputs alone."""
    names = sorted(name for name in op.node_def.attr if not name.startswith("_"))
    attributes = op.node_def.attr
    return b"".join(n.encode() + attributes[n].SerializeToString() for n in names)

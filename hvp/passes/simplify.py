"""Simplification: constants are folded, zeros removed, and operations that change nothing dropped.

Differentiation produces many zeros, for paths that do not exist. Here a zero is a literal: every
operation that maps zero to zero gives a literal zero again, and sums drop it. What depends on
shapes alone becomes a literal too, since shapes are known. Equal operations are written once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff.decompositions import LINEAR_ALGEBRA, substitute
from hvp.autodiff.op_types import ARRANGEMENTS, JOINTLY, RESHAPES, SHAPES, VANISHING
from hvp.autodiff.program import Node, Program, is_uniform, literal, uniform
from hvp.autodiff.replay import apply
from hvp.autodiff.rewriting import Rewriter, attributes

# Larger constants are computed when the program runs.
MAX_LITERAL_ENTRIES = 1 << 16


def simplify(program: Program) -> Program:
    """The program without operations on constants and zeros and without those that do nothing.

    Its values are the same bit by bit, with two exceptions: 0·x is 0 for an infinite x that is not
    a constant, and operations of `decompositions.LINEAR_ALGEBRA` are written by others, to
    rounding.
    """
    simplifier = _Simplifier(program)
    for node in program.nodes:
        simplifier.visit(node)
    return simplifier.program()


class _Simplifier(Rewriter):
    """Visits the nodes of a program in order and writes those that must run."""

    def __init__(self, program: Program):
        super().__init__(program)
        self._made: dict[tuple[str, bytes, tuple[int, ...]], Node] = {}
        self._inferred: dict[Any, list[tf.TensorSpec]] = {}

    def visit(self, node: Node) -> None:
        node = replace(node, inputs=tuple(map(self.resolved, node.inputs)))
        if node.bodies or any(self._is_list(n) for n in (*node.inputs, *node.outputs)):
            self._write_once(node)
            return
        node = self._without_zeros(node)
        if None in map(self._shape, node.outputs):
            self._infer(node)
        found = self._literals(node)
        if found is not None:
            for number, array in zip(node.outputs, found, strict=True):
                self.literals[number] = array
                self.specs[number] = tf.TensorSpec(array.shape, self.specs[number].dtype)
        elif (same := self._same_as(node)) is not None:
            self.replace(node.outputs[0], same)
        elif node.op.type not in LINEAR_ALGEBRA or not self._substitute(node):
            self._write_once(node)

    def _write_once(self, node: Node) -> None:
        """Write the node, unless an equal one was written before."""
        twin = self._made.setdefault((node.op.type, attributes(node.op), node.inputs), node)
        if twin is node:
            self.nodes.append(node)
        for number, other in zip(node.outputs, twin.outputs, strict=True):
            if number != other:
                self.replace(number, other)

    def _substitute(self, node: Node) -> bool:
        """Write other operations for it, if there are any; return whether there are."""
        nodes, values = self.expanded(lambda *inputs: substitute(node.op, inputs), *node.inputs)
        for other in nodes:
            self.visit(other)
        for number, value in zip(node.outputs, values, strict=False):
            self.replace(number, value)
        return bool(values)

    def _literals(self, node: Node) -> list[np.ndarray] | None:
        """The results, where they are known."""
        kind, shapes = node.op.type, [self.specs[n].shape for n in node.outputs]
        if kind in SHAPES:
            return self._shapes(node)
        if not all(shape.is_fully_defined() for shape in shapes):
            return self._evaluated(node)
        if kind == "ZerosLike" or self._vanishes(node):
            return [self._uniform(0, number) for number in node.outputs]
        if kind == "OnesLike":
            return [self._uniform(1, number) for number in node.outputs]
        arranged = (
            self.literals.get(node.inputs[ARRANGEMENTS[kind]]) if kind in ARRANGEMENTS else None
        )
        if arranged is not None and is_uniform(arranged):
            return [uniform(arranged.flat[0], shapes[0])]
        if max(shape.num_elements() for shape in shapes) > MAX_LITERAL_ENTRIES:
            return None
        return self._evaluated(node)

    def _evaluated(self, node: Node) -> list[np.ndarray] | None:
        if not self.literals.keys() >= set(node.inputs):
            return None
        if any(self.literals[n].size > MAX_LITERAL_ENTRIES for n in node.inputs):
            return None
        with tf.init_scope():
            given = [tf.constant(self.literals[n], self.specs[n].dtype) for n in node.inputs]
            return [literal(tensor.numpy()) for tensor in apply(node, given)]

    def _shapes(self, node: Node) -> list[np.ndarray] | None:
        shapes = [self.specs[number].shape for number in node.inputs]
        if not all(shape.is_fully_defined() for shape in shapes):
            return None
        measured = {
            "Rank": [shape.rank for shape in shapes],
            "Size": [shape.num_elements() for shape in shapes],
        }.get(node.op.type, [shape.as_list() for shape in shapes])
        kinds = [self.specs[number].dtype.as_numpy_dtype for number in node.outputs]
        return [np.array(value, kind) for value, kind in zip(measured, kinds, strict=True)]

    def _infer(self, node: Node) -> None:
        """Infer the shapes of the results anew: constants may determine them by now."""
        inputs = [(self.specs[n], self.literals.get(n)) for n in node.inputs]
        known = tuple((spec.dtype, _key(spec.shape, array)) for spec, array in inputs)
        key = node.op.type, attributes(node.op), node.dtype, known
        if key not in self._inferred:
            with tf.Graph().as_default():
                given = [
                    tf.compat.v1.placeholder(spec.dtype, spec.shape)
                    if array is None
                    else tf.constant(array, spec.dtype)
                    for spec, array in inputs
                ]
                results = apply(node, given)
                self._inferred[key] = [tf.TensorSpec(t.shape, t.dtype) for t in results]
        self.specs.update(zip(node.outputs, self._inferred[key], strict=True))

    def _vanishes(self, node: Node) -> bool:
        """Whether the results are zero because inputs are."""
        kind, inputs = node.op.type, node.inputs
        if kind in VANISHING and not self._may_be_nan(node):
            return any(self._is(inputs[i], 0) for i in VANISHING[kind] if i < len(inputs))
        return kind in JOINTLY and all(self._is(number, 0) for number in inputs[JOINTLY[kind]])

    def _may_be_nan(self, node: Node) -> bool:
        """Whether constants make it 0·∞ or 0/0."""
        known = [self.literals[n] for n in node.inputs if n in self.literals]
        numbers = [a.flat[:1] if is_uniform(a) else a for a in known if a.dtype.kind in "fc"]
        if not all(np.isfinite(array).all() for array in numbers):
            return True
        return node.op.type == "RealDiv" and self._has_zero(node.inputs[1])

    def _has_zero(self, number: int) -> bool:
        array = self.literals.get(number)
        return array is not None and not np.all(array.flat[:1] if is_uniform(array) else array)

    def _without_zeros(self, node: Node) -> Node:
        """A sum without the terms that are zero, but with one term at least."""
        if node.op.type != "AddN":
            return node
        terms = tuple(n for n in node.inputs if not self._is(n, 0))
        return replace(node, inputs=terms or node.inputs[:1])

    def _same_as(self, node: Node) -> int | None:
        """The input that equals the result, None if there is none."""
        kind, shape = node.op.type, self._shape(node.outputs[0])
        same_shape = [n for n in node.inputs if shape is not None and self._shape(n) == shape]
        first, *rest = node.inputs
        if first in same_shape and (
            kind in RESHAPES
            or (kind == "AddN" and not rest)
            or (kind in ("Add", "AddV2", "Sub") and self._is(rest[0], 0))
            or (kind == "Mul" and self._is(rest[0], 1))
            or (kind == "RealDiv" and self._is(rest[0], 1))
            or (kind == "Transpose" and self._is_in_order(rest[0]))
            or (kind in ("Sum", "Mean") and self._shape(rest[0]) == (0,))
        ):
            return first
        if (
            rest
            and rest[0] in same_shape
            and (
                (kind in ("Add", "AddV2") and self._is(first, 0))
                or (kind == "Mul" and self._is(first, 1))
            )
        ):
            return rest[0]
        return None

    def _is_list(self, number: int) -> bool:
        """Whether a value is a list of tensors, as loops stack them."""
        return self.specs[number].dtype == tf.variant

    def _is_in_order(self, number: int) -> bool:
        axes = self.literals.get(number)
        return axes is not None and axes.tolist() == list(range(axes.size))

    def _is(self, number: int, value: float) -> bool:
        return number in self.literals and is_uniform(self.literals[number], value)

    def _uniform(self, value: float, number: int) -> np.ndarray:
        spec = self.specs[number]
        return uniform(np.asarray(value, spec.dtype.as_numpy_dtype), spec.shape)

    def _shape(self, number: int) -> tuple[int, ...] | None:
        shape = self.specs[number].shape
        return tuple(shape) if shape.is_fully_defined() else None


def _key(shape: tf.TensorShape, array: np.ndarray | None) -> tuple[str, bytes | None]:
    """What the shapes of results may depend on: a shape, and the entries of a constant."""
    if array is not None and is_uniform(array):
        array = array.flat[0]
    return str(shape), None if array is None else array.tobytes()

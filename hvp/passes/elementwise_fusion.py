"""Elementwise fusion: fewer operations in the part of a program that is linear in some inputs.

Chains of elementwise products with known tensors, sums of them, and repetitions along axes become
Σ cᵢ ⊙ xᵢ, with one term for each different xᵢ. The coefficients cᵢ are known: they move to the
known part. The derivatives of an activation are a dozen operations before and one afterwards.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import tensorflow as tf

from hvp.autodiff.op_types import DIAGONAL, REPEATS, SUMS
from hvp.autodiff.program import Node, Program, leaves, uniform
from hvp.autodiff.replay import apply
from hvp.autodiff.rewriting import Rewriter

# Σ cᵢ ⊙ xᵢ by the numbers of its xᵢ and cᵢ; None stands for the coefficient one.
Form = dict[int, int | None]


def fuse_elementwise(program: Program, count: int) -> Program:
    """The program, linear in its first `count` inputs, with elementwise operations written as sums.

    Values change by rounding: coefficients are multiplied with each other first.
    """
    fuser = _Fuser(program, count)
    for node in program.nodes:
        fuser.visit(node)
    return fuser.program()


class _Fuser(Rewriter):
    """Visits the nodes of a program in order; `_forms` holds linear values not written yet."""

    def __init__(self, program: Program, count: int):
        super().__init__(program)
        self._forms: dict[int, Form] = {}
        self._made: dict[tuple[Callable[..., tf.Tensor], int, int], int] = {}
        self._scalars: dict[tuple[float, type], int] = {}
        self._linear = program.reach(program.inputs[:count])
        self._uses = Counter(n for node in program.nodes for n in set(node.inputs))
        # Values that must be written: outputs, and inputs of other than elementwise operations.
        self._needed = set(leaves(program.outputs))
        for node in program.nodes:
            if not self._is_elementwise(node):
                self._needed.update(node.inputs)

    def visit(self, node: Node) -> None:
        if not self._is_elementwise(node):
            self.nodes.append(replace(node, inputs=tuple(map(self.resolved, node.inputs))))
            return
        (result,), form = node.outputs, self._form(node)
        if result in self._needed or (len(form) > 1 and self._uses[result] > 1):
            self.replace(result, self._written(form, self.specs[result].shape))
        else:
            self._forms[result] = form

    def _is_elementwise(self, node: Node) -> bool:
        kind, inputs = node.op.type, node.inputs
        linear = [i for i, n in enumerate(inputs) if n in self._linear]
        shapes = [self.specs[n].shape for n in (*inputs, *node.outputs)]
        if not linear or not all(shape.is_fully_defined() for shape in shapes):
            return False
        if self.specs[node.outputs[0]].dtype == tf.variant:
            return False
        if kind in SUMS:
            return len(linear) == len(inputs)
        if kind == "Mul":
            return len(linear) == 1
        if kind in REPEATS:
            return linear == [0] and _broadcasts(shapes[0], shapes[-1])
        return linear == [DIAGONAL.get(kind)] and shapes[linear[0]] == shapes[-1]

    def _form(self, node: Node) -> Form:
        kind, inputs = node.op.type, node.inputs
        if kind in SUMS:
            forms = [self._get(n) for n in inputs]
            if kind == "Sub":
                forms[1] = self._scaled(forms[1], self._scalar(-1, inputs[1]))
            return self._sum(forms)
        if kind in REPEATS:
            return self._get(inputs[0])
        if kind == "Mul":
            linear, known = sorted(inputs, key=lambda n: n not in self._linear)
            return self._scaled(self._get(linear), known)
        return self._scaled(self._get(inputs[DIAGONAL[kind]]), self._coefficient(node))

    def _coefficient(self, node: Node) -> int:
        """The factors of the entries: the operation applied to ones."""
        position = DIAGONAL[node.op.type]
        others = [n for i, n in enumerate(node.inputs) if i != position]
        shape = tf.TensorShape([])
        for number in others:
            shape = tf.broadcast_static_shape(shape, self.specs[number].shape)
        dtype = self.specs[node.inputs[position]].dtype.as_numpy_dtype
        ones = self.literal(uniform(np.ones((), dtype), shape))
        inputs = (*node.inputs[:position], ones, *node.inputs[position + 1 :])
        return self.write(lambda *tensors: apply(node, tensors), *inputs)

    def _get(self, number: int) -> Form:
        return self._forms.get(number, {self.resolved(number): None})

    def _scaled(self, form: Form, factor: int) -> Form:
        return {
            x: factor if c is None else self._make(tf.multiply, c, factor) for x, c in form.items()
        }

    def _sum(self, forms: Iterable[Form]) -> Form:
        total: Form = {}
        for x, c in (term for form in forms for term in form.items()):
            total[x] = self._plus(x, total[x], c) if x in total else c
        return total

    def _plus(self, x: int, first: int | None, second: int | None) -> int:
        one = self._scalar(1, x)
        return self._make(
            tf.add, one if first is None else first, one if second is None else second
        )

    def _written(self, form: Form, shape: tf.TensorShape) -> int:
        """Write a value given by its form."""
        shared: dict[int | None, list[int]] = {}
        for x, c in form.items():
            shared.setdefault(c, []).append(x)
        minus = self._scalar(-1, next(iter(form)))
        subtracted = shared.pop(minus, []) if len(shared) > 1 else []
        terms = []
        for c, xs in shared.items():
            total = self._added(xs)
            terms.append(total if c is None else self._make(tf.multiply, total, c))
        total = self._added(terms)
        if subtracted:
            total = self._make(tf.subtract, total, self._added(subtracted))
        if self.specs[total].shape != shape:
            total = self.write(lambda tensor: tf.broadcast_to(tensor, shape), total)
        return total

    def _added(self, terms: list[int]) -> int:
        """Write the sum of values, those of one shape by one operation."""
        alike: dict[str, list[int]] = {}
        for n in terms:
            alike.setdefault(str(self.specs[n].shape), []).append(n)
        sums = [
            self.write(lambda *tensors: tf.raw_ops.AddN(inputs=tensors), *ns) if ns[1:] else ns[0]
            for ns in alike.values()
        ]
        return functools.reduce(lambda a, b: self._make(tf.add, a, b), sums)

    def _make(self, function: Callable[..., tf.Tensor], first: int, second: int) -> int:
        """Write a function of two values, once for the same two."""
        key = (function, first, second)
        if key not in self._made:
            self._made[key] = self.write(function, first, second)
        return self._made[key]

    def _scalar(self, value: float, like: int) -> int:
        dtype = self.specs[like].dtype.as_numpy_dtype
        if (value, dtype) not in self._scalars:
            self._scalars[value, dtype] = self.literal(np.asarray(value, dtype))
        return self._scalars[value, dtype]


def _broadcasts(source: tf.TensorShape, target: tf.TensorShape) -> bool:
    return len(source) == len(target) and all(
        a in (1, b) for a, b in zip(source, target, strict=True)
    )

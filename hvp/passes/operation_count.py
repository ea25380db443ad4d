"""The matrix products of a program, counted from shapes before it runs.

Convolutions count as the matrix products that they are: a row for each place of the filter, with
the zeros that pad them. Operations entry by entry, sums and moves of entries are not counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from hvp.autodiff.op_types import op_type
from hvp.autodiff.program import Node, Program, leaves
from hvp.autodiff.replay import apply

Shape = tuple[int, ...]
# Loops with more rounds are taken as of unknown length.
MAX_ROUNDS = 100_000
# Which of inputs and result (-1) have the shape of the filter and of the convolution's result.
CONVOLUTIONS = {"": (1, -1), "BackpropInput": (1, 2), "BackpropFilter": (-1, 2)}
# Kind -> how many last axes of its filter are not summed over.
KINDS = {"Conv2D": 1, "Conv3D": 1, "DepthwiseConv2dNative": 2}
TRANSPOSED = {
    "MatMul": ("transpose_a", "transpose_b"),
    "BatchMatMul": ("adj_x", "adj_y"),
    "BatchMatMulV2": ("adj_x", "adj_y"),
    "BatchMatMulV3": ("adj_x", "adj_y"),
}


class MatrixProduct(NamedTuple):
    """A product of matrices (rows, inner) and (inner, columns)."""

    rows: int
    inner: int
    columns: int

    @property
    def multiply_adds(self) -> int:
        return math.prod(self)


# How often each product is made; None where that or its shape is not known.
Counts = Counter[MatrixProduct] | None


def matrix_products(program: Program, *before: Program) -> Counts:
    """The matrix products of a run of the program. Of branches it counts the one with most.

    Programs that run `before` it, on the same numbers, say how long some of its loops are.
    """
    return _counted(program, Constants(*before, program))


def multiply_adds(counts: Counter[MatrixProduct]) -> int:
    """The number of multiply-adds of counted products."""
    return sum(count * product.multiply_adds for product, count in counts.items())


class Constants:
    """The values of programs that do not depend on their inputs, and how long loops are.

    `known` are values of inputs that are known all the same.
    """

    def __init__(self, *programs: Program, known: Mapping[int, tf.Tensor] | None = None):
        self._found: dict[int, tf.Tensor | None] = dict(known or {})
        self._makers: dict[int, Node] = {}
        self._given: dict[int, Program] = {}
        for program in programs:
            self._makers.update((n, node) for node in program.nodes for n in node.outputs)
            self._given.update(dict.fromkeys((*program.captures, *program.literals), program))

    def value(self, number: int) -> tf.Tensor | None:
        """A value, None where an input changes it."""
        if number not in self._found:
            self._found[number] = self._computed(number)
        return self._found[number]

    def rounds(self, node: Node) -> int | None:
        """How often a loop runs its body, None where that depends on inputs."""
        ended = self._ended(node, set())
        return None if ended is None else ended[0]

    def inside(self, node: Node) -> Constants:
        """The constants in the body of a loop: with what it hands on unchanged."""
        body, unchanged = node.bodies[1], dict[int, tf.Tensor]()
        for number, after, outside in zip(body.inputs, body.outputs, node.inputs, strict=True):
            value = self.value(outside) if number == after else None
            if value is not None:
                unchanged[number] = value
        return Constants(body, known=unchanged)

    def _computed(self, number: int) -> tf.Tensor | None:
        if number in self._given:
            return self._given[number].part((), [number]).replay()[0]
        node = self._makers.get(number)
        if node is None:
            return None
        position = node.outputs.index(number)
        if node.bodies:
            ended = self._ended(node, {position}) if node.is_loop else None
            return None if ended is None else ended[1][position]
        arguments = list(map(self.value, node.inputs))
        if any(argument is None for argument in arguments):
            return None
        return apply(node, arguments)[position]

    def _ended(self, node: Node, wanted: set[int]) -> tuple[int, dict[int, tf.Tensor]] | None:
        """The rounds of a loop, and the `wanted` of its results, by position; None if unknown.

        Only what these and its condition depend on is computed, round after round.
        """
        condition, body = node.bodies
        needed = wanted | _used(condition, leaves(condition.outputs))
        while more := _used(body, [body.outputs[i] for i in needed]) - needed:
            needed |= more
        state = {i: self.value(node.inputs[i]) for i in sorted(needed)}
        if any(tensor is None for tensor in state.values()):
            return None
        goes_on = condition.part([condition.inputs[i] for i in state], leaves(condition.outputs))
        step = body.part([body.inputs[i] for i in state], [body.outputs[i] for i in state])
        values = list(state.values())
        for count in range(MAX_ROUNDS):
            if not goes_on.replay(*values)[0]:
                return count, dict(zip(state, values, strict=True))
            values = step.replay(*values)
        return None


def _used(body: Program, outputs: list[int]) -> set[int]:
    """The positions of the inputs that some values of a body depend on."""
    part = body.part(body.inputs, outputs)
    numbers = {n for node in part.nodes for n in node.inputs} | set(outputs)
    return {i for i, number in enumerate(body.inputs) if number in numbers}


def _counted(program: Program, constants: Constants) -> Counts:
    total = Counter[MatrixProduct]()
    for node in program.nodes:
        found = _of_bodies(node, constants) if node.bodies else _of_operation(program, node)
        if found is None:
            return None
        total.update(found)
    return total


def _of_bodies(node: Node, constants: Constants) -> Counts:
    if not node.is_loop:
        each = [_counted(branch, Constants(branch)) for branch in node.bodies]
        known = [counts for counts in each if counts is not None]
        return max(known, key=multiply_adds) if len(known) == len(each) else None
    once = _counted(node.bodies[1], constants.inside(node))
    if not once:
        return once
    count = constants.rounds(node)
    return None if count is None else Counter({key: count * n for key, n in once.items()})


def _of_operation(program: Program, node: Node) -> Counts:
    name = node.op.type
    backprop = name.partition("Backprop")[2].removesuffix("V2")
    kind = name.partition("Backprop")[0]
    if not (name in TRANSPOSED or name == "Einsum" or kind in KINDS):
        is_product = any(word in name for word in ("MatMul", "Conv")) and not op_type(name).is_alias
        return None if is_product else Counter()
    specs = [program.specs[n] for n in (*node.inputs, node.outputs[0])]
    if not all(spec.shape.is_fully_defined() for spec in specs):
        return None
    shapes = [tuple(spec.shape) for spec in specs]
    if kind in KINDS:
        which = CONVOLUTIONS[f"Backprop{backprop}" if backprop else ""]
        kernel, result = (shapes[i] for i in which)
        inner = math.prod(kernel[: len(kernel) - KINDS[kind]])
        columns = kernel[-1]
        return Counter([MatrixProduct(math.prod(result) // columns, inner, columns)])
    if name == "Einsum":
        return _of_einsum(node.op.get_attr("equation").decode(), shapes)
    return _of_matmul(shapes, *(node.op.get_attr(key) for key in TRANSPOSED[name]))


def _of_matmul(shapes: list[Shape], first: bool, second: bool) -> Counts:
    a, b, result = shapes
    product = MatrixProduct(result[-2], a[-2 if first else -1], result[-1])
    assert b[-1 if second else -2] == product.inner
    return Counter({product: math.prod(result[:-2])})


def _of_einsum(equation: str, shapes: list[Shape]) -> Counts:
    terms, output = equation.split("->")
    inputs = terms.split(",")
    if len(inputs) < 2:
        return Counter()
    extents = dict[str | int, int]()
    labels = list[set[str | int]]()
    for term, shape in zip((*inputs, output), shapes, strict=True):
        names = _labels(term, len(shape))
        labels.append(set(names))
        for name, extent in zip(names, shape, strict=True):
            extents[name] = max(extent, extents.get(name, 1))
    first, second, kept = labels

    def size(names: set[str | int]) -> int:
        return math.prod(extents[name] for name in names)

    product = MatrixProduct(
        size(first & kept - second), size((first | second) - kept), size(second & kept - first)
    )
    return Counter({product: size(first & second & kept)})


def _labels(term: str, rank: int) -> list[str | int]:
    """The names of the axes; those that dots stand for are numbered from the last."""
    before, dots, after = term.strip().partition("...")
    count = rank - len(before) - len(after) if dots else 0
    return [*before, *range(-count, 0), *after]

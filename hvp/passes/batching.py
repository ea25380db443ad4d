"""Batching: a linear program runs on K vectors at once.

Every value that depends on the vectors gets one more axis, of length K. It is the last one in the
tangents of the parameters, as a block (P, K) lies in memory. Products with known matrices and
filters merge this axis with one of their own, so that K small products become one large one. The
axis is moved only where it must be. An operation without a rule here runs once for each column.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from hvp.autodiff.program import Node, Program, leaves
from hvp.autodiff.replay import apply


class Merge(NamedTuple):
    """Which axis of the linear operand, and which of the result, K may be merged with.

    `sizes` is the position of the operand that holds the shape of the result.
    """

    axis: int
    result_axis: int
    sizes: int | None = None


# By operation and position of its linear operand.
MERGES = {
    "AvgPool": {0: Merge(0, 0)},
    "AvgPoolGrad": {1: Merge(0, 0, sizes=0)},
    "Conv2D": {0: Merge(0, 0), 1: Merge(3, 3)},
    "Conv2DBackpropFilter": {0: Merge(3, 2, sizes=1), 2: Merge(3, 3, sizes=1)},
    "Conv2DBackpropInput": {1: Merge(2, 3, sizes=0), 2: Merge(0, 0, sizes=0)},
}
# With the names of the attributes that transpose their operands.
MATRIX_PRODUCTS = {
    "BatchMatMulV2": ("adj_x", "adj_y"),
    "MatMul": ("transpose_a", "transpose_b"),
}


class Batched:
    """The K values of one number, stacked along any axis asked for."""

    def __init__(self, tensor: tf.Tensor, axis: int):
        self.rank = len(tensor.shape) - 1  # that of the value for one vector
        self.axis = axis
        self._versions = {axis: tensor}

    @property
    def axes(self) -> list[int]:
        """The axes along which they are stacked already, the original one first."""
        return list(self._versions)

    @property
    def size(self) -> int:
        return self.at(self.axis).shape.num_elements()

    def at(self, axis: int) -> tf.Tensor:
        """The tensor with the K values along this axis."""
        if axis not in self._versions:
            self._versions[axis] = self._transposed(axis)
        return self._versions[axis]

    def _transposed(self, axis: int) -> tf.Tensor:
        tensor = self._versions[self.axis]
        order = [i for i in range(self.rank + 1) if i != self.axis]
        order.insert(axis, self.axis)
        low, high = sorted((axis, self.axis))
        shape = [tensor.shape[i] for i in order]
        passed = math.prod(n for i, n in enumerate(shape[low : high + 1], low) if i != axis)
        return tf.reshape(tensor, shape) if passed == 1 else tf.transpose(tensor, order)


Argument: TypeAlias = "tf.Tensor | Batched"


def replay(
    program: Program, tangents: Sequence[tf.Tensor], known: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """The outputs (…, K) for first inputs (…, K), in which the program is linear, and others."""
    runner = _Runner(program, int(tangents[0].shape[-1]))
    values: dict[int, Argument] = dict(program.given([*tangents, *known]))
    for number, tensor in zip(program.inputs, tangents, strict=False):
        values[number] = Batched(tensor, len(tensor.shape) - 1)
    for node in program.nodes:
        results = runner.run(node, [values[number] for number in node.inputs])
        values.update(zip(node.outputs, results, strict=True))
    return [runner.last(values[number]) for number in leaves(program.outputs)]


def num_operations(program: Program, count: int) -> int:
    """About how many operations `replay` makes for `count` columns."""
    return sum(1 if node.op.type in RULES else count for node in program.nodes)


class _Runner:
    def __init__(self, program: Program, count: int):
        self.count = count
        self._program = program

    def run(self, node: Node, arguments: list[Argument]) -> list[Batched]:
        """The results of an operation that depends on the vectors."""
        rule = RULES.get(node.op.type)
        result = None if rule is None else rule(self, node, arguments)
        return self._one_by_one(node, arguments) if result is None else [result]

    def last(self, value: Argument) -> tf.Tensor:
        if isinstance(value, Batched):
            return value.at(value.rank)
        return tf.broadcast_to(value[..., None], [*value.shape, self.count])

    def shape(self, number: int) -> list[int]:
        """That of a value for one vector."""
        return self._program.specs[number].shape.as_list()

    def literal(self, number: int) -> np.ndarray | None:
        return self._program.literals.get(number)

    def _one_by_one(self, node: Node, arguments: list[Argument]) -> list[Batched]:
        first = [a.at(0) if isinstance(a, Batched) else a for a in arguments]
        each = [
            apply(
                node,
                [
                    tensor[k] if isinstance(a, Batched) else tensor
                    for tensor, a in zip(first, arguments, strict=True)
                ],
            )
            for k in range(self.count)
        ]
        return [Batched(tf.stack(results), 0) for results in zip(*each, strict=True)]


Rule = Callable[[_Runner, Node, list[Argument]], "Batched | None"]


def _product(runner: _Runner, node: Node, arguments: list[Argument]) -> Batched | None:
    """A product of a linear and a known operand: K merges with an axis that is not summed."""
    positions = [i for i, a in enumerate(arguments) if isinstance(a, Batched)]
    if len(positions) > 1:
        return None
    (position,) = positions
    value, shape = arguments[position], runner.shape(node.inputs[position])
    result = runner.shape(node.outputs[0])
    if node.op.type in MATRIX_PRODUCTS:
        merge = _matrix_merge(node, position, shape, result)
    else:
        merge = _channel_merge(runner, node, position)
    if merge is None:
        return None
    assert isinstance(value, Batched)
    axis, result_axis, sizes = merge
    offset = _side(value, merge, shape, result)
    operands = list(arguments)
    operands[position] = tf.reshape(value.at(axis + offset), _merged(shape, axis, runner.count))
    if sizes is not None:
        operands[sizes] = tf.constant(_merged(result, result_axis, runner.count), tf.int32)
    (tensor,) = apply(node, operands)
    result.insert(result_axis + offset, runner.count)
    return Batched(tf.reshape(tensor, result), result_axis + offset)


def _side(value: Batched, merge: Merge, shape: list[int], result: list[int]) -> int:
    """Whether K is the axis after the merged one (1) or before it (0)."""
    found = [side for side in (1, 0) if merge.axis + side in value.axes]
    if found == [0] and math.prod(result) > math.prod(shape):
        # In the end the vectors are wanted last, and to move the operand is cheaper.
        return 1
    # Rows of matrices are merged with K in most products that follow.
    wanted = len(result) - 1 - merge.result_axis
    return wanted if wanted in (found or (0, 1)) else (found or [1])[0]


def _merged(shape: list[int], axis: int, count: int) -> list[int]:
    return [*shape[:axis], shape[axis] * count, *shape[axis + 1 :]]


def _matrix_merge(node: Node, position: int, shape: list[int], result: list[int]) -> Merge | None:
    # Where a matrix is repeated for each of a batch, there is no axis to merge with.
    if shape[:-2] != result[:-2]:
        return None
    is_transposed = node.op.get_attr(MATRIX_PRODUCTS[node.op.type][position])
    return Merge(len(shape) - 2 + (position != is_transposed), len(result) - 2 + position)


def _channel_merge(runner: _Runner, node: Node, position: int) -> Merge | None:
    if node.op.get_attr("data_format") != b"NHWC" or _is_grouped(runner, node):
        return None
    return MERGES[node.op.type].get(position)


def _is_grouped(runner: _Runner, node: Node) -> bool:
    """Whether a convolution is several side by side, whose channels must not be interleaved."""
    if not node.op.type.startswith("Conv2D"):
        return False
    shapes = {
        "Conv2D": (node.inputs[0], node.inputs[1]),
        "Conv2DBackpropFilter": (node.inputs[0], node.outputs[0]),
        "Conv2DBackpropInput": (node.outputs[0], node.inputs[1]),
    }
    image, filters = (runner.shape(n) for n in shapes[node.op.type])
    return image[3] != filters[2]


def _elementwise(runner: _Runner, node: Node, arguments: list[Argument]) -> Batched:
    columns = [a for a in arguments if isinstance(a, Batched)]
    rank = len(runner.shape(node.outputs[0]))
    trailing = _trailing_axes(columns)

    def aligned(a: Argument) -> tf.Tensor:
        if not isinstance(a, Batched):
            return a if len(a.shape) <= trailing else tf.expand_dims(a, len(a.shape) - trailing)
        if a.rank >= trailing:
            return a.at(a.rank - trailing)
        first = a.at(0)
        return tf.reshape(first, [runner.count, *[1] * (trailing - a.rank), *first.shape[1:]])

    operands = [aligned(a) for a in arguments]
    if node.op.type == "AddN" and len(columns) < len(arguments):
        # A zero that was not known to be one broadcasts.
        tensor = functools.reduce(tf.add, operands)
    else:
        (tensor,) = apply(node, operands)
    return Batched(tensor, rank - trailing)


def _trailing_axes(columns: list[Batched]) -> int:
    """The number of axes after K with which the fewest entries are moved."""

    def entries_moved(trailing: int) -> int:
        return sum(a.size for a in columns if a.rank - trailing not in a.axes)

    counts = sorted({a.rank - axis for a in columns for axis in a.axes}, key=lambda n: n != 1)
    return min(counts, key=entries_moved)


def _reshape(runner: _Runner, node: Node, arguments: list[Argument]) -> Batched | None:
    value = arguments[0]
    if not isinstance(value, Batched):
        return None
    before, after = runner.shape(node.inputs[0]), runner.shape(node.outputs[0])
    for axis in value.axes:
        leading = math.prod(before[:axis])
        places = [i for i in range(len(after) + 1) if math.prod(after[:i]) == leading]
        if places:
            break
    else:
        axis, places = 0, [0]
    place = places[-1]
    shape = [*after[:place], runner.count, *after[place:]]
    return Batched(tf.reshape(value.at(axis), shape), place)


def _broadcast(runner: _Runner, node: Node, arguments: list[Argument]) -> Batched | None:
    value, shape = arguments[0], runner.shape(node.outputs[0])
    if not isinstance(value, Batched):
        return None
    new = len(shape) - value.rank
    tensor = value.at(value.axis)
    axis = new + value.axis
    tensor = tf.reshape(tensor, [*[1] * new, *tensor.shape])
    return Batched(tf.broadcast_to(tensor, [*shape[:axis], runner.count, *shape[axis:]]), axis)


def _sum(runner: _Runner, node: Node, arguments: list[Argument]) -> Batched | None:
    value, axes = arguments[0], runner.literal(node.inputs[1])
    if not isinstance(value, Batched) or axes is None:
        return None
    return _summed(value, axes.reshape(-1).tolist(), keepdims=node.op.get_attr("keep_dims"))


def _summed(value: Batched, axes: list[int], *, keepdims: bool) -> Batched:
    axes = [axis % value.rank for axis in axes]
    before = 0 if keepdims else sum(axis < value.axis for axis in axes)
    shifted = [axis + (axis >= value.axis) for axis in axes]
    return Batched(
        tf.reduce_sum(value.at(value.axis), shifted, keepdims=keepdims), value.axis - before
    )


def _transpose(runner: _Runner, node: Node, arguments: list[Argument]) -> Batched | None:
    value, axes = arguments[0], runner.literal(node.inputs[1])
    if not isinstance(value, Batched) or axes is None:
        return None
    order = [int(axis) + (axis >= value.axis) for axis in axes]
    # Beside the axis it stood beside, so that one more move is seldom needed.
    place = (
        len(order)
        if value.axis == value.rank
        else order.index(value.axis + 1 if value.axis < value.rank else value.axis - 1)
    )
    order.insert(place, value.axis)
    return Batched(tf.transpose(value.at(value.axis), order), place)


RULES: dict[str, Rule] = {
    **dict.fromkeys((*MATRIX_PRODUCTS, *MERGES), _product),
    **dict.fromkeys(
        ("Add", "AddN", "AddV2", "Cast", "Mul", "MulNoNan", "Neg", "RealDiv", "SelectV2", "Sub"),
        _elementwise,
    ),
    **dict.fromkeys(("ExpandDims", "Reshape", "Squeeze"), _reshape),
    "BroadcastTo": _broadcast,
    "Sum": _sum,
    "Transpose": _transpose,
}

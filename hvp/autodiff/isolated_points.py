"""Points at which a program takes another piece of itself than all around, found from the data.

where(x = 0, 1, sin(x)/x) is smooth, but at x = 0 its derivatives are those of the constant 1.
The same is true of divide_no_nan(x³, x), which is a constant at x = 0, of sign(x) log(1 + |x|), and
of kinks that cancel, as in max(x, y) + min(x, y) at x = y. So the pieces that are differentiated
are compared with the loss itself, at parameters on both sides: to second order they must agree. A
kink that does not cancel is none of this: there a product is one-sided.

No piece matters that is taken on an open set, as where(relu(x) = 0, …) of a dead unit, or that
depends on data alone.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from hvp.autodiff.kinks import ORDERS, Kinks
from hvp.autodiff.program import Node, Program, leaves
from hvp.autodiff.replay import apply
from hvp.errors import InputError

Tensors = Sequence[tf.Tensor]
# (step, number of a direction) -> the loss, and that of the pieces
Losses = Callable[[float, int], tuple[float, float]]
# Directions along which the loss and its pieces are compared.
NUM_DIRECTIONS = 3
# Steps along each, of which three in a row show how the difference grows.
NUM_STEPS = 5
# A branch that is taken where a size is below this number is one for a point.
MAX_RADIUS = 1e-3
# Inputs of operations that take another piece where all of these inputs are zero.
ZEROS = {"Abs": (0,), "DivNoNan": (1,), "Relu": (0,), "Sign": (0,), "Xdivy": (0, 1)}
# The result of a test of floating-point numbers that is taken for one at a point.
TESTS = {"IsFinite": False, "IsInf": True, "IsNan": True}
# Alone they are no kinks but other pieces.
POINTS = {"DivNoNan", "Equal", "NotEqual", "Sign", "Xdivy", *TESTS}
REDUCTIONS = {"Cast", "ExpandDims", "Max", "Mean", "Reshape", "Sqrt", "Squeeze", "Sum"}
SIZES = {"Abs", "EuclideanNorm", "Square", "SquaredDifference"}


class Difference(enum.Enum):
    """How a loss differs from its pieces around a point: not to second order, or how."""

    NONE = enum.auto()
    KINK = enum.auto()
    SMOOTH = enum.auto()


@dataclass(frozen=True)
class Family:
    """Operations that take other pieces at the same points: those where two values are equal."""

    nodes: tuple[Node, ...]

    @property
    def node(self) -> Node:
        """The operation by which it is named: one that takes the piece at a point alone."""
        return next((n for n in self.nodes if n.op.type in POINTS), self.nodes[0])

    @property
    def remedy(self) -> str:
        kind = self.node.op.type
        if kind == "Sign":
            return "write sign(x) f(|x|) as tf.where(x >= 0, f(x), -f(-x))"
        is_point = kind in POINTS or (len(self.nodes) == 1 and kind != "Abs")
        return _REMEDY if is_point else _REMEDY_OF_KINKS


def families(program: Program, sources: Collection[int]) -> list[Family]:
    """Those whose pieces may differ from the loss: of all of them, or of several together."""
    finder = _Finder(program)
    reached = program.reach(sources)
    found: dict[tuple[object, ...], list[Node]] = {}
    for node in program.nodes:
        key = finder.key(node) if reached & set(_compared(node)) else None
        if key is not None:
            found.setdefault(key, []).append(node)
    checked = [
        Family(tuple(nodes))
        for nodes in found.values()
        if len({finder.first(n.outputs[0]) for n in nodes}) > 1 or finder.is_checked_alone(nodes[0])
    ]
    # |x| < 1e-9 is a point by its comparison rather than by its size: the first found is named.
    return sorted(checked, key=lambda family: family.node.op.type == "Abs")


def _compared(node: Node) -> list[int]:
    """The values by which an operation chooses its piece."""
    return [node.inputs[i] for i in ZEROS.get(node.op.type, range(len(node.inputs)))]


class _Finder(Kinks):
    """Finds by which values operations choose their pieces."""

    def key(self, node: Node) -> tuple[object, ...] | None:
        """Equal for operations of one family, None for all that are in none."""
        specs = [self.specs[n] for n in (*node.inputs, *node.outputs)]
        if not all(spec.shape.is_fully_defined() for spec in specs):
            return None
        kind = node.op.type
        if kind in TESTS or kind == "Xdivy":
            return kind, *map(self.first, node.inputs)
        if kind == "DivNoNan":
            return self.sides(node.inputs[1])[0]
        return self.pair(node)

    def is_checked_alone(self, node: Node) -> bool:
        """Whether its pieces may differ from a smooth loss: |x| may be squared later."""
        return node.op.type in {*POINTS, "Abs"} or self.is_thin(node)

    def is_thin(self, node: Node) -> bool:
        """Whether it compares a size |x| with a small number."""
        if node.op.type not in ORDERS:
            return False
        numbers = [abs(c) for c in map(self.number_in, node.inputs) if c is not None]
        return any(c < MAX_RADIUS for c in numbers) and any(map(self._is_size, node.inputs))

    def _is_size(self, number: int) -> bool:
        maker = self.makers.get(number)
        while maker is not None and maker.op.type in REDUCTIONS:
            maker = self.makers.get(maker.inputs[0])
        if maker is None:
            return False
        if maker.op.type == "Pow":
            return (self.number_in(maker.inputs[1]) or 1) % 2 == 0
        inputs = {self.first(n) for n in maker.inputs}
        return maker.op.type in SIZES or (maker.op.type == "Mul" and len(inputs) == 1)


class Pieces:
    """The loss of a program with the pieces that it takes at its parameters, and as it is.

    Args:
        program: the loss.
        found: the families of its operations.
        params: the positions of its parameters among its inputs.
        nearby: a step at which values that are not constant have changed.
    """

    def __init__(
        self, program: Program, found: Sequence[Family], params: Collection[int], nearby: float
    ):
        self._program, self._params, self._nearby = program, tuple(params), nearby
        self._family = {
            node.outputs[0]: (i, node) for i, each in enumerate(found) for node in each.nodes
        }
        self._numbers = {n for _, node in self._family.values() for n in node.inputs}
        self._numbers |= set(self._family)
        self._count = len(found)
        finder = _Finder(program)
        self._thin = {n for n, (_, node) in self._family.items() if finder.is_thin(node)}

    def counts(self, inputs: Tensors) -> tf.Tensor:
        """For each family the number of entries at which a piece is taken at this point alone."""
        _, masks = self._masks(inputs)
        counts = [tf.zeros([], tf.int32) for _ in range(self._count)]
        for number, (i, _) in self._family.items():
            counts[i] += tf.reduce_sum(tf.cast(masks[number], tf.int32))
        return tf.stack(counts)

    def losses(
        self, step: tf.Tensor, direction: tf.Tensor, kept: tf.Tensor, inputs: Tensors
    ) -> tf.Tensor:
        """The loss a step away, as it is and with the pieces of families that are kept."""
        at, masks = self._masks(inputs)
        moved = self._moved(inputs, step, direction)

        def run(node: Node, arguments: Tensors) -> list[tf.Tensor]:
            results = apply(node, arguments)
            number = node.outputs[0] if node.outputs else None
            if number not in self._family:
                return results
            i, _ = self._family[number]
            piece = _piece(node, arguments, at[number])
            return [tf.where(masks[number] & kept[i], piece, results[0])]

        whole = self._program.replay(*moved)
        values = self._program.values(moved, run)
        pieces = [values[n] for n in leaves(self._program.outputs)]
        return tf.stack([tf.cast(tf.add_n(each), tf.float64) for each in (whole, pieces)])

    def _masks(self, inputs: Tensors) -> tuple[Mapping[int, tf.Tensor], dict[int, tf.Tensor]]:
        """The values at a point, and where a piece is taken there and not on both sides."""
        part = self._program.part(self._program.inputs, sorted(self._numbers))
        at = part.values(inputs)
        sides = [
            part.values(self._moved(inputs, tf.constant(s * self._nearby))) for s in (1.0, -1.0)
        ]
        return at, {
            number: self._is_tied(node, at)
            & ~self._is_tied(node, sides[0])
            & ~self._is_tied(node, sides[1])
            for number, (_, node) in self._family.items()
        }

    def _is_tied(self, node: Node, values: Mapping[int, tf.Tensor]) -> tf.Tensor:
        kind, result = node.op.type, values[node.outputs[0]]
        compared = _compared(node)
        if kind in TESTS:
            return tf.equal(result, TESTS[kind])
        if node.outputs[0] in self._thin:
            compared = [n for n in compared if n not in self._program.literals]
        if kind in ZEROS or node.outputs[0] in self._thin:
            zeros = [tf.equal(values[n], 0) for n in compared]
            tied = functools.reduce(tf.logical_and, zeros)
        else:
            tied = tf.equal(*(values[n] for n in compared))
        return tf.broadcast_to(tied, result.shape)

    def _moved(
        self, inputs: Tensors, step: tf.Tensor, direction: tf.Tensor | float = 0.0
    ) -> list[tf.Tensor]:
        """The inputs, with the parameters moved by a step relative to their sizes."""
        moved = list(inputs)
        for position in self._params:
            x = inputs[position]
            size = tf.sqrt(tf.reduce_mean(tf.square(x)))
            size = tf.where(size > 0, size, tf.ones_like(size))
            angles = (tf.range(tf.cast(tf.size(x), tf.float32)) + position + 1) * (direction + 1.3)
            numbers = tf.sign(tf.sin(angles)) + tf.cos(1.7 * angles) / 2
            change = tf.cast(tf.reshape(numbers, tf.shape(x)), x.dtype)
            moved[position] = x + tf.cast(step, x.dtype) * size * change
        return moved


def _piece(node: Node, inputs: Tensors, at: tf.Tensor) -> tf.Tensor:
    """What TensorFlow differentiates where the compared values are equal."""
    if node.op.type in ("Maximum", "Minimum", "Xdivy"):
        return tf.broadcast_to(inputs[0], at.shape)
    return at


def require_no_point(family: Family, losses: Losses, epsilon: float, where: str) -> None:
    """Raise InputError where pieces are not the loss around a point, in the batch `where`.

    Args:
        family: the operations that take the pieces.
        losses: of a step and the number of a direction, the loss there as it is, and with the
            pieces.
        epsilon: that of the precision of the loss.
    """
    found = [_difference(losses, direction, epsilon) for direction in range(NUM_DIRECTIONS)]
    if Difference.KINK not in found and Difference.SMOOTH in found:
        raise InputError(
            "operations whose derivatives at this point are those of the loss around it",
            f"{family.node}, which takes another piece at this point alone, in {where}",
            family.remedy,
        )


def _difference(losses: Losses, direction: int, epsilon: float) -> Difference:
    """How the loss and its pieces differ along a direction, as powers of the step."""
    # The first step is far above rounding; for fast functions smaller ones have its order.
    steps = 2 * epsilon ** (1 / 6) * 2.0 ** -np.arange(NUM_STEPS)
    sides = np.array([[losses(s * h, direction) for s in (1, -1)] for h in steps])
    if (np.isnan(sides[..., 0]) & np.isfinite(sides[..., 1])).any():
        return Difference.SMOOTH  # the loss ends at this point
    floor = epsilon**0.75 * np.abs(sides[..., 1]).max()
    with np.errstate(invalid="ignore"):  # what is infinite is refused with the products
        above, below = (sides[..., 0] - sides[..., 1]).T
        even, odd = np.abs(above + below) / 2, np.abs(above - below) / 2
    for i in range(NUM_STEPS - 2):
        part = slice(i, i + 3)
        if even[i + 1] > max(floor, 0.1 * odd[i + 1]) and _grows(even[part], 1):
            return Difference.KINK
        is_first = odd[i + 1] > floor and _grows(odd[part], 1)
        if is_first or (even[i + 1] > floor and _grows(even[part], 2)):
            return Difference.SMOOTH
    return Difference.NONE


def near_step(epsilon: float) -> float:
    """A step at which a value that is not constant has changed."""
    return float(epsilon**0.5)


def _grows(differences: np.ndarray, order: int) -> bool:
    """Whether differences at halved steps are as this power of the step."""
    with np.errstate(divide="ignore", invalid="ignore"):
        orders = np.log2(differences[:-1] / differences[1:])
    return bool(np.all(np.abs(orders - order) < 0.5))


_REMEDY = (
    "write its Taylor polynomial there and around: tf.where(tf.abs(x) < 1e-2, polynomial in x, "
    "quotient), with a denominator that is one where |x| < 1e-2"
)
_REMEDY_OF_KINKS = (
    "write the function without |x|, max or min where it is smooth, as tf.math.sigmoid(x), "
    "tf.math.softplus(x), or x + y for max(x, y) + min(x, y)"
)

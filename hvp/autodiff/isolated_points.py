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

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from hvp.autodiff.extremes import NUM_REACHING, TAKEN
from hvp.autodiff.kinks import COMPARISONS, KINKS, ORDERS, Kinks
from hvp.autodiff.op_types import op_type
from hvp.autodiff.piece_differences import Difference, Losses, differences
from hvp.autodiff.pieces import TESTS, Choice
from hvp.autodiff.program import Node, Program
from hvp.errors import Finding, InputError

# Equal for operations that take their pieces at the same points.
Key = tuple[object, ...]
# A branch that is taken where a size is below this number is one for a point.
MAX_RADIUS = 1e-3
# Inputs of operations that take another piece where all of these inputs are zero.
ZEROS = {
    "Abs": (0,),
    "BesselI0e": (0,),
    "BesselI1e": (0,),
    "DivNoNan": (1,),
    "Elu": (0,),
    "LeakyRelu": (0,),
    "Pow": (0, 1),
    "Relu": (0,),
    "Relu6": (0,),
    "Sign": (0,),
    "Xdivy": (0, 1),
    "Xlog1py": (0, 1),  # at (0, -1)
    "Xlogy": (0, 1),
}
# Alone they are no kinks but other pieces.
POINTS = {"DivNoNan", "Equal", "NotEqual", "Pow", "Sign", "Xdivy", "Xlog1py", "Xlogy", *TESTS}
# Functions of |x|, which may be smooth where x is smaller than its changes, as a square is.
SIZED = {"Abs", "BesselI0e", "BesselI1e"}
COMPARED = {*KINKS, *COMPARISONS, *SIZED, "Elu", "LeakyRelu", "Relu6", "Sign"}
# Functions that are zero where x is.
KEEP_ZERO = {"Asinh", "Atan", "Erf", "Expm1", "LeakyRelu", "Log1p", "Sinh", "Softsign", "Tanh"}
REDUCTIONS = {"Cast", "ExpandDims", "Max", "Mean", "Reshape", "Sqrt", "Squeeze", "Sum"}
SIZES = {"Abs", "EuclideanNorm", "Square", "SquaredDifference"}


@dataclass(frozen=True)
class Family:
    """Operations that take other pieces at the same points: those where two values are equal."""

    choices: tuple[Choice, ...]

    @property
    def node(self) -> Node:
        """The operation by which it is named: one that takes the piece at a point alone."""
        nodes = [choice.node for choice in self.choices]
        return next((n for n in nodes if n.op.type in POINTS), nodes[0])

    @property
    def remedy(self) -> str:
        kind = self.node.op.type
        if kind in _REMEDIES:
            return _REMEDIES[kind]
        is_kink = kind in SIZED or kind in TAKEN
        is_point = kind in POINTS or (len(self.choices) == 1 and not is_kink)
        return _REMEDY if is_point else _REMEDY_OF_KINKS


def findings(family: Family, where: str) -> Iterator[Finding]:
    """What products take of extremes of equal entries, where the loss has a kink.

    One is given for each place and operation of the family, in the batch `where`.
    """
    nodes = [choice.node for choice in family.choices]
    for place, kind in dict.fromkeys((n.place, n.op.type) for n in nodes if n.op.type in TAKEN):
        message = (
            f"{kind}: entries that are equal, where the loss has a kink, in {where}: products take "
            f"{TAKEN[kind]}"
        )
        remedy = "move the weights by a little for the derivatives on one side"
        yield Finding("different", place, message, kind, remedy=remedy)


def in_copy(found: Sequence[Family], program: Program, copy: Program) -> list[Family]:
    """The families of a program, in a copy of it in another precision."""
    nodes = dict(_counterparts(program, copy))
    return [Family(tuple(replace(c, node=nodes[c.node]) for c in f.choices)) for f in found]


def _counterparts(program: Program, copy: Program) -> Iterator[tuple[Node, Node]]:
    for node, other in zip(program.nodes, copy.nodes, strict=True):
        yield node, other
        for body, copied in zip(node.bodies, other.bodies, strict=True):
            yield from _counterparts(body, copied)


def families(program: Program, sources: Collection[int]) -> list[Family]:
    """Those whose pieces may differ from the loss: of all of them, or of several together.

    Those in loops and branches are among them.
    """
    found = list(_families(program, program.reach(sources)))
    # |x| < 1e-9 is a point by its comparison rather than by its size: the first found is named.
    return sorted(found, key=lambda family: family.node.op.type == "Abs")


def _families(program: Program, reached: set[int]) -> Iterator[Family]:
    finder, parts = _Finder(program), _Finder(program, follows_parts=True)
    found: dict[Key, list[Choice]] = {}
    joined: dict[Key, list[Choice]] = {}
    for node in program.nodes:
        key = finder.key(node)
        if key is not None:
            choice = finder.choice(node)
            if reached & set(choice.moving):
                found.setdefault(key, []).append(choice)
                joined.setdefault(parts.key(node) or key, []).append(choice)
        for body in node.bodies[1:] if node.is_loop else node.bodies:
            yield from _families(body, node.reached_in(body, reached))
    for choices in found.values():
        nodes = [choice.node for choice in choices]
        is_several = len({finder.first(node.outputs[0]) for node in nodes}) > 1
        if is_several or finder.is_checked_alone(nodes[0]):
            yield Family(tuple(choices))
    for key, choices in joined.items():
        if choices != found.get(key) and (len(choices) > 1 or key in parts.joined):
            yield Family(tuple(choices))


class _Finder(Kinks):
    """Finds by which values operations choose their pieces.

    With `follows_parts`, values that are cut from others, or joined of parts of one, are taken for
    these others: so are w[:2] and the values w and -w in a row. Then `joined` has the keys of the
    latter.
    """

    def __init__(self, program: Program, *, follows_parts: bool = False):
        super().__init__(program)
        self._follows_parts = follows_parts
        self.joined: set[Key] = set()

    def key(self, node: Node) -> Key | None:
        """Equal for operations of one family, None for all that are in none."""
        specs = [self.specs[n] for n in (*node.inputs, *node.outputs)]
        kind = node.op.type
        if "Segment" in kind:  # how many segments there are is known when it runs
            specs.pop()
        if not all(spec.shape.is_fully_defined() for spec in specs):
            return None
        if kind in TESTS or kind in ("Pow", "Xdivy", "Xlog1py", "Xlogy"):
            return kind, *map(self.first, node.inputs)
        if kind in NUM_REACHING:
            is_left = specs[0].dtype.is_floating and not self._is_stopped(node)
            return ("extreme", *self._surface(node.inputs[0], 0.0)) if is_left else None
        if kind == "DivNoNan":
            return self._surface(node.inputs[1], 0.0)
        if kind not in COMPARED or not specs[0].dtype.is_floating:
            return None
        if len(node.inputs) == 1:
            return self._surface(node.inputs[0], 0.0)
        known = [self.number_in(n) for n in node.inputs]
        for number, other in zip(node.inputs, reversed(known), strict=True):
            if other is not None:
                return self._surface(number, other)
        return self.pair(node)

    def choice(self, node: Node) -> Choice:
        kind, numbers = node.op.type, node.inputs
        if kind in ZEROS:
            return Choice(node, tuple(numbers[i] for i in ZEROS[kind]), with_zero=True)
        if self.is_thin(node):
            return Choice(node, tuple(n for n in numbers if n not in self.literals), with_zero=True)
        return Choice(node, tuple(numbers), with_zero=False)

    def _surface(self, x: int, number: float) -> Key:
        """Equal for equations x = number with the same solutions.

        They are followed through what is one-to-one around them: min(x, 9) = 0 is x = 0.
        """
        while (inner := self._inside(x, number)) is not None:
            x, number = inner
        maker = self.makers.get(x)
        if self._follows_parts and maker is not None and maker.op.type in ("ConcatV2", "Pack"):
            joined = maker.inputs[: -1 if maker.op.type == "ConcatV2" else None]
            surfaces = {self._surface(part, number) for part in joined}
            if len(surfaces) == 1:
                self.joined |= surfaces
                return surfaces.pop()
        return self.sides(x)[0] if number == 0 else (self.first(x), number)

    def _inside(self, x: int, number: float) -> tuple[int, float] | None:
        """The equation x = number as one of the input of the operation that makes x."""
        maker = self.makers.get(x)
        if maker is None or not maker.inputs:
            return None
        kind, given = maker.op.type, maker.inputs[0]
        is_same = self._follows_parts or self._num_elements(given) == self._num_elements(x)
        if is_same and (op_type(kind).rearranges == 0 or kind == "Cast"):
            return given, number
        if kind == "Neg":
            return given, -number
        if number == 0 and kind in KEEP_ZERO:
            return given, number
        if (kind == "Relu" and number > 0) or (kind == "Relu6" and 0 < number < 6):
            return given, number
        return self._inside_binary(maker, number) if len(maker.inputs) == 2 else None

    def _inside_binary(self, maker: Node, number: float) -> tuple[int, float] | None:
        """That of an operation on a value and a constant."""
        kind, (x, y) = maker.op.type, maker.inputs
        if kind in ("Add", "AddV2", "Maximum", "Minimum", "Mul") and self.number_in(y) is None:
            x, y = y, x
        constant = self.number_in(y)
        if constant is None or self._num_elements(x) != self._num_elements(maker.outputs[0]):
            return None
        if kind in ("Mul", "RealDiv") and constant:
            return x, number / constant if kind == "Mul" else number * constant
        if kind in ("Add", "AddV2", "Sub"):
            return x, number - constant if kind != "Sub" else number + constant
        is_inside = (kind == "Minimum" and number < constant) or (
            kind == "Maximum" and number > constant
        )
        return (x, number) if is_inside else None

    def _num_elements(self, number: int) -> int | None:
        return self.specs[number].shape.num_elements()

    def is_checked_alone(self, node: Node) -> bool:
        """Whether its pieces may differ from a smooth loss: |x| may be squared later."""
        is_pair = node.op.type in ("Maximum", "Minimum") and not self.literals.keys() & {
            *node.inputs
        }
        return is_pair or node.op.type in {*POINTS, *NUM_REACHING, *SIZED} or self.is_thin(node)

    def _is_stopped(self, node: Node) -> bool:
        """Whether no derivatives flow through it, as through the largest entry in log Σ exp."""
        users = self.users[node.outputs[0]]
        return bool(users) and all(user.op.type == "StopGradient" for user in users)

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


def require_no_point(family: Family, losses: Losses, epsilon: float, where: str) -> bool:
    """Whether pieces that are not the loss around a point are those of a kink.

    Raises InputError where they are not, or where the loss is infinite around the point, in the
    batch `where`.

    Args:
        family: the operations that take the pieces.
        losses: of a step and the number of a direction, the loss there as it is, and with the
            pieces.
        epsilon: that of the precision of the loss.
    """
    found = differences(losses, epsilon)
    if Difference.INFINITE in found:
        raise InputError(
            "a loss that is finite around the parameters",
            f"{family.node}, at which it tends to infinity, in {where}",
            "move the parameters away from this point, or add to the denominator what keeps it "
            "above zero",
        )
    if Difference.KINK not in found and Difference.SMOOTH in found:
        raise InputError(
            "operations whose derivatives at this point are those of the loss around it",
            f"{family.node}, which takes another piece at this point alone, in {where}",
            family.remedy,
        )
    return Difference.KINK in found


_REMEDY = (
    "write its Taylor polynomial there and around: tf.where(tf.abs(x) < 1e-2, polynomial in x, "
    "quotient), with a denominator that is one where |x| < 1e-2"
)
_REMEDIES = {
    "BesselI0e": "write tf.exp(-x) * tf.math.bessel_i0(x), where x is never negative",
    "Pow": "keep an exponent that is a parameter above zero where the base may be zero",
    "Sign": "write sign(x) f(|x|) as tf.where(x >= 0, f(x), -f(-x))",
}
_REMEDY_OF_KINKS = (
    "write the function without |x|, max or min where it is smooth, as tf.math.sigmoid(x), "
    "tf.math.softplus(x), or x + y for max(x, y) + min(x, y)"
)

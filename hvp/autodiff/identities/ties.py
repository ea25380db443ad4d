"""Kinks that cancel: max(x, y) + log(1 + exp(-|x - y|)) is log(eˣ + eʸ), smooth where x = y.

At a tie TensorFlow takes the derivative of `maximum` in its first input, that of `relu` to be zero
and that of `abs` to be zero. Each is a one-sided value or between two of them; together they are
no derivative of the sum. Written by one condition, all of them are one-sided from the same side,
where the function is the smooth one. Inside a branch of where(x ≥ 0, …, …) that condition is used:
|x| is x in the first branch and -x in the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

import tensorflow as tf

from hvp.autodiff.identities.identity import Identity
from hvp.autodiff.kinks import KINKS, ORDERS, Kinks, Pair
from hvp.autodiff.op_types import op_type
from hvp.autodiff.program import Node, Program, leaves

EXPONENTIALS = {"Exp", "Expm1", "Sigmoid", "Softplus", "Tanh"}


class Ties(Kinks, Identity):
    """Writes kinks of one pair by one condition: all that are within branches chosen by it, and
    those beside an exponential of another kink of the pair, or of -|x - y|."""

    kinds = frozenset(KINKS)

    def __init__(self, program: Program):
        super().__init__(program)
        self._outputs = set(leaves(program.outputs))
        self._conditions: dict[tuple[Pair, bool], int] = {}
        kinks: dict[Pair, list[Node]] = defaultdict(list)
        for node in program.nodes:
            if pair := self._kink(node):
                kinks[pair].append(node)
        self._pairs = {pair for pair, nodes in kinks.items() if self._may_cancel(nodes)}

    def rewritten(self, node: Node) -> int | None:
        pair = self._kink(node)
        if pair is None:
            return None
        x = self.compared_with_zero(node)
        if x is None and len(pair) < 2:
            return None
        tests = self._tests(node.outputs[0], self.specs[node.outputs[0]].shape)
        is_above = self._is_above_at_tie(tests, pair)
        if is_above is None and pair in self._pairs:
            is_above = True
        return None if is_above is None else self._piece(node, pair, x, is_above)

    def _piece(self, node: Node, pair: Pair, x: int | None, is_above_at_tie: bool) -> int:
        """The value of a kink by the condition that the first value of its pair is larger."""
        kind, key = node.op.type, (pair, is_above_at_tie)
        if key not in self._conditions:
            test = _is_first if is_above_at_tie else _is_larger
            self._conditions[key] = self.put(node, test, *pair)
        condition = self._conditions[key]
        if x is None:
            first, second = pair if kind == "Maximum" else reversed(pair)
            return self.put(node, tf.where, condition, first, second)
        is_swapped = self.sides(x)[1]

        def piece(condition: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
            other = -x if kind == "Abs" else tf.zeros_like(x)
            above, below = (other, x) if kind == "Minimum" else (x, other)
            return tf.where(condition, *((below, above) if is_swapped else (above, below)))

        return self.put(node, piece, condition, x)

    def _is_above_at_tie(self, tests: Collection[Node | None], pair: Pair) -> bool | None:
        """Whether comparisons of a pair take a tie for its first value being larger."""
        sides = {self._takes_ties_above(test, pair) for test in tests}
        return sides.pop() if len(sides) == 1 else None

    def _takes_ties_above(self, test: Node | None, pair: Pair) -> bool | None:
        if test is None or test.op.type not in ORDERS or self.pair(test) != pair:
            return None
        is_upward = test.op.type.startswith("Greater")
        x = self.compared_with_zero(test)
        if x is None:
            is_upward = is_upward == (self.first(test.inputs[0]) == pair[0])
        else:
            is_upward = (is_upward == (test.inputs[0] == x)) != self.sides(x)[1]
        return is_upward == test.op.type.endswith("Equal")

    def _tests(self, number: int, shape: tf.TensorShape) -> set[Node | None]:
        """What chooses the uses of a value, entry by entry; None for a use that is not chosen."""
        found: set[Node | None] = {None} if number in self._outputs else set()
        for user in self.users[number]:
            shapes = [self.specs[n].shape for n in user.outputs]
            is_choice = user.op.type in ("Select", "SelectV2")
            if shapes != [shape] or not shape.is_fully_defined():
                found.add(None)
            elif is_choice and number != user.inputs[0]:
                is_entrywise = self.specs[user.inputs[0]].shape == shape
                found.add(self.makers.get(user.inputs[0]) if is_entrywise else None)
            elif not is_choice and op_type(user.op.type).is_entrywise:
                found |= self._tests(user.outputs[0], shape)
            else:
                found.add(None)
            if None in found:
                break
        return found

    def _kink(self, node: Node) -> Pair | None:
        return self.pair(node) if node.op.type in KINKS else None

    def _may_cancel(self, nodes: Sequence[Node]) -> bool:
        """Whether one of these kinks is in an exponential, and another one, or itself, is not."""
        inside = {node for node in nodes if any(map(self._is_in_exponential, self._uses(node)))}
        if any(node.op.type == "Abs" for node in inside):
            return any(map(self._is_used_otherwise, nodes))
        inside |= {node for node in nodes if any(map(self._is_exponential, self._uses(node)))}
        return bool(inside) and len({self.first(node.outputs[0]) for node in nodes}) > 1

    def _uses(self, node: Node) -> list[Node]:
        return self.users[node.outputs[0]]

    def _is_in_exponential(self, user: Node) -> bool:
        scales = user.op.type == "Neg" or (
            user.op.type in ("Mul", "RealDiv")
            and any(self.number_in(n) is not None for n in user.inputs)
        )
        return scales and any(map(self._is_exponential, self.users[user.outputs[0]]))

    def _is_exponential(self, node: Node) -> bool:
        """Whether it is an exponential, one of a multiple, or a power of a constant."""
        if node.op.type == "Mul":
            return any(u.op.type in EXPONENTIALS for u in self.users[node.outputs[0]])
        is_power = node.op.type == "Pow" and self.number_in(node.inputs[0]) is not None
        return is_power or node.op.type in EXPONENTIALS

    def _is_used_otherwise(self, node: Node) -> bool:
        """Whether it is another kink than |x - y| in exponentials alone."""
        return node.op.type != "Abs" or not all(map(self._is_in_exponential, self._uses(node)))


def _is_larger(x: tf.Tensor, y: tf.Tensor | float = 0.0) -> tf.Tensor:
    return x > y


def _is_first(x: tf.Tensor, y: tf.Tensor | float = 0.0) -> tf.Tensor:
    return x >= y

"""Kinks that cancel: max(x, y) + log(1 + exp(-|x - y|)) is log(eˣ + eʸ), smooth where x = y.

At a tie TensorFlow takes the derivative of `maximum` in its first input, that of `relu` to be zero
and that of `abs` to be zero. Each is a one-sided value or between two of them; together they are
no derivative of the sum. Written by one condition, all of them are one-sided from the same side,
where the function is the smooth one. Inside a branch of where(x ≥ 0, …, …) that condition is used:
|x| is x in the first branch and -x in the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from hvp.autodiff.identities.identity import Identity
from hvp.autodiff.kinks import KINKS, ORDERS, Kinks, Pair
from hvp.autodiff.op_types import op_type
from hvp.autodiff.program import Node, Program, leaves

EXPONENTIALS = {"Exp", "Expm1", "Sigmoid", "Softplus", "Tanh"}


@dataclass(frozen=True)
class Order:
    """A condition, and whether it is true where the first value of a pair is the larger one."""

    condition: int
    is_upward: bool = True


class Ties(Kinks, Identity):
    """Writes kinks of one pair by one condition: all that are within branches chosen by it, and
    those beside an exponential of another kink of the pair, or of -|x - y|."""

    kinds = frozenset(KINKS)

    def __init__(self, program: Program):
        super().__init__(program)
        self._outputs = set(leaves(program.outputs))
        self._orders: dict[Pair, Order] = {}
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
        order = self._order_of_branches(node, pair)
        if order is None and pair in self._pairs:
            if pair not in self._orders:
                self._orders[pair] = Order(self.put(node, _is_first, *pair))
            order = self._orders[pair]
        return None if order is None else self._piece(node, pair, x, order)

    def _piece(self, node: Node, pair: Pair, x: int | None, order: Order) -> int:
        """The value of a kink by a condition."""
        kind = node.op.type
        if x is None:
            is_first = (kind == "Maximum") == order.is_upward
            first, second = pair if is_first else reversed(pair)
            return self.put(node, tf.where, order.condition, first, second)
        is_above = self.sides(x)[1] != order.is_upward

        def piece(condition: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
            other = -x if kind == "Abs" else tf.zeros_like(x)
            above, below = (other, x) if kind == "Minimum" else (x, other)
            return tf.where(condition, *((above, below) if is_above else (below, above)))

        return self.put(node, piece, order.condition, x)

    def _order_of_branches(self, node: Node, pair: Pair) -> Order | None:
        """The order of the pair by which every use of a value is chosen, as a branch."""
        conditions = self._conditions(node.outputs[0], self.specs[node.outputs[0]].shape)
        if len({self.first(n) for n in conditions}) != 1:
            return None
        condition = conditions.pop()
        test = self.makers.get(condition)
        if test is None or test.op.type not in ORDERS or self.pair(test) != pair:
            return None
        is_greater = test.op.type.startswith("Greater")
        x = self.compared_with_zero(test)
        if x is None:
            return Order(condition, is_greater == (self.first(test.inputs[0]) == pair[0]))
        is_left = test.inputs[0] == x
        return Order(condition, (is_greater == is_left) != self.sides(x)[1])

    def _conditions(self, number: int, shape: tf.TensorShape) -> set[int]:
        """The conditions by which the uses of a value, entry by entry, are chosen; -1 where not."""
        found: set[int] = {-1} if number in self._outputs else set()
        for user in self.users[number]:
            specs = [self.specs[n] for n in user.outputs]
            is_choice = user.op.type in ("Select", "SelectV2")
            if [spec.shape for spec in specs] != [shape] or not shape.is_fully_defined():
                found.add(-1)
            elif is_choice and number != user.inputs[0]:
                condition = self.resolved(user.inputs[0])
                found.add(condition if self.specs[condition].shape == shape else -1)
            elif not is_choice and op_type(user.op.type).is_entrywise:
                found |= self._conditions(user.outputs[0], shape)
            else:
                found.add(-1)
            if -1 in found:
                return {-1}
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


def _is_first(x: tf.Tensor, y: tf.Tensor | float = 0.0) -> tf.Tensor:
    return x >= y

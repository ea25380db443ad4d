"""Kinks that cancel: max(x, y) + log(1 + exp(-|x - y|)) is log(eˣ + eʸ), smooth where x = y.

At a tie TensorFlow takes the derivative of `maximum` in its first input, that of `relu` to be zero
and that of `abs` to be zero. Each is a one-sided value or between two of them; together they are
no derivative of the sum. Written by one condition, all of them are one-sided from the same side,
where the function is the smooth one.
"""

from __future__ import annotations

import tensorflow as tf

from hvp.autodiff.identities.identity import Identity
from hvp.autodiff.kinks import KINKS, Kinks, Pair
from hvp.autodiff.program import Node, Program

EXPONENTIALS = {"Exp", "Expm1", "Sigmoid", "Softplus", "Tanh"}


class Ties(Kinks, Identity):
    """Writes kinks of one pair by one condition, where an exponential of -|x - y| is among them."""

    kinds = frozenset({"Abs"})

    def __init__(self, program: Program):
        super().__init__(program)
        self._conditions: dict[Pair, int] = {}
        kinks = [(node, self._kink(node)) for node in program.nodes]
        # Exponentials of -|x - y|, and the other kinks of each pair.
        self._pairs = {pair for node, pair in kinks if pair and self._is_decaying(node)}
        others = {pair for node, pair in kinks if pair and self._is_used_otherwise(node)}
        self._pairs &= others

    def rewritten(self, node: Node) -> int | None:
        pair = self._kink(node)
        if pair is None or pair not in self._pairs:
            return None
        if pair not in self._conditions:
            self._conditions[pair] = self.put(node, _is_first, *pair)
        condition, kind = self._conditions[pair], node.op.type
        x = self.compared_with_zero(node)
        if x is None and len(pair) < 2:
            return None
        if x is None:
            first, second = pair if kind == "Maximum" else reversed(pair)
            return self.put(node, tf.where, condition, first, second)
        swapped = x is not None and self.sides(x)[1]

        def piece(condition: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
            other = -x if kind == "Abs" else tf.zeros_like(x)
            above, below = (other, x) if kind == "Minimum" else (x, other)
            return tf.where(condition, *((below, above) if swapped else (above, below)))

        return self.put(node, piece, condition, x)

    def _kink(self, node: Node) -> Pair | None:
        return self.pair(node) if node.op.type in KINKS else None

    def _is_decaying(self, node: Node) -> bool:
        """Whether it is |x - y| in an exponential of -c|x - y|."""
        return node.op.type == "Abs" and any(
            map(self._is_in_exponential, self.users[node.outputs[0]])
        )

    def _is_in_exponential(self, user: Node) -> bool:
        scales = user.op.type == "Neg" or (
            user.op.type == "Mul" and any(self.number_in(n) is not None for n in user.inputs)
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
        users = self.users[node.outputs[0]]
        return node.op.type != "Abs" or not all(map(self._is_in_exponential, users))


def _is_first(x: tf.Tensor, y: tf.Tensor | float = 0.0) -> tf.Tensor:
    return x >= y

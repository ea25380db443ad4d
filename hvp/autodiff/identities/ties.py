"""Kinks that cancel: max(x, y) + log(1 + exp(-|x - y|)) is log(eˣ + eʸ), smooth where x = y.

At a tie TensorFlow takes the derivative of `maximum` in its first input, that of `relu` to be zero
and that of `abs` to be zero. Each is a one-sided value or between two of them; together they are
no derivative of the sum. Written by one condition, all of them are one-sided from the same side,
where the function is the smooth one.
"""

from __future__ import annotations

import tensorflow as tf

from hvp.autodiff.identities.identity import Identity
from hvp.autodiff.program import Node, Program

# The values between which a kink lies; that of x alone is at zero.
Pair = tuple[int, ...]
EXPONENTIALS = {"Exp", "Expm1", "Sigmoid", "Softplus", "Tanh"}


class Ties(Identity):
    """Writes kinks of one pair by one condition, where an exponential of -|x - y| is among them."""

    kinds = frozenset({"Abs"})

    def __init__(self, program: Program):
        super().__init__(program)
        self._conditions: dict[Pair, int] = {}
        kinks = [(node, self._pair(node)) for node in program.nodes]
        # Exponentials of -|x - y|, and the other kinks of each pair.
        self._pairs = {pair for node, pair in kinks if pair and self._is_decaying(node)}
        others = {pair for node, pair in kinks if pair and self._is_used_otherwise(node)}
        self._pairs &= others

    def rewritten(self, node: Node) -> int | None:
        pair = self._pair(node)
        if pair is None or pair not in self._pairs:
            return None
        if pair not in self._conditions:
            self._conditions[pair] = self.put(node, _is_first, *pair)
        condition, kind = self._conditions[pair], node.op.type
        if kind == "Abs":
            (x,) = node.inputs
            swapped = len(pair) == 2 and self.first(self.makers[x].inputs[0]) != pair[0]
            return self.put(node, _swapped_sign if swapped else _sign, condition, x)
        if kind == "Relu" or len(pair) == 1:
            kept = kind != "Minimum"
            return self.put(node, _kept if kept else _dropped, condition, pair[0])
        first, second = pair if kind == "Maximum" else reversed(pair)
        return self.put(node, tf.where, condition, first, second)

    def _pair(self, node: Node) -> Pair | None:
        """The values between which the operation has a kink, None for one without a kink."""
        kind = node.op.type
        if kind not in ("Abs", "Maximum", "Minimum", "Relu"):
            return None
        if not self.specs[node.outputs[0]].dtype.is_floating:
            return None
        maker = self.makers.get(node.inputs[0])
        if kind == "Abs" and maker is not None and maker.op.type == "Sub":
            inputs = maker.inputs
        else:
            inputs = node.inputs
        return tuple(sorted({self.first(n) for n in inputs if self.number_in(n) != 0}))

    def _is_decaying(self, node: Node) -> bool:
        """Whether it is |x - y| in an exponential of -c|x - y|."""
        return node.op.type == "Abs" and any(
            map(self._is_in_exponential, self.users[node.outputs[0]])
        )

    def _is_in_exponential(self, user: Node) -> bool:
        scales = user.op.type == "Neg" or (
            user.op.type == "Mul" and any(self.number_in(n) is not None for n in user.inputs)
        )
        return scales and any(u.op.type in EXPONENTIALS for u in self.users[user.outputs[0]])

    def _is_used_otherwise(self, node: Node) -> bool:
        """Whether it is another kink than |x - y| in exponentials alone."""
        users = self.users[node.outputs[0]]
        return node.op.type != "Abs" or not all(map(self._is_in_exponential, users))


def _is_first(x: tf.Tensor, y: tf.Tensor | float = 0.0) -> tf.Tensor:
    return x >= y


def _sign(condition: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.where(condition, x, -x)


def _swapped_sign(condition: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.where(condition, -x, x)


def _kept(condition: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.where(condition, x, tf.zeros_like(x))


def _dropped(condition: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.where(condition, tf.zeros_like(x), x)

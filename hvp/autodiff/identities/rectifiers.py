"""Functions that are singular at zero, of relu(x): where x < 0 their derivatives are zero.

√relu(x) is constant where x < 0, but TensorFlow multiplies the slope of the root at zero, which is
infinite, by that of relu: ∞·0. Here relu(x) is the constant zero where x < 0, chosen and not
multiplied. At x = 0 the factor stays, so that a product there is not finite and is refused.
"""

from __future__ import annotations

import tensorflow as tf

from hvp.autodiff.identities.identity import Identity
from hvp.autodiff.op_types import op_type
from hvp.autodiff.program import Node, Program

# The input at whose zeros the operation or its derivatives are infinite.
SINGULAR_AT_ZERO = {
    "EuclideanNorm": 0,
    "Log": 0,
    "Pow": 0,
    "RealDiv": 1,
    "Reciprocal": 0,
    "Rsqrt": 0,
    "Sqrt": 0,
    "Xdivy": 1,
    "Xlogy": 1,
}
REDUCTIONS = {"Max", "Mean", "Min", "Prod", "Sum"}


class Rectifiers(Identity):
    """Writes the rectifiers whose zeros reach a function that is singular at zero."""

    kinds = frozenset({"Relu", "Relu6"})

    def __init__(self, program: Program):
        super().__init__(program)
        # Values whose zeros make the input of such a function zero.
        self._critical: set[int] = set()
        for node in reversed(program.nodes):
            self._critical.update(self._critical_inputs(node))

    def rewritten(self, node: Node) -> int | None:
        if node.op.type not in self.kinds or node.outputs[0] not in self._critical:
            return None
        return self.put(node, _relu if node.op.type == "Relu" else _relu6, *node.inputs)

    def _critical_inputs(self, node: Node) -> set[int]:
        position = SINGULAR_AT_ZERO.get(node.op.type)
        if node.op.type == "Pow" and _is_whole(self.number_in(node.inputs[1])):
            position = None
        found = set() if position is None else {node.inputs[position]}
        if self._critical.isdisjoint(node.outputs):
            return found
        known = op_type(node.op.type)
        # Zeros that a constant is added to are no zeros.
        is_shifted = known.is_sum and any(self.number_in(n) for n in node.inputs)
        passes = known.is_entrywise or known.rearranges == 0 or node.op.type in REDUCTIONS
        return found | set(node.inputs) if passes and not is_shifted else found


def _is_whole(exponent: float | None) -> bool:
    return exponent is not None and exponent >= 0 and exponent.is_integer()


def _relu(x: tf.Tensor) -> tf.Tensor:
    positive = x * tf.cast(x > 0, x.dtype)
    return tf.where(x < 0, tf.zeros_like(x), positive)


def _relu6(x: tf.Tensor) -> tf.Tensor:
    y = _relu(x)
    return tf.where(y < 6, y, tf.constant(6, x.dtype))

"""Hypotenuses: max(|x|, |y|) √(1 + (min(|x|, |y|) / max(|x|, |y|))²) is √(x² + y²).

So Keras computes them. The maximum and the minimum have kinks where |x| = |y|, and the quotient is
0/0 where both are zero. The root of a sum of squares has no kink, and its square is smooth there;
its numbers overflow above 1e19 in float32.
"""

from __future__ import annotations

import tensorflow as tf

from hvp.autodiff.identities.identity import Identity
from hvp.autodiff.program import Node


class Hypotenuses(Identity):
    """Writes them as roots, whose powers and even functions `roots` writes anew."""

    kinds = frozenset({"DivNoNan"})

    def rewritten(self, node: Node) -> int | None:
        if node.op.type != "Mul":
            return None
        largest, root = (self.makers.get(n) for n in node.inputs)
        if largest is None or root is None or root.op.type != "Sqrt":
            return None
        ratio = self._ratio_under(root)
        if ratio is None or ratio.inputs[1] != node.inputs[0]:
            return None
        least = self.makers.get(ratio.inputs[0])
        sizes = [self.makers.get(n) for n in largest.inputs]
        sides = [maker.inputs[0] for maker in sizes if maker is not None and maker.op.type == "Abs"]
        is_pair = (
            largest.op.type == "Maximum"
            and least is not None
            and least.op.type == "Minimum"
            and set(least.inputs) == set(largest.inputs)
            and len(sides) == 2
        )
        return self.put(node, lambda x, y: tf.sqrt(x * x + y * y), *sides) if is_pair else None

    def without_derivative(self, node: Node) -> str:
        return "Maximum"

    def _ratio_under(self, root: Node) -> Node | None:
        """The quotient q of √(1 + q²)."""
        total = self.makers.get(root.inputs[0])
        if total is None or total.op.type != "AddV2":
            return None
        terms = [n for n in total.inputs if self.number_in(n) != 1]
        square = self.makers.get(terms[0]) if len(terms) == 1 else None
        ratio = None if square is None else self.makers.get(square.inputs[0])
        if square is None or square.op.type != "Square" or ratio is None:
            return None
        return ratio if ratio.op.type == "DivNoNan" else None

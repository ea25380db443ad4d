"""Which two values an operation compares: |x - y|, max(x, y), relu(x - y) and x ≥ y all the same.

What an operation compares with zero is followed through signs, factors and differences.
"""

from __future__ import annotations

from hvp.autodiff.program import Node
from hvp.autodiff.value_numbering import ValueNumbering

# The values between which a kink lies; that of x alone is at zero.
Pair = tuple[int, ...]
KINKS = {"Abs", "Maximum", "Minimum", "Relu"}
ORDERS = {"Greater", "GreaterEqual", "Less", "LessEqual"}
COMPARISONS = {*ORDERS, "Equal", "NotEqual"}


class Kinks(ValueNumbering):
    """Finds what the operations of a program compare."""

    def pair(self, node: Node) -> Pair | None:
        """The values that a kink, a sign or a comparison lies between, None for all others."""
        kinds = {*KINKS, *COMPARISONS, "Sign"}
        if node.op.type not in kinds or not self.specs[node.inputs[0]].dtype.is_floating:
            return None
        x = self.compared_with_zero(node)
        if x is not None:
            return self.sides(x)[0]
        return tuple(sorted({self.first(n) for n in node.inputs}))

    def sides(self, x: int) -> tuple[Pair, bool]:
        """The pair whose difference x is, and whether x is the second less the first.

        The difference may have a factor.
        """
        is_negated = False
        while (inner := self._unscaled(x)) is not None:
            x, is_negative = inner
            is_negated = is_negated != is_negative
        maker = self.makers.get(x)
        if maker is None or maker.op.type != "Sub":
            return (self.first(x),), is_negated
        sides = [self.first(n) for n in maker.inputs]
        pair = tuple(sorted(set(sides)))
        return pair, is_negated != (sides[0] != pair[0])

    def _unscaled(self, x: int) -> tuple[int, bool] | None:
        """The value of which x is a multiple, and whether by a negative number."""
        maker = self.makers.get(x)
        if maker is None or maker.op.type not in ("Mul", "Neg", "RealDiv"):
            return None
        if maker.op.type == "Neg":
            return maker.inputs[0], True
        given = list(maker.inputs)
        if maker.op.type == "Mul" and self.number_in(given[0]) is not None:
            given.reverse()
        factor = self.number_in(given[1])
        if not factor or self.specs[given[0]].shape != self.specs[x].shape:
            return None
        return given[0], factor < 0

    def compared_with_zero(self, node: Node) -> int | None:
        """The input x of |x|, relu(x), max(x, 0) and x > 0, None where two values are compared."""
        others = [n for n in node.inputs if self.number_in(n) != 0]
        return others[0] if len(others) == 1 else None

"""Quotients at a removable zero: where(u = 0, 1, sin(u)/u) is smooth, as keras.ops.sinc is.

At u = 0 TensorFlow differentiates the constant. With q = f/u and f(0) = 0, f′(0) = 1,

    q′ = (f′ - q)/u,  q″ = (f″ - 2q′)/u,

near zero the derivatives of the series Σ aₖ uᵏ, where aₖ = f⁽ᵏ⁺¹⁾(0)/(k + 1)!.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from hvp.autodiff.decompositions.taylor import near_zero, series, taylor
from hvp.autodiff.identities.identity import Identity
from hvp.autodiff.kinks import Kinks, Pair
from hvp.autodiff.program import Node

Function = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Numerator:
    """A function f with its first two derivatives, and the coefficients aₖ of the series of f/u."""

    function: Function
    slope: Function
    curvature: Function
    coefficients: list[float]
    radius: float = 0.5


def _coefficients(sign: int, step: int) -> list[float]:
    """signᵏ/(k step + 1)! for powers uᵏˢᵗᵉᵖ, and zero for those between."""
    return [sign ** (k // step) / math.factorial(k + 1) * (k % step == 0) for k in range(14)]


NUMERATORS = {
    "Expm1": Numerator(tf.math.expm1, tf.exp, tf.exp, _coefficients(1, 1)),
    "Log1p": Numerator(
        tf.math.log1p,
        lambda u: 1 / (1 + u),
        lambda u: -1 / (1 + u) ** 2,
        [(-1) ** k / (k + 1) for k in range(18)],
        radius=0.1,
    ),
    "Sin": Numerator(tf.sin, tf.cos, lambda u: -tf.sin(u), _coefficients(-1, 2)),
    "Sinh": Numerator(tf.sinh, tf.cosh, tf.sinh, _coefficients(1, 2)),
}


class Quotients(Kinks, Identity):
    """Writes where(u = 0, 1, f(u)/u) as one smooth function."""

    kinds = frozenset({"Select", "SelectV2"})

    def rewritten(self, node: Node) -> int | None:
        if not node.outputs or not self.specs[node.outputs[0]].dtype.is_floating:
            return None
        branches = self._branches(node)
        if branches is None:
            return None
        pair, at_zero, elsewhere = branches
        quotient = self.makers.get(elsewhere)
        if self.number_in(at_zero) != 1 or quotient is None or quotient.op.type != "RealDiv":
            return None
        numerator = self.makers.get(quotient.inputs[0])
        if numerator is None or numerator.op.type not in NUMERATORS:
            return None
        u, divisor = (
            self._unmasked(number, pair) for number in (numerator.inputs[0], quotient.inputs[1])
        )
        shapes = {str(self.specs[n].shape) for n in (u, node.inputs[0], node.outputs[0])}
        if self.first(u) != self.first(divisor) or len(shapes) > 1 or self.sides(u)[0] != pair:
            return None
        return self.put(node, lambda u: _quotient(NUMERATORS[numerator.op.type], u), u)

    def _branches(self, node: Node | None) -> tuple[Pair, int, int] | None:
        """The pair that a choice compares, and the branches where it is equal and elsewhere."""
        if node is None or node.op.type not in self.kinds:
            return None
        condition, first, second = node.inputs
        test = self.makers.get(condition)
        pair = None if test is None else self.pair(test)
        if test is None or pair is None or test.op.type not in ("Equal", "NotEqual"):
            return None
        return (pair, first, second) if test.op.type == "Equal" else (pair, second, first)

    def _unmasked(self, number: int, pair: Pair) -> int:
        """The value, without another one that is put in its place where the pair is equal."""
        branches = self._branches(self.makers.get(number))
        return branches[2] if branches is not None and branches[0] == pair else number


def _quotient(numerator: Numerator, u: tf.Tensor) -> tf.Tensor:
    at, radius, a = tf.stop_gradient(u), numerator.radius, numerator.coefficients
    is_near = tf.abs(at) < tf.constant(radius, at.dtype)
    far = tf.where(is_near, tf.ones_like(at), at)
    small = tf.where(is_near, at, tf.zeros_like(at))
    value = near_zero(at, radius, series(small, a), numerator.function(far) / far)
    first = [k * a[k] for k in range(1, len(a))]
    second = [k * first[k] for k in range(1, len(first))]
    slope = near_zero(at, radius, series(small, first), (numerator.slope(far) - value) / far)
    curvature = near_zero(
        at, radius, series(small, second), (numerator.curvature(far) - 2 * slope) / far
    )
    return taylor(u, value, slope, curvature)

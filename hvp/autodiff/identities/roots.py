"""Powers of roots as powers of what is under them: (√s)² is s, |x|² is x², |z|² is re² + im².

√s has no derivative at s = 0. Its whole powers have, and so do those of norms: ‖x‖² is a sum of
squares. Values are followed as monomials v₁^e₁ v₂^e₂ … through products, quotients, powers and
rearrangements. Where a root is multiplied to a whole power, the product is written without it.

An exponent e > 1 that is not whole is written for a sum of squares s alone: ‖x‖³ = s^(3/2). There
the derivatives of s^e at s = 0 are zero up to the second: s has a minimum, (∇s)² ≤ C s, so that
s^(e-2) (∇s)² and s^(e-1) ∇²s tend to zero. They are written as those of a polynomial.

What a root is clipped by is clipped under it: min(√s, c) is √min(s, c²).

An even function of a root is a smooth one of its square: cos ‖x‖ has derivatives at x = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
import tensorflow as tf

from hvp.autodiff.identities.identity import Identity
from hvp.autodiff.op_types import op_type
from hvp.autodiff.program import Node, Program

HALF = Fraction(1, 2)
MAX_DENOMINATOR = 64
Monomial = Mapping[int, Fraction]
# Even functions: the odd function that is the derivative up to the sign, and the sign.
EVEN = {"Cos": (tf.cos, tf.sin, -1.0), "Cosh": (tf.cosh, tf.sinh, 1.0)}
NUM_TERMS = 12


class Roots(Identity):
    """Follows monomials, and writes those in which a root has become a power of at least one."""

    kinds = frozenset({"Abs", "ComplexAbs", "EuclideanNorm", "Pow", "Rsqrt", "Sqrt"})

    def __init__(self, program: Program):
        super().__init__(program)
        self._monomials: dict[int, Monomial] = {}
        # By what is under a root: the operation that takes it.
        self._root_types: dict[int, str] = {}

    def rewritten(self, node: Node) -> int | None:
        (number,) = node.outputs
        if not self.specs[number].dtype.is_floating:
            return None
        if node.op.type in EVEN:
            return self._even(node)
        if node.op.type in ("Select", "SelectV2"):
            return self._safe_root(node)
        monomial = self._product(node)
        if monomial is not None and self._is_smoother(node, monomial):
            return self._written(node, monomial)
        monomial = monomial or self._root(node)
        if monomial is not None:
            self._monomials[number] = monomial
            for v in _under_roots(monomial):
                self._root_types.setdefault(v, self.without_derivative(node))
        return None

    def without_derivative(self, node: Node) -> str:
        roots = [v for n in node.inputs for v in _under_roots(self._monomial(n))]
        return self._root_types.get(roots[0], "Sqrt") if roots else node.op.type

    def _monomial(self, number: int) -> Monomial:
        return self._monomials.get(number, {self.first(number): Fraction(1)})

    def _even(self, node: Node) -> int | None:
        """An even function of a monomial with roots, as a function of its square."""
        monomial = self._monomial(node.inputs[0])
        square = {v: 2 * e for v, e in monomial.items()}
        if not _under_roots(monomial) or any(e.denominator > 1 for e in square.values()):
            return None
        return self._written(node, square, lambda s: _even_function(node.op.type, s))

    def _safe_root(self, node: Node) -> int | None:
        """√s for s = 0 ? 0 : √max(s, tiny), as `tf.norm` has it from TensorFlow 2.22 on.

        The derivatives of a constant at s = 0 would hide that √s has none there.
        """
        condition, zero, root = (self.makers.get(number) for number in node.inputs)
        if condition is None or condition.op.type != "Equal" or root is None:
            return None
        largest = self.makers.get(root.inputs[0]) if root.op.type == "Sqrt" else None
        is_zero = self.number_in(node.inputs[1]) == 0 or (zero and zero.op.type == "ZerosLike")
        if largest is None or largest.op.type != "Maximum" or not is_zero:
            return None
        s, tiny = largest.inputs
        dtype = self.specs[s].dtype.as_numpy_dtype
        is_root = (
            self.first(condition.inputs[0]) == self.first(s)
            and self.number_in(condition.inputs[1]) == 0
            and self.number_in(tiny) == float(np.finfo(dtype).tiny)
        )
        if not is_root:
            return None
        number = self.put(node, tf.sqrt, s)
        self._monomials[number] = {self.first(s): HALF}
        self._root_types.setdefault(self.first(s), "Sqrt")
        return number

    def _root(self, node: Node) -> Monomial | None:
        """The monomial of a norm or an absolute value, or of one rearranged or clipped."""
        kind, x = node.op.type, node.inputs[0] if node.inputs else -1
        if kind in ("Maximum", "Minimum"):
            return self._clipped(node)
        if kind == "Abs":
            return {self.first(self.put(node, lambda x: x * x, x)): HALF}
        if kind == "ComplexAbs":
            square = self.put(node, lambda z: tf.math.real(z) ** 2 + tf.math.imag(z) ** 2, x)
            return {self.first(square): HALF}
        if kind == "EuclideanNorm":
            axes, is_kept = node.inputs[1], node.op.get_attr("keep_dims")
            square = self.put(node, lambda x, axes: _sum_of_squares(x, axes, is_kept), x, axes)
            return {self.first(square): HALF}
        return self._rearranged(node)

    def _product(self, node: Node) -> Monomial | None:
        """The monomial of an operation that multiplies, divides or raises to a power."""
        kind = node.op.type
        exponents = {
            "Sqrt": HALF,
            "Rsqrt": -HALF,
            "Square": Fraction(2),
            "Reciprocal": Fraction(-1),
        }
        if kind == "Pow":
            known = self.number_in(node.inputs[1])
            if known is None or not math.isfinite(known):
                return None
            exponent = Fraction(known).limit_denominator(MAX_DENOMINATOR)
            if float(exponent) != known:
                return None
            return self._raised(node.inputs[0], exponent)
        if kind in exponents:
            return self._raised(node.inputs[0], exponents[kind])
        if kind in ("Mul", "RealDiv"):
            x, y = node.inputs
            right = self._raised(y, Fraction(-1 if kind == "RealDiv" else 1))
            return _times(self._monomial(x), right or self._monomial(y))
        if kind == "Neg":
            minus = self.put(node, lambda x: tf.constant(-1, x.dtype), node.inputs[0])
            return _times(self._monomial(node.inputs[0]), {self.first(minus): Fraction(1)})
        return None

    def _raised(self, number: int, exponent: Fraction) -> Monomial:
        """v^e. (v^a)^b = v^(ab) for v ≥ 0: roots are of such v, other factors are kept whole."""
        monomial = self._monomial(number)
        is_whole = exponent.denominator == 1
        if not is_whole and any(e.denominator == 1 for e in monomial.values()):
            return {self.first(number): exponent}
        return {v: e * exponent for v, e in monomial.items()}

    def _rearranged(self, node: Node) -> Monomial | None:
        """That of a rearrangement of single roots, which is the root of a rearrangement."""
        positions = self._arranged_inputs(node)
        monomials = [self._monomial(node.inputs[i]) for i in positions]
        exponents = {e for m in monomials for e in m.values()}
        if any(len(m) != 1 for m in monomials) or len(exponents) != 1:
            return None
        (exponent,) = exponents
        if exponent.denominator == 1:
            return None
        inputs = list(node.inputs)
        for i, monomial in zip(positions, monomials, strict=True):
            (inputs[i],) = monomial
        if node.op.type == "Cast" or len({self.specs[inputs[i]].dtype for i in positions}) == 1:
            return {self.first(self.put_like(node, *inputs)): exponent}
        return None

    def _clipped(self, node: Node) -> Monomial | None:
        """That of a root and a number: min(√s, c) is √min(s, c²) for c > 0, max(√s, -c) is √s."""
        root, bound = node.inputs
        if self.number_in(bound) is None:
            root, bound = bound, root
        monomial, number = self._monomial(root), self.number_in(bound)
        if number is None or list(monomial.values()) != [HALF]:
            return None
        if number <= 0:
            is_same = self.specs[root].shape == self.specs[node.outputs[0]].shape
            return monomial if node.op.type == "Maximum" and is_same else None
        (under,) = monomial
        square = self.put(node, lambda c: c * c, bound)
        return {self.first(self.put_like(node, under, square)): HALF}

    def _arranged_inputs(self, node: Node) -> range:
        """The inputs of which a result is a rearrangement; none for other operations."""
        known, count = op_type(node.op.type), len(node.inputs)
        if known.rearranges == 0 or node.op.type in ("GatherNd", "GatherV2"):
            return range(1)
        if node.op.type in ("ConcatV2", "Pack"):
            return range(len(known.linear_inputs(count)))
        if node.op.type == "Cast" and self.specs[node.inputs[0]].dtype.is_floating:
            return range(1)
        if node.op.type in ("Max", "Mean", "Min", "Prod", "Sum"):
            before, after = (self.specs[n].shape for n in (node.inputs[0], node.outputs[0]))
            if before.is_fully_defined() and before.num_elements() == after.num_elements():
                return range(1)
        return range(0)

    def _is_smoother(self, node: Node, monomial: Monomial) -> bool:
        """Whether a root has become a power of at least one, all of which can be written."""
        given = [self._monomials[n] for n in node.inputs if n in self._monomials]
        roots = {v for m in given for v in _under_roots(m)}
        if node.op.type == "Pow":
            roots.update(_under_roots(monomial))
        raised = {v: monomial[v] for v in roots if monomial.get(v, 0) >= 1}
        return bool(raised) and all(
            e.denominator == 1 or self._is_sum_of_squares(v) for v, e in raised.items()
        )

    def _is_sum_of_squares(self, number: int) -> bool:
        maker = self.makers.get(number)
        if maker is None:
            return False
        kind, inputs = maker.op.type, maker.inputs
        if kind in ("Square", "SquaredDifference"):
            return True
        if kind == "Mul" and self.first(inputs[0]) == self.first(inputs[1]):
            return True
        if kind in ("Mul", "RealDiv") and (self.number_in(inputs[1]) or 0) > 0:
            return self._is_sum_of_squares(inputs[0])
        if kind == "Pow":
            return self.number_in(inputs[1]) == 2
        if kind in ("Cast", "Mean", "Sum") or op_type(kind).rearranges == 0:
            return self._is_sum_of_squares(inputs[0])
        return kind in ("Add", "AddN", "AddV2") and all(map(self._is_sum_of_squares, inputs))

    def _written(
        self,
        node: Node,
        monomial: Monomial,
        function: Callable[[tf.Tensor], tf.Tensor] = lambda s: s,
    ) -> int:
        """A function of the monomial, itself by default, in the place of the node."""
        factors = [(v, e) for v, e in monomial.items() if e]

        def product(*values: tf.Tensor) -> tf.Tensor:
            (first, *rest) = map(_power, values, (e for _, e in factors))
            for factor in rest:
                first = first * factor
            return function(first)

        dtype = self.specs[node.outputs[0]].dtype
        numbers = [v for v, _ in factors]
        assert all(self.specs[v].dtype == dtype for v in numbers)
        return self.put(node, product, *numbers)


def _sum_of_squares(x: tf.Tensor, axes: tf.Tensor, is_kept: bool) -> tf.Tensor:
    return tf.raw_ops.Sum(input=tf.square(x), axis=axes, keep_dims=is_kept)


def _under_roots(monomial: Monomial) -> list[int]:
    """The values of which it takes roots."""
    return [v for v, e in monomial.items() if e.denominator > 1]


def _times(first: Monomial, second: Monomial) -> Monomial:
    found = {v: first.get(v, Fraction(0)) + second.get(v, Fraction(0)) for v in {**first, **second}}
    return {v: e for v, e in found.items() if e}


def _power(v: tf.Tensor, exponent: Fraction) -> tf.Tensor:
    if exponent.denominator == 1:
        return v if exponent == 1 else tf.pow(v, tf.constant(float(exponent), v.dtype))
    if exponent < 1:
        return tf.pow(v, tf.constant(float(exponent), v.dtype))
    return _power_of_squares(v, float(exponent))


def _power_of_squares(s: tf.Tensor, e: float) -> tf.Tensor:
    """s^e for a sum of squares s and e > 1, as its Taylor polynomial of degree two in s."""
    at = tf.stop_gradient(s)
    change = s - at
    slope, curvature = (
        tf.pow(at, tf.constant(n, s.dtype)) * factor
        for n, factor in ((e - 1, e), (e - 2, e * (e - 1) / 2))
    )
    # The curvature is infinite at zero for e < 2, where the change is zero to first order.
    second = tf.math.multiply_no_nan(tf.math.multiply_no_nan(curvature, change), change)
    return tf.pow(at, tf.constant(e, s.dtype)) + slope * change + second


def _even_function(kind: str, s: tf.Tensor) -> tf.Tensor:
    """cos √s or cosh √s, as its Taylor polynomial of degree two in s.

    Its derivatives are series in s below one: their closed forms cancel there.
    """
    even, odd, sign = EVEN[kind]
    at = tf.stop_gradient(s)
    change, is_near = s - at, at < 1
    r = tf.sqrt(tf.where(is_near, tf.ones_like(at), at))
    small = tf.where(is_near, at, tf.zeros_like(at))
    terms = [sign**n / math.factorial(2 * n) for n in range(NUM_TERMS)]
    first = [n * terms[n] for n in range(1, NUM_TERMS)]
    second = [n * (n - 1) * terms[n] for n in range(2, NUM_TERMS)]
    slope, curvature = (
        tf.where(is_near, _polynomial(series, small), closed)
        for series, closed in (
            (first, sign * odd(r) / (2 * r)),
            (second, sign * (even(r) - odd(r) / r) / (4 * r * r)),
        )
    )
    return even(tf.sqrt(at)) + (slope + curvature / 2 * change) * change


def _polynomial(coefficients: list[float], x: tf.Tensor) -> tf.Tensor:
    return tf.math.polyval([tf.constant(c, x.dtype) for c in reversed(coefficients)], x)

"""Check the products of a model by central differences and by algebraic laws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hvp.certificate.checks import (
    MAX_DIFFERENCE_ERROR,
    Check,
    Product,
    by_differences,
    check_derivatives,
    check_gauss_newton,
    random_direction,
)
from hvp.certificate.differences import relative
from hvp.errors import InputError, NotFiniteError
from hvp.operators import GaussNewton, Hessian, Jacobian, Residual, check_curvature
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of
from hvp.testing import operator_laws

if TYPE_CHECKING:
    from hvp.linearization.linearization import Linearization

# Hv in the precision of the model must have this fraction of the digits of that precision.
FRACTION_OF_DIGITS = 0.5


@dataclass(frozen=True)
class Report:
    """The checks of a linearization or an operator; it prints as one line per check."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)

    def raise_if_failed(self) -> None:
        """Raise AssertionError with a line for each check that failed, if one did."""
        if self.failed:
            title = f"{len(self.failed)} of {len(self.checks)} checks failed"
            raise AssertionError("\n".join([title, *(" ".join(c.row) for c in self.failed)]))

    def __str__(self) -> str:
        return "\n".join(" ".join(row) for row in self.rows())

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Name, error, bound and outcome of each check, as text."""
        return (check.row for check in self.checks)


def check(
    lin: Linearization, *, num_directions: int = 3, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN
) -> Report:
    """Check the products of a linearization by central differences and by algebraic laws.

    In float64, along random directions with a non-zero mean: the gradient against central
    differences of the loss, Hv against those of the gradient, Jv and vᵀGv against those of the
    outputs, forward-over-reverse against reverse-over-reverse, H = G + R, and vᵀGv ≥ 0. In the
    precision of the model: symmetry, linearity, repeatability, the dot test, and the error of Hv
    against float64.

    Returns a `Report` of all checks, also of those that fail. Raises InputError for fewer than one
    direction and for what is no linearization. The cost is about ten gradients and ten products per
    direction.

    >>> import hvp
    >>> from hvp.testing import check, deep_linear
    >>> report = check(deep_linear().lin)
    >>> report.passed
    True
    """
    check_curvature(lin)
    seed = seed_of(seed, rng)
    if num_directions < 1:
        raise InputError("at least one direction", num_directions, "leave it out for three")
    checks = list[Check]()
    try:
        for one in _Checker(lin, num_directions, seed).checks():
            checks.append(one)
    except NotFiniteError as error:
        checks.append(Check("all products are finite", np.inf, 0.0, str(error)))
    return Report(tuple(checks))


class _Checker:
    def __init__(self, lin: Linearization, num_directions: int, seed: int):
        self._lin = lin
        self._seed = seed
        rng = np.random.default_rng(seed)
        self._directions = [random_direction(rng, lin.size) for _ in range(num_directions)]

    def checks(self) -> Iterator[Check]:
        lin = self._lin
        digits = float(np.finfo(lin.dtype).eps) ** FRACTION_OF_DIGITS
        rounding = operator_laws.ROUNDINGS * float(np.finfo(np.float64).eps)
        before = lin.hvp(self._directions[0])
        try:
            exact = lin if lin.dtype == np.float64 else lin.in_float64()
        except InputError as refusal:
            exact = None
            yield Check("central differences", None, MAX_DIFFERENCE_ERROR, str(refusal))
        if exact is not None:
            yield from check_derivatives(exact, self._directions)
            if lin.has_outputs:
                yield self._outputs(exact)
                yield check_gauss_newton(exact, self._directions[0])
                yield self._worst("H = G + R", exact, _sum_error, rounding)
                yield self._positive(exact)
            yield self._other_order(exact, rounding)
            yield self._worst("digits of Hv", exact, self._digits, digits)
        operators: dict[str, Any] = {"H": Hessian(lin)}
        if lin.has_outputs:
            operators |= {"G": GaussNewton(lin), "R": Residual(lin)}
        own = operator_laws.ROUNDINGS * float(np.finfo(lin.dtype).eps)
        for name, operator in operators.items():
            for law in (
                operator_laws.symmetry,
                operator_laws.linearity,
                operator_laws.repeatability,
            ):
                error = law(operator, seed=self._seed, bound=np.inf)
                yield Check(f"{law.__name__} of {name}", error, own)
        if lin.has_outputs:
            error = operator_laws.dot_test(Jacobian(lin), seed=self._seed, bound=np.inf)
            yield Check("dot test of J", error, own)
        after = lin.hvp(self._directions[0])
        yield Check("snapshot: the same product as before", relative(after, before), own)

    def _worst(
        self,
        name: str,
        lin: Linearization,
        error: Callable[[Linearization, np.ndarray], float],
        bound: float,
    ) -> Check:
        """A check of the largest error among all directions."""
        return Check(name, max(error(lin, v) for v in self._directions), bound)

    def _outputs(self, lin: Linearization) -> Check:
        """A check of Jv against central differences of the outputs."""
        outputs = lin.outputs()
        scale = 1e-3 * _norm(outputs)
        product = Product("Jv by differences of the outputs", lin.jvp, lambda v: scale)
        (check,) = by_differences(
            [product], lambda theta: [lin.outputs(theta)], [outputs], lin, self._directions
        )
        return check

    def _digits(self, exact: Linearization, v: np.ndarray) -> float:
        return relative(self._lin.hvp(v), exact.hvp(v))

    def _positive(self, lin: Linearization) -> Check:
        bound = operator_laws.ROUNDINGS * float(np.finfo(lin.dtype).eps)
        name = "G is positive semidefinite"
        if not lin.is_convex:
            return Check(name, None, bound, "the loss is not convex in the outputs")
        lowest = [_relative_form(lin.gnvp(v), v) for v in self._directions]
        return Check(name, max(0.0, -min(lowest)), bound)

    def _other_order(self, lin: Linearization, bound: float) -> Check:
        name = "forward-over-reverse against reverse-over-reverse"
        products = {}
        for order in ("forward-over-reverse", "reverse-over-reverse"):
            # One order is already traced: the one that `lin` uses.
            other = lin if _orders(lin) == {order} else lin.forced(ad=order)
            try:
                products[order] = [other.hvp(v) for v in self._directions]
            except InputError as error:
                return Check(name, None, bound, str(error))
            if _orders(other) != {order}:
                return Check(name, None, bound, "loops have only one order")
        errors = [relative(a, b) for a, b in zip(*products.values(), strict=True)]
        return Check(name, max(errors), bound)


def _orders(lin: Linearization) -> set[str]:
    """The orders of differentiation that Hv uses."""
    return {choice.order for choice in lin.choices if choice.product == "H"}


def _sum_error(lin: Linearization, v: np.ndarray) -> float:
    """‖Hv - Gv - Rv‖ relative to the largest of the three products."""
    Hv, Gv, Rv = lin.hvp(v), lin.gnvp(v), lin.residual_vp(v)
    return float(_norm(Hv - Gv - Rv) / max(_norm(Hv), _norm(Gv), _norm(Rv), np.finfo(float).tiny))


def _relative_form(Gv: np.ndarray, v: np.ndarray) -> float:
    """vᵀGv relative to ‖v‖‖Gv‖."""
    size = _norm(v) * _norm(Gv)
    return float(v @ Gv / size) if size > 0 else 0.0


def _norm(v: np.ndarray) -> float:
    return float(np.linalg.norm(v))

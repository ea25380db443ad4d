"""A test of Hv by differences of the gradient, of the gradient by those of the loss, and of G.

It shares no derivative with what it tests: values of the loss at points on a line give the slope of
the gradient along it, and gradients at such points give Hv. Differences of the outputs give u = Jv,
and those of the gradient of the loss in the outputs give Λu: vᵀGv = uᵀΛu.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from hvp.errors import Finding, InputError
from hvp.operators import Curvature

# Bound of the relative error between derivatives and central differences, in float64.
MAX_DIFFERENCE_ERROR = 1e-6
# A step is this many times smaller than the one before.
STEP_RATIO = 8
# The most steps along one direction in `hvp.testing.check`, and along all of a certificate.
NUM_STEPS, NUM_CERTIFICATE_STEPS = 6, 4
# The bound is so many times the disagreement of two steps, if that is more.
SAFETY_FACTOR = 10
# If the best two quotients differ by more, the check is not measured.
MAX_DISAGREEMENT = 1e-3
# Directions of a certificate.
NUM_DIRECTIONS = 2
HV_CHECK = "Hv by differences of the gradient"
GRADIENT_CHECK = "gradient by differences of the loss"
G_CHECK = "vᵀGv by differences of the outputs"

# Parameters (P,) to one or several arrays.
Function = Callable[[np.ndarray], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Check:
    """One check: an error, relative to the size of the product, and its bound.

    `error` is None where it could not be measured, and `note` gives the reason.
    """

    name: str
    error: float | None
    bound: float
    note: str = ""

    @property
    def passed(self) -> bool:
        return self.error is None or self.error <= self.bound

    @property
    def outcome(self) -> str:
        """ "passed", "failed" or "not measured", with the note."""
        if self.error is None:
            return f"not measured: {self.note}"
        return "passed" if self.passed else f"failed {self.note}".strip()

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Name, error, bound and outcome, as text."""
        error = "" if self.error is None else f"{self.error:.1e}"
        return self.name, error, f"{self.bound:.1e}", self.outcome


class CurvatureElsewhere(Curvature, Protocol):
    """A backend that also gives the loss L and ∇L, (P,), at other parameters `theta` (P,)."""

    def loss_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]: ...


class OutputsElsewhere(CurvatureElsewhere, Protocol):
    """A backend that also gives the outputs z, (M,), at other parameters `theta`, (P,).

    `loss_gradients` are those of the loss in the outputs, (M,), and of penalties, (P,).
    """

    @property
    def has_outputs(self) -> bool: ...
    def outputs(self, theta: np.ndarray | None = None) -> np.ndarray: ...
    def loss_gradients(self, z: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, ...]: ...


@dataclass(frozen=True)
class Certificate:
    """What differences say about the products and the gradient of a loss at one point.

    Attributes:
        Hv: Hv against central differences of the gradient.
        gradient: the slope vᵀ∇L against central differences of the loss.
        dtype: the precision in which all were measured.
        num_directions: the number of directions v.
        G: vᵀGv for the first direction against differences; None where there is no G.

    >>> import hvp
    >>> from hvp.certificate import certify
    >>> lin = hvp.linearize_function(lambda w: (w[0] * w[1]) ** 2, np.array([1.0, 2.0]))
    >>> certificate = certify(lin)
    >>> certificate.passed, certificate.dtype
    (True, 'float64')
    """

    Hv: Check
    gradient: Check
    dtype: str
    num_directions: int
    G: Check | None = None

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks that were made, or that could not be measured."""
        return (self.Hv, self.gradient) if self.G is None else (self.Hv, self.gradient, self.G)

    @property
    def passed(self) -> bool:
        """Whether no check failed. One that could not be measured has not failed."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        return "\n".join(" ".join(check.row) for check in self.checks)


def certify(lin: Curvature, *, exact: Curvature | None = None, seed: int = 0) -> Certificate:
    """Test Hv by differences of the gradient, the gradient by those of the loss, and vᵀGv.

    In float64 where every operation of the model has it, else in the precision of the model, where
    the bounds are wider. Where the gradient follows a stop_gradient, so that it is not the
    derivative of the loss by intention, differences measure nothing.

    It makes two products with H and five evaluations of the gradient: at the point, and at two
    points near it for each of two directions. Where kinks are near, or rounding is large, it takes
    smaller steps: nine evaluations at most. For G it makes one product, and evaluates the network
    at four to eight points, without derivatives.

    Args:
        lin: a `Linearization`, or another backend.
        exact: ``lin.in_float64()`` if it is at hand.
        seed: of the two directions.
    """
    if not hasattr(lin, "loss_and_gradient"):
        note = f"{type(lin).__name__} has no loss_and_gradient at other parameters"
        Hv, gradient = (
            Check(name, None, MAX_DIFFERENCE_ERROR, note) for name in (HV_CHECK, GRADIENT_CHECK)
        )
        return Certificate(Hv, gradient, str(lin.dtype), 0)
    if exact is None:
        exact = in_float64(lin)
    rng = np.random.default_rng(seed)
    directions = [random_direction(rng, lin.size) for _ in range(NUM_DIRECTIONS)]
    gradient, Hv = check_derivatives(
        cast(CurvatureElsewhere, exact), directions, NUM_CERTIFICATE_STEPS
    )
    G, with_outputs = None, cast(OutputsElsewhere, exact)
    if hasattr(exact, "loss_gradients") and with_outputs.has_outputs:
        G = check_gauss_newton(with_outputs, directions[0], NUM_CERTIFICATE_STEPS)
        G = _not_measured(G) if G.note else G
    if not gradient.passed and gradient.note:
        Hv, gradient = _not_measured(Hv), _not_measured(gradient)
    return Certificate(Hv, gradient, str(exact.dtype), NUM_DIRECTIONS, G)


def random_direction(rng: np.random.Generator, size: int) -> np.ndarray:
    """(P,) a random direction with a mean that is not zero."""
    return 0.5 + rng.standard_normal(size)


def check_derivatives(
    lin: CurvatureElsewhere, directions: Sequence[np.ndarray], max_steps: int | None = None
) -> tuple[Check, Check]:
    """vᵀ∇L against differences of the loss, and Hv against those of the gradient, for each v.

    `max_steps` is the most steps along all directions together, None for NUM_STEPS along each.
    """
    gradient = lin.gradient().astype(np.float64)
    size = float(np.linalg.norm(gradient))

    def function(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        loss, slope = lin.loss_and_gradient(theta)
        return np.array([loss]), slope

    def typical_slope(v: np.ndarray) -> float:
        """The root mean square of vᵀ∇L over the directions of this length."""
        return size * float(np.linalg.norm(v)) / np.sqrt(lin.size)

    here = np.array([lin.loss()]), gradient
    products = (
        Product(GRADIENT_CHECK, lambda v: np.array([gradient @ v]), typical_slope),
        Product(HV_CHECK, lin.hvp, lambda v: 1e-3 * size),
    )
    checks = by_differences(products, function, here, lin, directions, max_steps)
    of_gradient, of_Hv = (_with_reason(check, lin.findings) for check in checks)
    return of_gradient, of_Hv


def check_gauss_newton(lin: OutputsElsewhere, v: np.ndarray, max_steps: int = NUM_STEPS) -> Check:
    """vᵀGv = uᵀΛu + vᵀ∇²penalty v with u = Jv by differences of the outputs.

    Λu and ∇²penalty v are differences of first derivatives, from `loss_gradients`.
    """
    theta, z = lin.theta.astype(np.float64), lin.outputs().astype(np.float64)
    least = max(MAX_DIFFERENCE_ERROR, float(np.sqrt(np.finfo(lin.dtype).eps)))
    unknown = np.array(np.nan)  # no product: only steps that agree give u
    quotients = _quotients(lambda at: [lin.outputs(at)], [z], theta, v, _steps(lin.dtype, theta))
    scales = [1e-3 * float(np.linalg.norm(z))]
    few = itertools.islice(quotients, max_steps)
    (u,), _ = slopes_along(few, [unknown], scales, least)
    if not np.isfinite(u.disagreement):
        return _check(G_CHECK, np.inf, np.inf, least)

    def gradients(at: np.ndarray) -> list[np.ndarray]:
        """Those of the loss in the outputs and of the penalties, at both."""
        found = lin.loss_gradients(*np.split(at, [len(z)]))
        return [each.astype(np.float64) for each in found]

    def slope(at: np.ndarray) -> list[np.ndarray]:
        return [np.concatenate(gradients(at)) @ along]

    here = np.concatenate([z, theta])
    form = np.array(v @ lin.gnvp(v).astype(np.float64))
    scale = 1e-3 * float(np.linalg.norm(gradients(here)[0]) * np.linalg.norm(u.value))
    along = np.concatenate([u.value, v])
    quotients = _quotients(slope, slope(here), here, along, _steps(lin.dtype, here))
    (curved,), _ = slopes_along(quotients, [form], [scale], least)
    error = relative(form, curved.value, scale)
    check = _check(G_CHECK, error, max(u.disagreement, curved.disagreement), least)
    return _with_reason(check, lin.findings)


@dataclass(frozen=True)
class Product:
    """A product with a direction v that differences test.

    Errors are relative to the size of the differences, and at least to `scale` of the direction.
    """

    name: str
    multiply: Callable[[np.ndarray], np.ndarray]
    scale: Callable[[np.ndarray], float]


def by_differences(
    products: Sequence[Product],
    function: Function,
    here: Sequence[np.ndarray],
    lin: Curvature,
    directions: Sequence[np.ndarray],
    max_steps: int | None = None,
) -> list[Check]:
    """A check of each product with v against central differences of its result of the function.

    `here` are the results at the parameters of `lin`.
    """
    theta = lin.theta.astype(np.float64)
    here = [np.asarray(f, np.float64) for f in here]
    steps, first, left = _steps(lin.dtype, theta), 0, max_steps
    least = max(MAX_DIFFERENCE_ERROR, float(np.sqrt(np.finfo(lin.dtype).eps)))
    errors = np.zeros((len(directions), len(products)))
    disagreements = np.zeros_like(errors)
    for i, v in enumerate(directions):
        # One step at least is left for each later direction.
        count = NUM_STEPS if left is None else left - (len(directions) - 1 - i)
        got = [product.multiply(v) for product in products]
        scales = [product.scale(v) for product in products]
        quotients = _quotients(function, here, theta, v, steps[first : first + count])
        slopes, used = slopes_along(quotients, got, scales, least)
        # The step that was enough along one direction is the first along the next.
        first, left = first + used - 1, None if left is None else left - used
        for j, slope in enumerate(slopes):
            errors[i, j] = relative(got[j], slope.value, scales[j])
            disagreements[i, j] = slope.disagreement
    return [
        _worst(
            [
                _check(product.name, error, disagreement, least)
                for error, disagreement in zip(errors[:, j], disagreements[:, j], strict=True)
            ]
        )
        for j, product in enumerate(products)
    ]


def _worst(checks: Sequence[Check]) -> Check:
    """Of the checks along all directions, one that failed, else one that is not measured."""

    def severity(check: Check) -> tuple[bool, bool, float]:
        return not check.passed, check.error is None, (check.error or 0.0) / check.bound

    return max(checks, key=severity)


def _check(name: str, error: float, disagreement: float, least: float) -> Check:
    """A check from the error along a direction, and the disagreement of its steps."""
    if disagreement > MAX_DISAGREEMENT:
        apart = f"differ by {100 * disagreement:.0f} %" if disagreement < 10 else "do not agree"
        is_float64 = least <= MAX_DIFFERENCE_ERROR
        remedy = "try other parameters, off the kinks" if is_float64 else "float64 rounds less"
        note = f"differences of two step sizes {apart}, from kinks or rounding; {remedy}"
        return Check(name, None, least, note)
    return Check(name, float(error), max(least, SAFETY_FACTOR * float(disagreement)))


@dataclass(frozen=True, eq=False)
class Slope:
    """The derivative of a function along a direction.

    `disagreement` is the relative difference between the quotients of two steps, a bound of its
    error; 0 where one step confirms the product, infinity where the function is not finite.
    """

    value: np.ndarray
    disagreement: float


def slopes_along(
    quotients: Iterator[list[_Quotient]],
    products: Sequence[np.ndarray],
    scales: Sequence[float],
    least: float,
) -> tuple[list[Slope], int]:
    """The derivatives along a direction of each result of a function by central differences.

    A quotient that agrees with its product to `least`, relative to its size or to its scale,
    confirms it. Until all are confirmed the steps become smaller, or until the quotients of two
    steps agree to `least` / SAFETY_FACTOR for each of the others. A quotient is wrong if there is a
    kink within its step, and with the smallest steps rounding dominates: the best two are taken,
    and extrapolated to fourth order. At a kink no two agree. Also returns how many steps were used.

    Source: Richardson's extrapolation of (f(x + h) - f(x - h))/2h = f' + c h² + O(h⁴).
    """
    best, coarse, used = [Slope(np.array(np.nan), np.inf) for _ in scales], None, 0
    for fine in quotients:
        used += 1
        for i, (quotient, product, scale) in enumerate(zip(fine, products, scales, strict=True)):
            if relative(product, quotient.central, scale) <= least:
                best[i] = min(best[i], Slope(quotient.central, 0.0), key=_disagreement)
            elif coarse is not None:
                best[i] = min(best[i], _extrapolated(coarse[i], quotient, scale), key=_disagreement)
        if all(slope.disagreement <= least / SAFETY_FACTOR for slope in best):
            break
        coarse = fine
    return best, used


def _disagreement(slope: Slope) -> float:
    return slope.disagreement


@dataclass(frozen=True, eq=False)
class _Quotient:
    """Differences of f for one step h: (f(h) - f(-h))/2h and (f(h) + f(-h) - 2f(0))/h.

    The second is proportional to h where f is smooth, and stays as it is where f has a kink at 0.
    """

    central: np.ndarray
    second: np.ndarray


def _quotients(
    function: Function,
    here: Sequence[np.ndarray],
    theta: np.ndarray,
    v: np.ndarray,
    steps: Sequence[float],
) -> Iterator[list[_Quotient]]:
    """The quotients of each result of the function, step after step; `here` are those at theta.

    The steps are in units of ‖v‖.
    """
    length = float(np.linalg.norm(v))
    for h in (step / length for step in steps):
        ahead, behind = (_values(function, theta + distance * v) for distance in (h, -h))
        yield [
            _Quotient((plus - minus) / (2 * h), (plus + minus - 2 * f) / h)
            for plus, minus, f in zip(ahead, behind, here, strict=True)
        ]


def _values(function: Function, theta: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(f, np.float64) for f in function(theta)]


def _extrapolated(coarse: _Quotient, fine: _Quotient, scale: float) -> Slope:
    if not all(np.isfinite(quotient.second).all() for quotient in (coarse, fine)):
        return Slope(fine.central, np.inf)
    value = (STEP_RATIO**2 * fine.central - coarse.central) / (STEP_RATIO**2 - 1)
    kink = (STEP_RATIO * fine.second - coarse.second) / (STEP_RATIO - 1)
    changes = (coarse.central - fine.central, kink)
    return Slope(value, max(_ratio(change, fine.central, scale) for change in changes))


def _ratio(change: np.ndarray, whole: np.ndarray, scale: float) -> float:
    """‖change‖ relative to the larger of ‖whole‖ and `scale`; 0 if there is no change."""
    size = max(float(np.linalg.norm(whole)), scale)
    with np.errstate(divide="ignore"):
        return float(np.divide(np.linalg.norm(change), size)) if change.any() else 0.0


def relative(got: np.ndarray, expected: np.ndarray, scale: float = 0.0) -> float:
    """‖got - expected‖ relative to the larger of ‖expected‖ and `scale`."""
    return _ratio(np.asarray(got, np.float64) - expected, expected, scale)


def _steps(dtype: np.dtype, theta: np.ndarray) -> list[float]:
    """Steps around eps^(1/3), the best of central differences, and smaller ones near kinks.

    Where the parameters are large, steps grow with their root mean square.
    """
    size = max(1.0, float(np.linalg.norm(theta) / np.sqrt(len(theta))))
    largest = size * STEP_RATIO * float(np.finfo(dtype).eps) ** (1 / 3)
    return [largest / STEP_RATIO**i for i in range(NUM_STEPS)]


def in_float64(lin: Curvature) -> Curvature:
    """The linearization in float64, or as it is where an operation has no float64."""
    if lin.dtype == np.float64:
        return lin
    try:
        exact = lin.in_float64()
        exact.hvp(np.ones(lin.size))  # refuses an operation without a kernel for float64
    except InputError:
        return lin
    return exact


def _with_reason(check: Check, findings: Sequence[Finding]) -> Check:
    """A failed check with the operations that derivatives hold constant and differences do not."""
    constant = [finding for finding in findings if finding.severity == "different" and finding.op]
    if check.passed or not constant:
        return check
    note = f"derivatives hold {constant[0].op} in {constant[0].layer} constant"
    return Check(check.name, check.error, check.bound, note)


def _not_measured(check: Check) -> Check:
    """A failed check as one that measures nothing, for the reason in its note."""
    if check.passed:
        return check
    note = f"{check.error:.1e} off, since {check.note} and differences do not"
    return Check(check.name, None, check.bound, note)

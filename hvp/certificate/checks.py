"""Checks of Hv, the gradient and vᵀGv against central differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hvp.certificate.differences import (
    NUM_STEPS,
    SAFETY_FACTOR,
    Function,
    quotients,
    relative,
    slopes_along,
    step_sizes,
)
from hvp.errors import Finding, NotFiniteError
from hvp.operators import Curvature

# Bound of the relative error between derivatives and central differences, in float64.
MAX_DIFFERENCE_ERROR = 1e-6
# If the best two quotients differ by more, the check is not measured.
MAX_DISAGREEMENT = 1e-3
HV_CHECK = "Hv by differences of the gradient"
GRADIENT_CHECK = "gradient by differences of the loss"
G_CHECK = "vᵀGv by differences of the outputs"


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
    """A check of each product with v against central differences of one result of the function.

    `here` are the results at the parameters of `lin`.
    """
    theta, least = lin.theta.astype(np.float64), _least_bound(lin)
    here = [np.asarray(f, np.float64) for f in here]
    steps, first, left = step_sizes(lin.dtype, theta), 0, max_steps
    checks: list[list[Check]] = [[] for _ in products]
    for i, v in enumerate(directions):
        # One step at least is left for each later direction.
        count = NUM_STEPS if left is None else left - (len(directions) - 1 - i)
        got = [product.multiply(v) for product in products]
        scales = [product.scale(v) for product in products]
        found = quotients(function, here, theta, v, steps[first : first + count])
        slopes, used = slopes_along(found, got, scales, least)
        # The step that was enough along one direction is the first along the next.
        first, left = first + used - 1, None if left is None else left - used
        for j, (product, slope) in enumerate(zip(products, slopes, strict=True)):
            error = relative(got[j], slope.value, scales[j])
            checks[j].append(_check(product.name, error, slope.disagreement, least))
    return [_worst(along_all) for along_all in checks]


def _least_bound(lin: Curvature) -> float:
    """The bound of an error where all steps agree, in the precision of the backend."""
    return max(MAX_DIFFERENCE_ERROR, float(np.sqrt(np.finfo(lin.dtype).eps)))


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
        try:
            loss, slope = lin.loss_and_gradient(theta)
        except NotFiniteError:  # a step that says nothing
            return np.array([np.nan]), np.full(lin.size, np.nan)
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
    least = _least_bound(lin)
    steps = step_sizes(lin.dtype, theta)[:max_steps]
    found = quotients(lambda at: [lin.outputs(at)], [z], theta, v, steps)
    unknown = np.array(np.nan)  # no product: only steps that agree give u
    (u,), _ = slopes_along(found, [unknown], [1e-3 * float(np.linalg.norm(z))], least)
    if not np.isfinite(u.disagreement):
        return _check(G_CHECK, np.inf, np.inf, least)

    def gradients(at: np.ndarray) -> list[np.ndarray]:
        """Those of the loss in the outputs and of the penalties, at both."""
        found = lin.loss_gradients(*np.split(at, [len(z)]))
        return [each.astype(np.float64) for each in found]

    def slope(at: np.ndarray) -> list[np.ndarray]:
        return [np.concatenate(gradients(at)) @ along]

    here, along = np.concatenate([z, theta]), np.concatenate([u.value, v])
    form = np.array(v @ lin.gnvp(v).astype(np.float64))
    scale = 1e-3 * float(np.linalg.norm(gradients(here)[0]) * np.linalg.norm(u.value))
    found = quotients(slope, slope(here), here, along, step_sizes(lin.dtype, here))
    (curved,), _ = slopes_along(found, [form], [scale], least)
    error = relative(form, curved.value, scale)
    check = _check(G_CHECK, error, max(u.disagreement, curved.disagreement), least)
    return _with_reason(check, lin.findings)


def _worst(checks: Sequence[Check]) -> Check:
    """Of the checks along all directions, one that failed, else one that is not measured."""

    def severity(check: Check) -> tuple[bool, bool, float]:
        return not check.passed, check.error is None, (check.error or 0.0) / check.bound

    return max(checks, key=severity)


def _check(name: str, error: float, disagreement: float, least: float) -> Check:
    """A check from the error along a direction, and the disagreement of its steps."""
    if disagreement > MAX_DISAGREEMENT:
        apart = f"differ by {100 * disagreement:.1f} %" if disagreement < 10 else "do not agree"
        is_float64 = least <= MAX_DIFFERENCE_ERROR
        remedy = "try other parameters, off the kinks" if is_float64 else "float64 rounds less"
        note = f"differences of two step sizes {apart}, from kinks or rounding; {remedy}"
        return Check(name, None, least, note)
    return Check(name, error, max(least, SAFETY_FACTOR * disagreement))


def _with_reason(check: Check, findings: Sequence[Finding]) -> Check:
    """A failed check with the operations that derivatives hold constant and differences do not."""
    constant = [finding for finding in findings if finding.severity == "different" and finding.op]
    if check.passed or not constant:
        return check
    note = f"derivatives hold {constant[0].op} in {constant[0].layer} constant"
    return Check(check.name, check.error, check.bound, note)


def not_measured(check: Check) -> Check:
    """A failed check as one that measures nothing, for the reason in its note."""
    if check.passed:
        return check
    note = f"{check.error:.1e} off, since {check.note} and differences do not"
    return Check(check.name, None, check.bound, note)

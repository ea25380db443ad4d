"""Derivatives along a direction by central differences, with a bound of their error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# A step is this many times smaller than the one before.
STEP_RATIO = 8
# The most steps along one direction.
NUM_STEPS = 6
# The disagreement of two steps, times this, bounds the error of a derivative.
SAFETY_FACTOR = 10

# Parameters (P,) to one or several arrays.
Function = Callable[[np.ndarray], Sequence[np.ndarray]]


@dataclass(frozen=True, eq=False)
class Quotient:
    """Differences of f for one step h: (f(h) - f(-h))/2h and (f(h) + f(-h) - 2f(0))/h.

    The second is proportional to h where f is smooth, and stays as it is where f has a kink at 0.
    """

    central: np.ndarray
    second: np.ndarray


def quotients(
    function: Function,
    here: Sequence[np.ndarray],
    theta: np.ndarray,
    v: np.ndarray,
    steps: Sequence[float],
) -> Iterator[list[Quotient]]:
    """The quotients of each result of the function, step after step; `here` are those at theta.

    The steps are in units of ‖v‖.
    """
    length = float(np.linalg.norm(v))
    for step in steps:
        h = step / length
        yield _quotients(
            _values(function, theta + h * v), _values(function, theta - h * v), here, h
        )


def _quotients(
    ahead: list[np.ndarray], behind: list[np.ndarray], here: Sequence[np.ndarray], h: float
) -> list[Quotient]:
    return [
        Quotient((plus - minus) / (2 * h), (plus + minus - 2 * f) / h)
        for plus, minus, f in zip(ahead, behind, here, strict=True)
    ]


def _values(function: Function, theta: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(f, np.float64) for f in function(theta)]


@dataclass(frozen=True, eq=False)
class Slope:
    """The derivative of a function along a direction.

    `disagreement` is the relative difference between the quotients of two steps, a bound of its
    error; 0 where one step confirms the product, infinity where the function is not finite.
    """

    value: np.ndarray
    disagreement: float


def slopes_along(
    quotients: Iterator[list[Quotient]],
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


def _extrapolated(coarse: Quotient, fine: Quotient, scale: float) -> Slope:
    if not all(np.isfinite(quotient.second).all() for quotient in (coarse, fine)):
        return Slope(fine.central, np.inf)
    change = _ratio(coarse.central - fine.central, fine.central, scale)
    kink = (STEP_RATIO * fine.second - coarse.second) / (STEP_RATIO - 1)
    value = (STEP_RATIO**2 * fine.central - coarse.central) / (STEP_RATIO**2 - 1)
    return Slope(value, max(change, _ratio(kink, fine.central, scale)))


def _ratio(change: np.ndarray, whole: np.ndarray, scale: float) -> float:
    """‖change‖ relative to the larger of ‖whole‖ and `scale`; 0 if there is no change."""
    size = max(float(np.linalg.norm(whole)), scale)
    with np.errstate(divide="ignore"):
        return float(np.divide(np.linalg.norm(change), size)) if change.any() else 0.0


def relative(got: np.ndarray, expected: np.ndarray, scale: float = 0.0) -> float:
    """‖got - expected‖ relative to the larger of ‖expected‖ and `scale`."""
    return _ratio(np.asarray(got, np.float64) - expected, expected, scale)


def step_sizes(dtype: np.dtype, theta: np.ndarray) -> list[float]:
    """Steps around eps^(1/3), the best of central differences, and smaller ones near kinks.

    Where the parameters are large, steps grow with their root mean square.
    """
    size = max(1.0, float(np.linalg.norm(theta) / np.sqrt(len(theta))))
    largest = size * STEP_RATIO * float(np.finfo(dtype).eps) ** (1 / 3)
    return [largest / STEP_RATIO**i for i in range(NUM_STEPS)]

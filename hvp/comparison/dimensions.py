"""How many directions have most of the curvature: stable rank, effective dimension, condition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvp.comparison.counts import MULTIPLES, above_bounds
from hvp.comparison.spectrum import Spectrum
from hvp.linalg.estimate import Estimate
from hvp.linalg.spectral_sums import MAX_RELATIVE_ROUNDING, effective_dimension

# Dampings δ of an effective dimension are λ_max divided by these.
DIVISORS = (10, 100, 1_000, 10_000)


@dataclass(frozen=True)
class EffectiveDimension:
    """Σ λ/(λ + δ) of G: how many directions have a curvature above the damping δ, smoothly counted.

    Attributes:
        damping: δ, in units of λ.
        divisor: λ_max / δ.
        estimate: the sum; its `depth` is half the width of its bracket.
    """

    damping: float
    divisor: int
    estimate: Estimate[float]


@dataclass(frozen=True)
class Condition:
    """Bounds of λ_max over the smallest eigenvalue above a floor.

    Attributes:
        floor: in units of λ.
        lower, upper: of the ratio.
    """

    floor: float
    lower: float
    upper: float


def stable_rank(found: Spectrum, squared_norm: Estimate[float]) -> Estimate[float] | None:
    """‖A‖_F²/‖A‖²: between one and the rank. None for a matrix that is zero."""
    norm = found.norm
    if not norm:
        return None
    ends = ((found.largest, -1), (found.smallest, 0))
    error = max(float(pairs.errors[i]) for pairs, i in ends)
    of_norm = 2 * squared_norm.value * error / norm**3
    return Estimate(
        squared_norm.value / norm**2,
        float(np.hypot(squared_norm.stderr / norm**2, of_norm)),
        squared_norm.num_products,
        squared_norm.depth / norm**2,
    )


def squared_norm(found: Spectrum) -> Estimate[float] | None:
    """‖A‖_F² by the density; None without it."""
    return None if found.density is None else found.density.integral(np.square)


def effective_dimensions(found: Spectrum) -> tuple[EffectiveDimension, ...]:
    """The effective dimensions of a positive semidefinite matrix for the dampings of `DIVISORS`.

    Empty without a density, and for a matrix that is not positive semidefinite.
    """
    d, largest = found.density, float(found.largest.values[-1])
    if d is None or largest <= 0:
        return ()
    lowest = min(d.nodes.min(), d.outliers.min(initial=0.0)) - d.floor
    if lowest < -MAX_RELATIVE_ROUNDING * np.abs(d.outliers).max(initial=np.abs(d.nodes).max()):
        return ()
    return tuple(
        EffectiveDimension(largest / by, by, effective_dimension(d, largest / by))
        for by in DIVISORS
    )


def condition(found: Spectrum, floor: float) -> Condition | None:
    """λ_max over the smallest eigenvalue above the larger of a floor and 32 roundings of ‖A‖.

    An eigenvalue is certain to be near each node of the density, and between two thresholds where
    more are above the one than can be above the other. Where as many are above both, none is
    between. None without a density or without an eigenvalue above the floor.
    """
    d, top, error = found.density, found.largest.values[-1], found.largest.errors[-1]
    if d is None or top - error <= (least := max(floor, d.floor)):
        return None
    size = found.size
    centres = np.concatenate([d.nodes[d.weights > 0], found.largest.values, found.smallest.values])
    radii = np.concatenate(
        [d.errors[d.weights > 0] + d.floor, found.largest.errors, found.smallest.errors]
    )
    near = float((centres + radii)[centres - radii > least].min(initial=top))
    lowest, here = least, above_bounds(found, d, least, size)
    for threshold in (least * multiple for multiple in MULTIPLES[1:]):
        if threshold >= near:
            break
        there = above_bounds(found, d, threshold, size)
        if there.upper < here.lower:
            near = threshold
        elif there.lower >= here.upper:
            lowest = threshold
    return Condition(least, max(float(top - error) / near, 1.0), float(top + error) / lowest)

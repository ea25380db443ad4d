"""How many eigenvalues are above a small ε, below -ε, and null to it: bounds that hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hvp.comparison.spectrum import Spectrum
from hvp.linalg.brackets import Bounds, CountBracket
from hvp.linalg.density import Density

# Multiples of the noise floor, tried in order until the counts are resolved.
MULTIPLES = tuple(factor * 10**power for power in range(16) for factor in (1, 3))
# Bounds that are this share of all eigenvalues apart, or closer, are resolved.
RESOLVED_SHARE = 1e-3
# Multiples of the noise floor at which one count is bounded besides the floor itself.
MULTIPLES_ABOVE_FLOOR = tuple(factor * 10**power for power in range(8) for factor in (3, 10))

# A function of a density and ε > 0.
Bracketing = Callable[[Density, float], CountBracket]


@dataclass(frozen=True)
class Counts:
    """Bounds of the numbers of eigenvalues above ε, below -ε, and between the two.

    They are those of Chebyshev, Markov and Stieltjes for the eigenvalues between the ends, each
    widened by two standard errors of the probes, and the eigenvalues found one by one at the ends.

    Attributes:
        threshold: ε, in units of λ.
        multiple: ε in noise floors.
        above, below, null: the least and the most that there are; null are those from -ε to ε.
    """

    threshold: float
    multiple: int
    above: Bounds
    below: Bounds
    null: Bounds


def counts(found: Spectrum, floor: float, *, most: int, semidefinite: bool) -> Counts | None:
    """The counts for the smallest ε that resolves them, a multiple of the noise floor.

    They are resolved where the upper bound is at most twice the lower one, or a thousandth of all
    eigenvalues above it. Where no ε resolves them, they are those whose bounds are closest. None
    without a density, and for a matrix that is zero to rounding.

    Args:
        found: the spectrum.
        floor: the noise floor; where it is zero, that of the density takes its place.
        most: how many eigenvalues are above ε at most, such as the rank of J for G = JᵀΛJ.
        semidefinite: whether the matrix is positive semidefinite to rounding, so that the counts
            above ε alone decide.
    """
    best, least_width = None, math.inf
    size, d = found.size, found.density
    for threshold, multiple in thresholds(found, floor):
        assert d is not None
        above = above_bounds(found, d, threshold, most)
        below = below_bounds(found, d, threshold)
        null = Bounds(
            max(size - above.upper - below.upper, 0), max(size - above.lower - below.lower, 0)
        )
        tried = Counts(threshold, multiple, above, below, null)
        decisive = (above,) if semidefinite else (above, below)
        if all(_is_resolved(bounds, size) for bounds in decisive):
            return tried
        width = sum(bounds.upper - bounds.lower for bounds in decisive)
        if width < least_width:
            best, least_width = tried, width
    return best


def thresholds(found: Spectrum, floor: float) -> Iterator[tuple[float, int]]:
    """The values of ε inside of a spectrum, at least 32 roundings of ‖A‖, and their multiples."""
    d = found.density
    if d is None:
        return
    unit = floor or d.floor
    for multiple in MULTIPLES:
        if d.floor <= multiple * unit < found.norm:
            yield multiple * unit, multiple


def above_bounds(found: Spectrum, d: Density, threshold: float, most: int) -> Bounds:
    """How many eigenvalues are above a threshold."""
    pairs = found.largest
    certain = int((pairs.values - pairs.errors > threshold).sum())
    return d.bracket_above(threshold).bounds(certain, max(most, certain))


def below_bounds(found: Spectrum, d: Density, threshold: float) -> Bounds:
    """How many eigenvalues are below minus a threshold."""
    pairs = found.smallest
    certain = int((pairs.values + pairs.errors < -threshold).sum())
    return d.bracket_below(-threshold).bounds(certain, found.size)


def brackets(
    density: Density, bracket: Bracketing, floor: float
) -> tuple[CountBracket, CountBracket]:
    """Bounds of one count: for the noise floor, and for the smallest ε that resolves it.

    This ε is a multiple of the floor at which the bounds are within a factor of two, or the largest
    tried.
    """
    at_floor = bracket(density, floor)
    for multiple in MULTIPLES_ABOVE_FLOOR:
        found = bracket(density, multiple * floor)
        if found.upper <= 2 * found.lower:
            break
    return at_floor, found


def _is_resolved(bounds: Bounds, size: int) -> bool:
    return bounds.upper - bounds.lower <= max(bounds.lower, RESOLVED_SHARE * size)

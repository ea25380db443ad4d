"""Bounds of the number of eigenvalues beyond a threshold, from nodes and weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hvp.linalg.gauss_radau import radau_rules
from hvp.linalg.measure import SpectralMeasure, mean_over_probes

TINY = float(np.finfo(np.float64).tiny)


class Bounds(NamedTuple):
    """The least and the most that a whole number may be."""

    lower: int
    upper: int


@dataclass(frozen=True)
class CountBracket:
    """Bounds of the number of eigenvalues beyond a threshold, certain but for the probes.

    Attributes:
        threshold: in units of λ.
        lower, upper: the means of the bounds over the probes.
        stderr: the larger of their standard errors over the probes.
    """

    threshold: float
    lower: float
    upper: float
    stderr: float

    @property
    def at_least(self) -> int:
        """The lower bound, less two standard errors."""
        return max(int(np.ceil(self.lower - 2 * self.stderr)), 0) if self.stderr >= 0 else 0

    def bounds(self, certain: int, most: int) -> Bounds:
        """The bounds, widened by two standard errors, of a number from `certain` to `most`.

        With a single probe, whose error is not known, there are no others than these two.

        >>> CountBracket(0.1, lower=3.2, upper=7.9, stderr=0.3).bounds(0, 70)
        Bounds(lower=3, upper=8)
        >>> CountBracket(0.1, lower=29.99, upper=29.99, stderr=1e-3).bounds(0, 70)
        Bounds(lower=30, upper=30)
        """
        if math.isnan(self.stderr):
            return Bounds(certain, most)
        lower = math.ceil(self.lower - 2 * self.stderr)
        upper = math.floor(self.upper + 2 * self.stderr)
        if lower > upper:  # no whole number is between them
            lower = upper = round((self.lower + self.upper) / 2)
        return Bounds(min(max(lower, certain), most), max(min(upper, most), certain))


def count_bracket(measure: SpectralMeasure, limit: float, sign: int) -> CountBracket:
    """Bounds of the number of eigenvalues below the limit, above it with sign -1."""
    outliers = np.sum(sign * measure.outliers < sign * limit) / measure.size
    values, errors = mean_over_probes(measure, _share_bounds(measure, limit, sign), outliers)
    lower, upper = measure.size * values
    return CountBracket(limit, float(lower), float(upper), float(measure.size * np.max(errors)))


def _share_bounds(measure: SpectralMeasure, limit: float, sign: int) -> np.ndarray:
    """(S, 2) bounds of the share of eigenvalues below the limit, above it with sign -1.

    Of all measures with the moments of a probe, the rule with a node at the limit has the most mass
    there: the share below lies between the weights of the nodes below, and those with the limit's
    own. Chebyshev, Markov and Stieltjes proved it (Szegő 1975, *Orthogonal polynomials*, theorem
    3.41.1).
    """
    bounds = np.empty((len(measure.nodes), 2))
    for s, (nodes, weights) in enumerate(radau_rules(measure, limit)):
        at = int(np.argmin(np.abs(nodes - limit)))
        share = weights[:at].sum() if sign > 0 else weights[at + 1 :].sum()
        bounds[s] = share, share + weights[at]
    return bounds


def misplaced_weight(measure: SpectralMeasure, limit: float) -> np.ndarray:
    """(S,) the most weight of the two nodes next to the limit that may lie beyond it."""
    nearest = np.sum(measure.nodes < limit, axis=1)[:, None] - [1, 0]
    exists = (nearest >= 0) & (nearest < measure.nodes.shape[1])
    nearest = np.clip(nearest, 0, measure.nodes.shape[1] - 1)
    node, weight, error = (
        np.take_along_axis(array, nearest, axis=1)
        for array in (measure.nodes, measure.weights, measure.errors)
    )
    ratio = error / np.maximum(np.abs(node - limit), TINY)
    return np.sum(exists * weight * np.minimum(ratio, 1.0) ** 2, axis=1)

"""Smoothed densities as curves with few points, for the figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hvp.comparison.results import Part
from hvp.linalg.density import Density
from hvp.linalg.smoothing import from_log, to_log

# Grid points for each width of a Gaussian.
POINTS_PER_WIDTH = 6.0
# Largest distance of a point from the simplified curve, relative to the extent of the curve.
MAX_DEVIATION = 1e-3
# The lower edge of a figure, relative to the height of the Gaussian of a single eigenvalue.
BELOW_ONE = 0.2
# Curves go down to this fraction of the lower edge.
DEEPER = 0.1
# Fraction of the eigenvalues of H that the view near zero contains.
MOST = 0.995
# Widths beyond the grid where a Gaussian is still visible on a logarithmic axis.
TAIL_WIDTHS = 4.0


@dataclass(frozen=True, eq=False)
class Curve:
    """A density at n points with its standard errors, which are zero for a single probe.

    Attributes:
        sampling: (n,) the sampling errors; NaN where they are not known.
        x: (n,) coordinates on the axis, ascending.
        points: (n,) the eigenvalues at these coordinates; equal to x on a linear axis.
        width: standard deviation of the smoothing Gaussians, in units of x.
    """

    x: np.ndarray
    points: np.ndarray
    values: np.ndarray
    stderrs: np.ndarray
    sampling: np.ndarray
    width: float


def drawn(part: Part) -> Mapping[str, Density]:
    """The densities of H, of G and, unless it vanishes, of R."""
    vanishing = {"R"} if part.agrees else set()
    return {
        name: spectrum.density for name, spectrum in part.spectra.items() if name not in vanishing
    }


def linear(part: Part) -> dict[str, Curve]:
    """Densities per unit of λ. H and G are smoothed by the same width, so that they compare."""
    densities = drawn(part)
    both = max(densities[name].width for name in "HG")
    found = {}
    for name, d in densities.items():
        width = both if name in "HG" else d.width
        x = d.grid(_num_points(np.ptp(d.nodes), width), width)
        tail = width * np.linspace(0.25, TAIL_WIDTHS, 16)
        x = np.concatenate([x[0] - tail[::-1], x, x[-1] + tail])
        values, stderrs = d.curve(x, width)
        least = DEEPER * BELOW_ONE * alone(part.size, width)
        kept = simplified(x, np.log(np.maximum(values, least)))
        x, sampling = x[kept], d.curve_sampling(x[kept], width)
        found[name] = _curve(x, x, values[kept], stderrs[kept], sampling, width)
    return found


def logarithmic(part: Part) -> dict[str, Curve]:
    """Densities per decade on the axis of `origin`, each smoothed by its own resolution."""
    x0, found = origin(part), {}
    for name, d in drawn(part).items():
        width = d.log_width(x0)
        t = d.log_grid(_num_points(np.ptp(to_log(d.nodes, x0)), width), x0, width)
        values, stderrs = d.log_curve(t, origin=x0, width=width)
        kept = simplified(t, values)
        t, sampling = t[kept], d.log_curve_sampling(t[kept], origin=x0, width=width)
        found[name] = _curve(t, from_log(t, x0), values[kept], stderrs[kept], sampling, width)
    return found


def near(part: Part) -> tuple[float, float]:
    """The range of λ of the view near zero: all negative λ of H and most of the positive."""
    d = part.H.density
    order = np.argsort(d.nodes, axis=None)
    mass = np.cumsum(d.weights.ravel()[order])
    most = d.nodes.ravel()[order][np.searchsorted(mass, MOST * mass[-1])]
    low = min(float(part.H.smallest.values[0]), 0.0)
    high = max(float(most), -2 * low) or 1.0
    return min(1.2 * low, -0.1 * high), high


def origin(part: Part) -> float:
    """x₀ of the logarithmic axis of a part: the largest of its densities' origins."""
    return max(d.origin for d in drawn(part).values())


def alone(size: int, width: float) -> float:
    """The height of the Gaussian of a single eigenvalue."""
    return 1 / (size * width * math.sqrt(2 * math.pi))


def simplified(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of points whose polygon is close to all points (Douglas and Peucker 1973).

    >>> simplified(np.arange(5.0), np.array([0.0, 1.0, 2.0, 1.0, 0.0])).tolist()
    [0, 2, 4]
    """
    x, y = x / (np.ptp(x) or 1.0), y / (np.ptp(y) or 1.0)
    kept = {0, len(x) - 1}
    spans = [(0, len(x) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        inner = slice(first + 1, last)
        gaps = np.abs(y[inner] - np.interp(x[inner], x[[first, last]], y[[first, last]]))
        worst = int(gaps.argmax())
        if gaps[worst] > MAX_DEVIATION:
            middle = first + 1 + worst
            kept.add(middle)
            spans += [(first, middle), (middle, last)]
    return np.array(sorted(kept))


def _curve(
    x: np.ndarray,
    points: np.ndarray,
    values: np.ndarray,
    stderrs: np.ndarray,
    sampling: np.ndarray,
    width: float,
) -> Curve:
    return Curve(x, points, values, np.nan_to_num(stderrs, nan=0.0), sampling, width)


def _num_points(extent: float, width: float) -> int:
    return 2 + math.ceil(POINTS_PER_WIDTH * (extent + 8 * width) / width)

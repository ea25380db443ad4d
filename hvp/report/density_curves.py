"""The curves that figures of a part's densities draw, through no more points than they need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvp.linalg.density import Density
from hvp.linalg.smoothing import from_log, to_log

# So many points a width; those are kept that a line through the others would miss by more.
FINE, MISSED = 6.0, 1e-3
# A figure shows this share of what a single eigenvalue makes of a curve, and points go below it.
BELOW_ONE, DEEPER = 0.2, 0.1
MOST = 0.995
# Widths beyond the grid where the logarithm of a bell still shows.
TAIL = 4.0


@dataclass(frozen=True, eq=False)
class Curve:
    """A density (n,) with its standard errors, zero where a single probe tells none.

    Attributes:
        sampling: the standard errors, had other examples been drawn; NaN where that is not told.
        x: coordinates on the axis, ascending.
        points: the eigenvalues that they stand for, the same on a linear axis.
        width: standard width of the bells, in units of x.
    """

    x: np.ndarray
    points: np.ndarray
    values: np.ndarray
    stderrs: np.ndarray
    sampling: np.ndarray
    width: float


def drawn(part: Any) -> Mapping[str, Density]:
    """The densities of the operators that do not vanish; of H and G always."""
    vanishing = {"R"} if part.agrees else set()
    return {name: getattr(part, name).density for name in "HGR" if name not in vanishing}


def linear(part: Any) -> dict[str, Curve]:
    """Per unit of λ. H and G are smoothed alike, or their difference would be the smoothing's."""
    densities = drawn(part)
    both = max(densities[name].width for name in "HG")
    found = {}
    for name, d in densities.items():
        width = both if name in "HG" else d.width
        x = d.grid(_enough(np.ptp(d.nodes), width), width)
        tail = width * np.linspace(0.25, TAIL, 16)
        x = np.concatenate([x[0] - tail[::-1], x, x[-1] + tail])
        values, stderrs = d.curve(x, width)
        least = DEEPER * BELOW_ONE * alone(part.size, width)
        kept = telling(x, np.log(np.maximum(values, least)))
        x, sampling = x[kept], d.curve_sampling(x[kept], width)
        found[name] = _curve(x, x, values[kept], stderrs[kept], sampling, width)
    return found


def logarithmic(part: Any) -> dict[str, Curve]:
    """Per decade, each as wide as its own nodes resolve, on the axis of `origin`."""
    x0, found = origin(part), {}
    for name, d in drawn(part).items():
        width = d.log_width(x0)
        t = d.log_grid(_enough(np.ptp(to_log(d.nodes, x0)), width), x0, width)
        values, stderrs = d.log_curve(t, origin=x0, width=width)
        kept = telling(t, values)
        t, sampling = t[kept], d.log_curve_sampling(t[kept], origin=x0, width=width)
        found[name] = _curve(t, from_log(t, x0), values[kept], stderrs[kept], sampling, width)
    return found


def near(part: Any) -> tuple[float, float]:
    """What to look at closely: around zero, with all of H below it and most of it above."""
    d = part.H.density
    order = np.argsort(d.nodes, axis=None)
    mass = np.cumsum(d.weights.ravel()[order])
    most = d.nodes.ravel()[order][np.searchsorted(mass, MOST * mass[-1])]
    low = min(float(part.H.smallest.values[0]), 0.0)
    high = max(float(most), -2 * low) or 1.0
    return min(1.2 * low, -0.1 * high), high


def origin(part: Any) -> float:
    """x₀ of the one logarithmic axis of a part: the coarsest of its densities'."""
    return max(d.origin for d in drawn(part).values())


def alone(size: int, width: float) -> float:
    """The height of the bell of a single eigenvalue."""
    return 1 / (size * width * math.sqrt(2 * math.pi))


def telling(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points a line needs so that it misses none by more (Douglas and Peucker 1973).

    >>> telling(np.arange(5.0), np.array([0.0, 1.0, 2.0, 1.0, 0.0])).tolist()
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
        if gaps[worst] > MISSED:
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


def _enough(extent: float, width: float) -> int:
    return 2 + math.ceil(FINE * (extent + 8 * width) / width)

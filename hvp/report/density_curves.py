"""Smoothed densities as curves with few points, for the figures.

Heights are numbers of eigenvalues per width of the kernel: the bell of a single one has height 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hvp.comparison.part import Part
from hvp.linalg.density import Density
from hvp.linalg.smoothing import MAX_WIDTHS_PER_RANGE, from_log, resolution, to_log

# Grid points for each width of a Gaussian.
POINTS_PER_WIDTH = 6.0
# Largest distance of a point from the simplified curve, relative to the extent of the curve.
MAX_DEVIATION = 1e-3
# The lower edge of a figure.
BOTTOM = 0.3
# Curves go down to this fraction of the lower edge.
DEEPER = 0.1
# The kernel on a logarithmic axis is this fraction of its range; local widths do the rest.
LOG_WIDTHS_PER_RANGE = 120
# Widths beyond a grid where the bell of many eigenvalues is still visible on a logarithmic axis.
TAIL_WIDTHS = 3.0
MAX_DECADES = 6
# Two bells that are further apart than this many widths stand apart.
APART = 4.0


@dataclass(frozen=True, eq=False)
class Curve:
    """A density at n points with its standard errors, which are zero for a single probe.

    Attributes:
        x: (n,) coordinates on the axis, ascending.
        points: (n,) the eigenvalues at these coordinates; equal to x on a linear axis.
        values, stderrs: (n,) eigenvalues per width of the kernel.
        sampling: (n,) the sampling errors; NaN where they are not known.
        width: standard deviation of the kernel, in units of x.
    """

    x: np.ndarray
    points: np.ndarray
    values: np.ndarray
    stderrs: np.ndarray
    sampling: np.ndarray
    width: float


def letters(part: Part) -> list[str]:
    """The matrices that are drawn: those computed, but for an R that vanishes."""
    return [letter for letter in part.spectra if not (letter == "R" and part.agrees)]


def drawn(part: Part) -> Mapping[str, Density]:
    """The densities of H, of G and, unless it vanishes, of R, as far as they were computed."""
    found = {letter: part.spectra[letter].density for letter in letters(part)}
    return {letter: d for letter, d in found.items() if d is not None}


def _main(part: Part) -> list[Density]:
    """The densities of H and of G, whose resolution is that of all curves."""
    return [d for letter, d in drawn(part).items() if letter != "R"]


def linear(part: Part) -> dict[str, Curve]:
    """The densities of a part over λ, all smoothed by one kernel."""
    width = kernel_width(part)
    return {name: linear_of(d, width) for name, d in drawn(part).items()}


def linear_of(d: Density, width: float) -> Curve:
    """A density over λ, smoothed by a kernel of this width."""
    x = _with_tails(d.grid(_num_points(np.ptp(d.nodes), width), width), width)
    values, stderrs = d.curve(x, width)
    kept = simplified(x, _log_height(values * single(d.size, width)))
    sampling = d.curve_sampling(x[kept], width)
    return _curve(d.size, x[kept], x[kept], values[kept], stderrs[kept], sampling, width)


def logarithmic(part: Part) -> dict[str, Curve]:
    """The densities of a part over the axis of `origin`, all smoothed by one kernel.

    Besides, all are smoothed by half of `origin` in units of λ, since the one that is resolved the
    least near zero is not resolved better: else it would look like a hill beside a spike.
    """
    x0, found = origin(part), {}
    width = float(np.ptp(to_log(np.array(extent(part)), x0))) / LOG_WIDTHS_PER_RANGE or 1.0
    for name, d in drawn(part).items():
        t = d.log_grid(_num_points(np.ptp(to_log(d.nodes, x0)), width), x0, width, x0 / 2)
        t = _with_tails(t, width + x0 / 2 / (np.log(10) * x0))
        kernel = {"origin": x0, "width": width, "blur": x0 / 2}
        values, stderrs = d.log_curve(t, **kernel)
        kept = simplified(t, _log_height(values * single(part.size, width)))
        t, sampling = t[kept], d.log_curve_sampling(t[kept], **kernel)
        points = from_log(t, x0)
        found[name] = _curve(part.size, t, points, values[kept], stderrs[kept], sampling, width)
    return found


def kernel_width(part: Part) -> float:
    """σ of the kernel: what the nodes of H and G resolve, at least 1/160 of the whole range."""
    return _kernel_width(extent(part), _main(part))


def kernel_width_of(d: Density) -> float:
    """The same for a single density."""
    every = [*d.nodes.ravel(), *d.outliers]
    return _kernel_width((min(every), max(every)), [d])


def _kernel_width(extent: tuple[float, float], densities: Sequence[Density]) -> float:
    low, high = extent
    return max((high - low) / MAX_WIDTHS_PER_RANGE, *(d.width for d in densities))


def extent(part: Part) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of all matrices that are drawn."""
    ends = [
        [*d.nodes.ravel(), *d.outliers, *found.smallest.values, *found.largest.values]
        for d, found in ((d, part.spectra[name]) for name, d in drawn(part).items())
    ]
    return min(map(min, ends)), max(map(max, ends))


def origin(part: Part) -> float:
    """x₀ of the logarithmic axis of a part, linear up to there: what H and G resolve, or rounding.

    Most eigenvalues of a network are near zero, so this is the resolution there. The axis has at
    most `MAX_DECADES` on each side.
    """
    densities = _main(part)
    least = 10.0**-MAX_DECADES * max(map(abs, extent(part)))
    return max(least, *(max(d.origin, resolution(d.nodes, d.errors, d.weights)) for d in densities))


def single(size: int, width: float) -> float:
    """The number of eigenvalues per width of the kernel where the density is one."""
    return size * width * math.sqrt(2 * math.pi)


def outliers_above(part: Part, name: str) -> tuple[int, bool]:
    """How many eigenvalues stand apart above the bulk, and whether there may be more.

    They are those above the lowest gap of `APART` widths of the kernel among the k largest and the
    largest node of the others. There may be more where all k stand apart.
    """
    found, d = part.spectra[name], drawn(part)[name]
    rest = d.nodes[d.weights > 0].max(initial=-math.inf)
    values = np.r_[found.largest.values[::-1], min(rest, found.largest.values[0])]
    gaps = np.flatnonzero(-np.diff(values) > APART * kernel_width(part))
    count = int(gaps[-1]) + 1 if len(gaps) else 0
    return count, count == len(found.largest.values)


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
    size: int,
    x: np.ndarray,
    points: np.ndarray,
    values: np.ndarray,
    stderrs: np.ndarray,
    sampling: np.ndarray,
    width: float,
) -> Curve:
    scale = single(size, width)
    errors = scale * np.nan_to_num(stderrs, nan=0.0)
    return Curve(x, points, scale * values, errors, scale * sampling, width)


def _with_tails(x: np.ndarray, width: float) -> np.ndarray:
    tail = width * np.linspace(0.25, TAIL_WIDTHS, 12)
    return np.concatenate([x[0] - tail[::-1], x, x[-1] + tail])


def _log_height(heights: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(heights, DEEPER * BOTTOM))


def _num_points(extent: float, width: float) -> int:
    return 2 + math.ceil(POINTS_PER_WIDTH * (extent + 8 * width) / width)

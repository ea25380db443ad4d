"""Kernel smoothing of nodes and weights: Gaussian bells on a linear or a logarithmic axis."""

from __future__ import annotations

import numpy as np

from hvp.errors import InputError
from hvp.linalg.lanczos import ROUNDINGS

# A bell is at least 1/500 of the range of the nodes wide, which a figure can still show.
MAX_WIDTHS_PER_RANGE = 500
# Standard widths from a node to where its bell is negligible.
BELL_RADIUS = 4.0
# Points of a grid over the bell of an outlier.
OUTLIER_POINTS = 33


def to_log(x: np.ndarray, origin: float) -> np.ndarray:
    """t = sign(x) log₁₀(1 + |x|/x₀), the coordinates of x (n,) on the logarithmic axis.

    >>> to_log(np.array([-99.0, 0.0, 9.0]), 1.0).round(9).tolist()
    [-2.0, 0.0, 1.0]
    """
    return np.sign(x) * np.log1p(np.abs(x) / origin) / np.log(10)


def from_log(t: np.ndarray, origin: float) -> np.ndarray:
    """x = sign(t) x₀ (10^|t| - 1), the inverse of `to_log`.

    >>> from_log(np.array([-2.0, 0.0, 1.0]), 1.0).round(9).tolist()
    [-99.0, 0.0, 9.0]
    """
    return np.sign(t) * origin * np.expm1(np.abs(t) * np.log(10))


def resolved_width(
    nodes: np.ndarray, errors: np.ndarray, weights: np.ndarray, precision: float
) -> float:
    """The standard width of bells that the nodes (S, m) resolve: see `Density.width`."""
    gaps = np.gradient(nodes, axis=1) if nodes.shape[1] > 1 else errors
    median = _weighted_median(np.minimum(gaps, errors), weights)
    size = np.abs(nodes).max() or 1.0
    extent = np.ptp(nodes) if np.ptp(nodes) > ROUNDINGS * precision * size else size
    return float(max(median / 2, extent / MAX_WIDTHS_PER_RANGE))


def grid_points(
    nodes: np.ndarray, outliers: np.ndarray, num_points: int, width: float
) -> np.ndarray:
    """Ascending points: evenly over the nodes, and closer over the bell of each outlier."""
    if num_points < 2:
        raise InputError("num_points of at least 2", num_points, "leave it out")
    radius = BELL_RADIUS * width
    bulk = np.linspace(nodes.min() - radius, nodes.max() + radius, num_points)
    bells = np.linspace(outliers - radius, outliers + radius, OUTLIER_POINTS).ravel()
    return np.unique(np.concatenate([bulk, bells]))


def smoothed_rows(
    x: np.ndarray, nodes: np.ndarray, weights: np.ndarray, width: float
) -> np.ndarray:
    """(S, n) the sums of weighted bells around each row of nodes (S, m), at the points x (n,)."""
    return np.stack(
        [_bells(x, row, width) @ masses for row, masses in zip(nodes, weights, strict=True)]
    )


def smoothed(x: np.ndarray, nodes: np.ndarray, width: float) -> np.ndarray:
    """(n,) the sum of bells around the nodes (k,), at the points x (n,)."""
    return _bells(x, nodes, width).sum(axis=1)


def _bells(x: np.ndarray, nodes: np.ndarray, width: float) -> np.ndarray:
    """(n, m) Gaussians of area one around the nodes (m,)."""
    z = (x[:, None] - nodes) / width
    return np.exp(-(z**2) / 2) / (width * np.sqrt(2 * np.pi))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values, axis=None)
    mass = np.cumsum(weights.ravel()[order])
    return float(values.ravel()[order][np.searchsorted(mass, mass[-1] / 2)])

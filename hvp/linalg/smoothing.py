"""Kernel smoothing of nodes and weights: Gaussian bells on a linear or a logarithmic axis."""

from __future__ import annotations

import numpy as np

from hvp.errors import InputError
from hvp.linalg.lanczos import ROUNDINGS

# A bell is at least 1/160 of the range of the nodes wide: some pixels of a figure.
MAX_WIDTHS_PER_RANGE = 160
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
    half = resolution(nodes, errors, weights) / 2
    size = np.abs(nodes).max() or 1.0
    extent = np.ptp(nodes) if np.ptp(nodes) > ROUNDINGS * precision * size else size
    return float(max(half, extent / MAX_WIDTHS_PER_RANGE))


def resolution(nodes: np.ndarray, errors: np.ndarray, weights: np.ndarray) -> float:
    """The weighted median of the distance to the neighbours, or of the error bound if less."""
    return _weighted_median(_spacing(nodes, errors), weights)


def local_widths(nodes: np.ndarray, errors: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """(S, m) the standard widths of the bells of the nodes (S, m), where outliers have `width`.

    A node stands for the eigenvalues around it, up to half of the distance to its neighbours, or up
    to its error bound if that is less: for h, the lesser of both, the width is √(width² + h²/4). So
    a curve has no ripples where nodes are further apart than `width`, and a node that has converged
    to an eigenvalue is as sharp as an outlier.

    >>> local_widths(np.array([[0.0, 2.0, 4.0]]), np.array([[0.0, 9.0, 9.0]]), 0.75).tolist()
    [[0.75, 1.25, 1.25]]
    """
    return np.hypot(width, _spacing(nodes, errors) / 2)


def grid_points(
    nodes: np.ndarray, widths: np.ndarray, outliers: np.ndarray, num_points: int, width: float
) -> np.ndarray:
    """Ascending points: evenly over the nodes' bells, and closer over that of each outlier."""
    if num_points < 2:
        raise InputError("num_points of at least 2", num_points, "leave it out")
    reach, radius = BELL_RADIUS * widths, BELL_RADIUS * width
    bulk = np.linspace((nodes - reach).min(), (nodes + reach).max(), num_points)
    bells = np.linspace(outliers - radius, outliers + radius, OUTLIER_POINTS).ravel()
    return np.unique(np.concatenate([bulk, bells]))


def smoothed_rows(
    x: np.ndarray, nodes: np.ndarray, weights: np.ndarray, widths: np.ndarray
) -> np.ndarray:
    """(S, n) the sums of weighted bells around each row of nodes (S, m), at the points x (n,)."""
    rows = zip(nodes, weights, widths, strict=True)
    return np.stack([_bells(x, row, each) @ masses for row, masses, each in rows])


def smoothed(x: np.ndarray, nodes: np.ndarray, width: float) -> np.ndarray:
    """(n,) the sum of bells around the nodes (k,), at the points x (n,)."""
    return _bells(x, nodes, width).sum(axis=1)


def _spacing(nodes: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """(S, m) the distance of each node to its neighbours, or its error bound if that is less."""
    gaps = np.gradient(nodes, axis=1) if nodes.shape[1] > 1 else errors
    return np.minimum(gaps, errors)


def _bells(x: np.ndarray, nodes: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """(n, m) Gaussians of area one around the nodes (m,), of one width or of one each (m,)."""
    z = (x[:, None] - nodes) / width
    return np.exp(-(z**2) / 2) / (width * np.sqrt(2 * np.pi))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values, axis=None)
    mass = np.cumsum(weights.ravel()[order])
    return float(values.ravel()[order][np.searchsorted(mass, mass[-1] / 2)])

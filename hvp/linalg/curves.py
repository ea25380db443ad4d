"""A spectrum as a curve: its nodes as bells on a linear or a logarithmic axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvp.errors import InputError
from hvp.linalg.measure import SpectralMeasure, bulk_share, mean_over_probes
from hvp.linalg.smoothing import (
    grid_points,
    local_widths,
    resolved_width,
    smoothed,
    smoothed_rows,
    to_log,
)
from hvp.sampling_error import jackknife

TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Axis:
    """An axis of eigenvalues; with an origin x₀ it is logarithmic on both sides of zero."""

    origin: float | None = None

    def coordinates(self, x: np.ndarray) -> np.ndarray:
        return x if self.origin is None else to_log(x, self.origin)

    def slopes(self, x: np.ndarray) -> np.ndarray:
        """The derivatives of the coordinates at x."""
        if self.origin is None:
            return np.ones_like(x)
        return 1 / (np.log(10) * (np.abs(x) + self.origin))


LINEAR = Axis()


def standard_width(measure: SpectralMeasure, axis: Axis) -> float:
    """The standard width of the bells that the nodes resolve on an axis, see `Density.width`."""
    nodes, weights = measure.nodes, measure.weights
    if axis.origin is not None:
        outside = weights * (np.abs(nodes) > axis.origin)
        weights = outside if outside.any() else weights
    errors = measure.errors * axis.slopes(nodes)
    return resolved_width(axis.coordinates(nodes), errors, weights, measure.precision)


class Curve:
    """The nodes and the outliers of a spectrum as bells on an axis.

    Args:
        measure: the spectrum.
        axis: its axis.
        width: the standard width of the bells on the axis, None for `standard_width`.
        blur: a standard width in units of λ by which nodes are smoothed besides.
    """

    def __init__(
        self, measure: SpectralMeasure, axis: Axis, width: float | None = None, blur: float = 0.0
    ):
        width = standard_width(measure, axis) if width is None else width
        slopes = axis.slopes(measure.nodes)
        self._measure, self._axis, self._width = measure, axis, positive("width", width)
        self._nodes = axis.coordinates(measure.nodes)
        self._outliers = axis.coordinates(measure.outliers)
        own_widths = np.hypot(width, blur * slopes)
        self._widths = local_widths(self._nodes, measure.errors * slopes, own_widths)

    def grid(self, num_points: int) -> np.ndarray:
        """Ascending points that show all of the curve."""
        return grid_points(self._nodes, self._widths, self._outliers, num_points, self._width)

    def values(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The density (n,) at coordinates x (n,), ∫ = 1, and its standard errors (n,)."""
        x = points(x)
        rows = smoothed_rows(x, self._nodes, self._measure.weights, self._widths)
        outliers = smoothed(x, self._outliers, self._width) / self._measure.size
        return mean_over_probes(self._measure, rows, outliers)

    def sampling(self, x: np.ndarray) -> np.ndarray:
        """(n,) the sampling errors of `values`; NaN where the batches are not known."""
        x, left_out = points(x), self._measure.left_out
        if left_out is None:
            return np.full(len(x), np.nan)
        share, size = bulk_share(self._measure), self._measure.size
        widths = self._widths[: left_out.nodes.shape[1]]
        to_axis = self._axis.coordinates
        batches = zip(
            to_axis(left_out.nodes), left_out.weights, to_axis(left_out.outliers), strict=True
        )
        curves = [
            share * smoothed_rows(x, nodes, weights, widths)
            + smoothed(x, outliers, self._width) / size
            for nodes, weights, outliers in batches
        ]
        return jackknife(np.array(curves), left_out.examples)


def positive(name: str, number: float, minimum: float = TINY) -> float:
    """The number. Raises InputError where it is less than the minimum, infinite or NaN."""
    if not minimum <= number < np.inf:
        raise InputError(f"a finite positive {name}", number, "leave it out")
    return number


def points(x: np.ndarray) -> np.ndarray:
    """The points (n,). Raises InputError for another shape, and where they are not finite."""
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise InputError("finite points of shape (n,)", f"shape {x.shape}", "use grid()")
    return x

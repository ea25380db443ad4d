"""Integrals over a spectrum, such as counts and traces of functions, with their errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import ndtr

from hvp.errors import InputError
from hvp.linalg.brackets import misplaced_weight
from hvp.linalg.curves import LINEAR, standard_width
from hvp.linalg.estimate import Estimate, student_factor
from hvp.linalg.gauss_radau import padded_radau_rules
from hvp.linalg.measure import SpectralMeasure, bulk_share, mean_over_probes
from hvp.sampling_error import jackknife

# The power of `student_factor` by which an error from the spectrum itself is widened: less than one
# because that spectrum averages over more than the probes.
SPECTRAL_POWER = 0.5
TINY = float(np.finfo(np.float64).tiny)

# From an array of eigenvalues to an array of the same shape.
Function = Callable[[np.ndarray], np.ndarray]


def integral(
    measure: SpectralMeasure,
    f: Function,
    factor: float,
    *,
    min_depths: Any = 0.0,
    smooth: Function | None = None,
    bounds: tuple[np.ndarray, np.ndarray] | None = None,
) -> Estimate:
    """`factor` times the mean of f over all eigenvalues.

    Args:
        measure: the spectrum.
        f: the function.
        factor: 1 for a mean, P for a sum.
        min_depths: the least `depth` of each probe, (S,).
        smooth: replaces f for `sampling`.
        bounds: of each probe, (S,) and (S,). They replace the values of the Gauss rule, and the
            change from m/2 to m steps.
    """
    rows = np.sum(measure.weights * applied(f, measure.nodes), axis=1)
    spectral_error = _spectral_error(measure, f, rows)
    if bounds is not None:
        lower, upper = bounds
        rows, depths = (lower + upper) / 2, (upper - lower) / 2
    else:
        half = np.sum(measure.half_weights * applied(f, measure.half_nodes), axis=1)
        depths = np.maximum(np.abs(rows - half), min_depths)
    outliers = np.sum(applied(f, measure.outliers)) / measure.size
    value, stderr = mean_over_probes(measure, rows, outliers)
    depth, _ = mean_over_probes(measure, depths, 0.0)
    return Estimate(
        float(factor * value),
        float(factor * np.maximum(stderr, spectral_error)),
        measure.num_products,
        float(factor * depth),
        sampling=float(factor * _sampling_error(measure, smooth or f)),
    )


def share_below(measure: SpectralMeasure, limit: float, factor: float) -> Estimate:
    """`factor` times the share of eigenvalues below a limit."""
    return integral(
        measure,
        lambda x: x < limit,
        factor,
        min_depths=misplaced_weight(measure, limit),
        smooth=lambda x: _ramp(measure, x, limit),
    )


def share_above(measure: SpectralMeasure, limit: float, factor: float) -> Estimate:
    """`factor` times the share of eigenvalues above a limit."""
    return integral(
        measure,
        lambda x: x > limit,
        factor,
        min_depths=misplaced_weight(measure, limit),
        smooth=lambda x: 1 - _ramp(measure, x, limit),
    )


def cumulative(measure: SpectralMeasure, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share (n,) of eigenvalues up to and including each x (n,), and standard errors."""
    shares = [
        np.r_[0.0, np.cumsum(weights)][np.searchsorted(nodes, x, "right")]
        for nodes, weights in zip(measure.nodes, measure.weights, strict=True)
    ]
    outliers = np.searchsorted(np.sort(measure.outliers), x, "right") / measure.size
    return mean_over_probes(measure, np.stack(shares), outliers)


def bracketed_integral(measure: SpectralMeasure, f: Function) -> Estimate:
    """tr f(A) between the Gauss and the Gauss-Radau rule: see `Density.bracketed_integral`."""
    nodes, weights, floor = measure.nodes, measure.weights, measure.floor
    lowest = min(float(nodes.min()), 0.0)
    radau_nodes, radau_weights = padded_radau_rules(measure, lowest - floor)
    lower = np.sum(radau_weights * applied(f, np.maximum(radau_nodes - floor, lowest)), axis=1)
    plain = np.sum(weights * applied(f, nodes), axis=1)
    upper = np.sum(weights * applied(f, nodes + floor), axis=1)
    # The node at zero cannot be moved below it: the change of the others stands for its own.
    lower -= upper - plain
    return integral(measure, f, measure.size, bounds=(lower, upper))


def without_batches(measure: SpectralMeasure, f: Function) -> np.ndarray:
    """(B, S) what tr f(A) would be without each batch: see `Density.without_batches`."""
    left_out = measure.left_out
    if left_out is None:
        raise InputError("a density that was resampled", "none", "give density num_resampled")
    rows = np.sum(left_out.weights * applied(f, left_out.nodes), axis=2)
    outliers = np.sum(applied(f, left_out.outliers), axis=1, keepdims=True)
    return (measure.size - len(measure.outliers)) * rows + outliers


def applied(f: Function, nodes: np.ndarray) -> np.ndarray:
    """f at the nodes. Raises InputError where that is not finite or has another shape."""
    with np.errstate(all="ignore"):
        values = np.asarray(f(nodes))
    if values.shape != nodes.shape or not np.isfinite(values).all():
        got = "infinity or NaN" if values.shape == nodes.shape else f"shape {values.shape}"
        raise InputError(
            f"finite values of f at all nodes, of shape {nodes.shape}", got, "shift or clip in f"
        )
    return values


def _spectral_error(measure: SpectralMeasure, f: Function, rows: np.ndarray) -> float:
    """The standard error of the mean over the bulk from the variance of f over the spectrum.

    That of vᵀf(A)v is 2/(n + 2) times it, for n bulk eigenvalues. This does not depend on the
    spread of a few probes, which may agree by chance where a few eigenvalues are all of f.
    """
    count = len(rows)
    if count < 2:
        return np.nan
    squares = np.sum(measure.weights * applied(f, measure.nodes) ** 2, axis=1)
    variance = max(float(squares.mean() - rows.mean() ** 2), 0.0)
    bulk_size = measure.size - len(measure.outliers)
    error = np.sqrt(2 / (bulk_size + 2) * variance / count)
    return float(bulk_share(measure) * student_factor(count - 1) ** SPECTRAL_POWER * error)


def _sampling_error(measure: SpectralMeasure, f: Function) -> float:
    """The sampling error of the mean of f over all eigenvalues."""
    if measure.left_out is None:
        return np.nan
    found = jackknife(without_batches(measure, f), measure.left_out.examples)
    return float(found) / measure.size


def _ramp(measure: SpectralMeasure, x: np.ndarray, limit: float) -> np.ndarray:
    """From one below the limit to zero above it, half a node distance wide."""
    nodes = measure.nodes
    above = np.clip(np.sum(nodes < limit, axis=1), 1, max(nodes.shape[1] - 1, 1))
    gaps = np.diff(nodes, axis=1, append=nodes[:, -1:] + standard_width(measure, LINEAR))
    width = np.median(np.take_along_axis(gaps, above[:, None] - 1, axis=1)) / 2
    return ndtr((limit - x) / max(width, measure.floor, TINY))

"""The Wasserstein distance between two spectra."""

from __future__ import annotations

import numpy as np

from hvp.errors import InputError
from hvp.linalg.density import Density
from hvp.linalg.estimate import Estimate
from hvp.linalg.measure import BatchJackknife
from hvp.sampling_error import jackknife

# A spectrum: nodes (S, m), weights (S, m) and outliers (k,).
PointMasses = tuple[np.ndarray, np.ndarray, np.ndarray]


def distance(first: Density, second: Density) -> Estimate:
    """The area between two cumulative spectra, ∫ |F(x) - G(x)| dx, in units of λ.

    It is the Wasserstein distance: the mean distance by which eigenvalues must be moved to turn one
    spectrum into the other. Its standard error is a jackknife over the probes, which both spectra
    have in common: errors due to a probe cancel where the spectra are alike (Efron and Stein 1981).
    Its `sampling` is a jackknife over the batches, where both densities have one. Errors that do
    not cancel make the area larger on average.

    Raises:
        InputError: the densities differ in size, seed, precision or number of probes.

    >>> from hvp import density
    >>> A = np.diag(np.linspace(0.0, 1.0, 50))
    >>> shifted = distance(density(A), density(A + 0.25 * np.eye(50)))
    >>> round(shifted.value, 6), shifted.stderr < 1e-6
    (0.25, True)
    """
    probes = [(d.size, d.seed, len(d.nodes), d.precision) for d in (first, second)]
    if probes[0] != probes[1]:
        raise InputError(
            "two densities with common probes",
            f"size, seed, probes and precision {probes[0]} and {probes[1]}",
            "give density the same",
        )
    count, size = len(first.nodes), first.size
    F, G = _spectrum(first), _spectrum(second)
    value = _area(F, G, size)
    left_out = [_area(_without_probe(F, s), _without_probe(G, s), size) for s in range(count)]
    variance = (count - 1) * np.var(np.array(left_out)) if count > 1 else np.nan
    return Estimate(
        value,
        float(np.sqrt(variance)),
        first.num_products + second.num_products,
        abs(value - _area(_half_spectrum(first), _half_spectrum(second), size)),
        sampling=_sampling_error(first.left_out, second.left_out, size),
    )


def _spectrum(d: Density) -> PointMasses:
    return d.nodes, d.weights, d.outliers


def _half_spectrum(d: Density) -> PointMasses:
    """After half as many Lanczos steps."""
    return d.half_nodes, d.half_weights, d.outliers


def _without_probe(spectrum: PointMasses, probe: int) -> PointMasses:
    nodes, weights, outliers = spectrum
    return np.delete(nodes, probe, 0), np.delete(weights, probe, 0), outliers


def _area(first: PointMasses, second: PointMasses, size: int) -> float:
    """∫ |F - G| of the cumulative spectra of two operators of shape (size, size)."""
    points, masses = [], []
    for sign, (nodes, weights, outliers) in ((1.0, first), (-1.0, second)):
        k = len(outliers)
        share = (1 - k / size) / max(len(nodes), 1)
        points += [nodes.ravel(), outliers]
        masses += [sign * share * weights.ravel(), np.full(k, sign / size)]
    point, mass = np.concatenate(points), np.concatenate(masses)
    order = np.argsort(point)
    return float(np.sum(np.abs(np.cumsum(mass[order]))[:-1] * np.diff(point[order])))


def _sampling_error(
    first: BatchJackknife | None, second: BatchJackknife | None, size: int
) -> float:
    """The jackknife over the batches; NaN unless both spectra have the same batches left out."""
    if first is None or second is None or not np.array_equal(first.examples, second.examples):
        return np.nan
    F, G = (zip(d.nodes, d.weights, d.outliers, strict=True) for d in (first, second))
    areas = np.array([_area(f, g, size) for f, g in zip(F, G, strict=True)])
    return float(jackknife(areas[:, None], first.examples))

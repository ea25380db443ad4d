"""Sums over a spectrum that curvature is summed up by: log det(A + δI), effective dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from hvp.errors import InputError
from hvp.linalg.estimate import Estimate

# Relative to the largest eigenvalue: what below zero is rounding.
ROUNDING = 1e-5


class Spectrum(Protocol):
    """What tells tr f(A), as stochastic Lanczos quadrature does."""

    def integral(self, f: Callable[[np.ndarray], np.ndarray], /) -> Estimate: ...


def log_determinant(spectrum: Spectrum, shift: float) -> Estimate:
    """log det(A + δI) = Σ log(λ + δ) of a positive semidefinite operator, from its density.

    One density serves any number of shifts. Nodes that rounding put below zero, by up to 1e-5 of
    the largest, are taken for zero.

    Args:
        spectrum: the density of A, or anything else whose `integral` of f is tr f(A).
        shift: δ > 0, in units of λ.

    Raises:
        InputError: an A that has negative eigenvalues, or a δ that is not above zero.

    Source: Ubaru, Chen and Saad 2017, *Fast estimation of tr(f(A)) via stochastic Lanczos
    quadrature*, section 5.

    >>> import hvp
    >>> known = hvp.density(np.diag([1.0, 1.0, 1.0]))
    >>> round(log_determinant(known, shift=1.0).value, 6)
    2.079442
    """
    shift = _shift(shift)
    return spectrum.integral(lambda nodes: np.log(_nonnegative(nodes) + shift))


def effective_dimension(spectrum: Spectrum, shift: float) -> Estimate:
    """tr A(A + δI)⁻¹ = Σ λ/(λ + δ) of a positive semidefinite operator, from its density.

    The number of directions in which the curvature is above δ, each counted by how much: between 0
    and the rank. Arguments and errors are those of `log_determinant`.

    Source: MacKay 1992, *Bayesian interpolation*, section 4.

    >>> import hvp
    >>> known = hvp.density(np.diag([1.0, 1.0, 1.0]))
    >>> round(effective_dimension(known, shift=1.0).value, 6)
    1.5
    """
    shift = _shift(shift)

    def share(nodes: np.ndarray) -> np.ndarray:
        nodes = _nonnegative(nodes)
        return nodes / (nodes + shift)

    return spectrum.integral(share)


def _shift(shift: float) -> float:
    if not 0 < shift < np.inf:
        raise InputError("a finite shift above zero", shift, "give the damping δ of A + δI")
    return float(shift)


def _nonnegative(nodes: np.ndarray) -> np.ndarray:
    lowest, largest = np.min(nodes, initial=0.0), np.max(np.abs(nodes), initial=0.0)
    if lowest < -ROUNDING * largest:
        raise InputError(
            "a positive semidefinite operator",
            f"an eigenvalue of about {lowest:.2g}",
            "take G instead of H, or the density's integral of a function of your own",
        )
    return np.maximum(nodes, 0.0)

"""Sums of functions over a spectrum: log det(A + δI) and the effective dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from hvp.errors import InputError
from hvp.linalg.density import Density
from hvp.linalg.estimate import Estimate

# A negative eigenvalue counts as rounding of zero up to this share of the largest.
MAX_RELATIVE_ROUNDING = 1e-5


class HasIntegral(Protocol):
    """An object that estimates tr f(A), such as a `Density`."""

    def integral(self, f: Callable[[np.ndarray], np.ndarray], /) -> Estimate: ...


def log_determinant(spectrum: HasIntegral, shift: float) -> Estimate:
    """log det(A + δI) = Σ log(λ + δ) of a positive semidefinite operator, from its density.

    One density serves any number of shifts. The value is the midpoint of a bracket and its `depth`
    half the width: because A is positive semidefinite, Gauss and Gauss-Radau quadrature bound the
    sum from above and below (see `Density.bracketed_integral`). Negative nodes, down to -1e-5 times
    the largest, count as rounding of zero.

    Args:
        spectrum: the density of A, or another object whose `integral(f)` estimates tr f(A).
        shift: δ > 0, in units of λ.

    Raises:
        InputError: A has negative eigenvalues, or δ is not positive and finite.

    Source: Ubaru, Chen and Saad 2017, *Fast estimation of tr(f(A)) via stochastic Lanczos
    quadrature*, section 5.

    >>> import hvp
    >>> d = hvp.density(np.diag([1.0, 1.0, 1.0]))
    >>> round(log_determinant(d, shift=1.0).value, 6)
    2.079442
    """
    shift = _shift(shift)
    return _integral(spectrum, lambda nodes: np.log(nodes + shift))


def effective_dimension(spectrum: HasIntegral, shift: float) -> Estimate:
    """tr A(A + δI)⁻¹ = Σ λ/(λ + δ) of a positive semidefinite operator, from its density.

    It is a smooth count, between 0 and the rank, of the directions whose curvature λ exceeds δ.
    Arguments and errors are those of `log_determinant`.

    Source: MacKay 1992, *Bayesian interpolation*, section 4.

    >>> import hvp
    >>> d = hvp.density(np.diag([1.0, 1.0, 1.0]))
    >>> round(effective_dimension(d, shift=1.0).value, 6)
    1.5
    """
    shift = _shift(shift)
    return _integral(spectrum, lambda nodes: nodes / (nodes + shift))


def _integral(spectrum: HasIntegral, f: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """tr f(A) for an f of eigenvalues from zero, with the bracket of a `Density` for its depth."""
    if not hasattr(spectrum, "integral"):
        remedy = "pass hvp.density(hvp.GaussNewton(lin))"
        raise InputError("the density of an operator", type(spectrum).__name__, remedy)
    if not isinstance(spectrum, Density):
        return spectrum.integral(lambda nodes: f(_nonnegative(nodes, 0.0)))
    # The bulk beside outliers may be all rounding, relative to these.
    largest = float(np.abs(spectrum.outliers).max(initial=np.abs(spectrum.nodes).max()))
    return spectrum.bracketed_integral(lambda nodes: f(_nonnegative(nodes, largest)))


def _shift(shift: float) -> float:
    if not 0 < shift < np.inf:
        raise InputError("a finite shift above zero", shift, "give the damping δ of A + δI")
    return float(shift)


def _nonnegative(nodes: np.ndarray, largest: float) -> np.ndarray:
    """The nodes, zero where they are negative by rounding of the largest eigenvalue."""
    lowest, largest = np.min(nodes, initial=0.0), np.max(np.abs(nodes), initial=largest)
    if lowest < -MAX_RELATIVE_ROUNDING * largest:
        raise InputError(
            "a positive semidefinite operator",
            f"an eigenvalue of about {lowest:.2g}",
            "take G instead of H, or the density's integral of a function of your own",
        )
    return np.maximum(nodes, 0.0)

"""The eigenvectors that ARPACK finds, with its tolerance relative to the norm of the matrix."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from scipy.sparse.linalg import LinearOperator

from hvp.errors import ConvergenceError
from hvp.linalg.counted_operator import CountedOperator

# A tolerance of eps to this power takes some hundred products where eigenvalues crowd.
LOOSE_TOL_EXPONENT = 0.25


def eigenvectors(
    A: CountedOperator,
    k: int,
    which: str,
    scale: float,
    ncv: int,
    tol: float,
    max_products: int,
    rng: np.random.Generator,
    partial: bool,
    start: np.ndarray | None,
) -> np.ndarray:
    """The (P, k) eigenvectors that ARPACK finds; with `partial` fewer, if only those converge."""
    # ARPACK fails on a zero operator, and works on any shift of it.
    shift = 0.0 if which == "LM" and scale > 0 else 2.0
    which = "LA" if which == "BE" and k == 1 else which
    restarts = max(1, max_products // (ncv - k))
    try:
        _, vectors = scipy.sparse.linalg.eigsh(
            _scaled(A, scale or 1.0, shift),
            k,
            which=which,
            ncv=ncv,
            maxiter=restarts,
            tol=tol,
            v0=start,
            rng=rng,
        )
    except scipy.sparse.linalg.ArpackNoConvergence as error:
        if partial and len(error.eigenvalues):
            return _orthonormal(error.eigenvectors)
        raise ConvergenceError(
            f"expected {k} pairs at {which} within {tol:.1e} of ‖A‖, got "
            f"{len(error.eigenvalues)} that converged after {A.count} products; "
            f"{advice(A, k, scale, tol, max_products)}"
        ) from error
    except scipy.sparse.linalg.ArpackError as error:
        raise ConvergenceError(f"expected {k} pairs at {which}, got {error}") from error
    return vectors


def _scaled(A: LinearOperator, scale: float, shift: float) -> LinearOperator:
    """A/scale + shift·I, whose eigenvalues are of order one, as ARPACK's test needs them."""
    factor = A.dtype.type(1 / scale)
    # All products are written into one vector; ARPACK copies what it gets.
    result = np.empty(A.shape[0], A.dtype)
    (axpy,) = scipy.linalg.get_blas_funcs(["axpy"], [result])

    def matvec(v: np.ndarray) -> np.ndarray:
        np.multiply(A.matvec(v), factor, out=result)
        return axpy(v, result, a=shift)

    return LinearOperator(A.shape, matvec=matvec, dtype=A.dtype)


def _orthonormal(vectors: np.ndarray) -> np.ndarray:
    """Columns that ARPACK returns before the end are orthogonal, but not all of length one."""
    orthonormal, _ = np.linalg.qr(vectors)
    return orthonormal


def advice(A: CountedOperator, k: int, scale: float, tol: float, max_products: int) -> str:
    """What lets the iteration converge where eigenvalues crowd, such as near zero."""
    looser = max(10 * tol, float(np.finfo(A.dtype).eps) ** LOOSE_TOL_EXPONENT)
    error = np.ldexp(looser * scale, A.exponent)
    wider = np.ldexp(looser * scale / tol, A.exponent)
    fewer = f", ask for fewer than {k} pairs" if k > 1 else ""
    return (
        f"accept errors up to {error:.1e} by tol={looser:.1e} or scale={wider:.1e} "
        f"(tol * scale is the absolute error){fewer}, or raise max_products ({max_products})"
    )

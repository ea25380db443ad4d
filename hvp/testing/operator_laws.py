"""Public checks of an operator: the laws that products must obey, each with its measured error.

They work on any SciPy operator and draw vectors with non-zero mean. They return the relative error
and raise AssertionError if it exceeds the bound, by default 1,000 roundings of the operator's
precision. They find mistakes of assembly; only an independent oracle can check the derivatives.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of

ROUNDINGS = 1000


def dot_test(
    A: LinearOperator, *, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN, bound: float | None = None
) -> float:
    """uᵀ(Av) = (Aᵀu)ᵀv: the adjoint is the transpose (Claerbout 1992).

    >>> from scipy.sparse.linalg import aslinearoperator
    >>> dot_test(aslinearoperator(np.ones((2, 3)))) < 1e-13
    True
    """
    seed = seed_of(seed, rng)
    return _transposed("dot test", A, A.rmatvec, seed, bound)


def symmetry(
    A: LinearOperator, *, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN, bound: float | None = None
) -> float:
    """uᵀ(Av) = (Au)ᵀv.

    >>> from scipy.sparse.linalg import aslinearoperator
    >>> symmetry(aslinearoperator(np.array([[0.0, 1.0], [2.0, 0.0]])))
    Traceback (most recent call last):
        ...
    AssertionError: symmetry: relative error 1.4e-01, expected at most 2.2e-13
    """
    seed = seed_of(seed, rng)
    return _transposed("symmetry", A, A.matvec, seed, bound)


def linearity(
    A: LinearOperator, *, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN, bound: float | None = None
) -> float:
    """A(au + bv) = a Au + b Av, and a block gives the columns' products.

    >>> from scipy.sparse.linalg import aslinearoperator
    >>> linearity(aslinearoperator(np.ones((2, 3)))) < 1e-13
    True
    """
    seed = seed_of(seed, rng)
    u, v = _vector(A, 1, seed), _vector(A, 1, seed + 1)
    Au, Av = A.matvec(u), A.matvec(v)
    combined = A.matvec((2 * u - 3 * v).astype(A.dtype))
    block = A.matmat(np.stack([u, v], axis=1))
    error = np.linalg.norm(combined - (2 * Au - 3 * Av))
    error += np.linalg.norm(block - np.stack([Au, Av], axis=1))
    return _checked("linearity", error, 2 * np.linalg.norm(Au) + 3 * np.linalg.norm(Av), A, bound)


def repeatability(
    A: LinearOperator, *, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN, bound: float | None = None
) -> float:
    """The same vector gives the same product.

    >>> from scipy.sparse.linalg import aslinearoperator
    >>> repeatability(aslinearoperator(np.ones((2, 3))))
    0.0
    """
    seed = seed_of(seed, rng)
    v = _vector(A, 1, seed)
    first, second = A.matvec(v), A.matvec(v)
    return _checked(
        "repeatability", np.linalg.norm(first - second), np.linalg.norm(first), A, bound
    )


def _transposed(
    law: str,
    A: LinearOperator,
    transpose: Callable[[np.ndarray], np.ndarray],
    seed: int,
    bound: float | None,
) -> float:
    """uᵀ(Av) against (Aᵀu)ᵀv."""
    u, v = _vector(A, 0, seed), _vector(A, 1, seed + 1)
    Av, Au = A.matvec(v), transpose(u)
    size = np.linalg.norm(u) * np.linalg.norm(Av) + np.linalg.norm(Au) * np.linalg.norm(v)
    return _checked(law, abs(_dot(u, Av) - _dot(Au, v)), size, A, bound)


def _vector(A: LinearOperator, axis: int, seed: int) -> np.ndarray:
    vector = 0.5 + np.random.default_rng(seed).standard_normal(A.shape[axis])
    return vector.astype(A.dtype)


def _dot(u: np.ndarray, v: np.ndarray) -> float:
    return float(np.dot(u.astype(np.float64), v.astype(np.float64)))


def _checked(
    law: str,
    error: float | np.floating,
    size: float | np.floating,
    A: LinearOperator,
    bound: float | None,
) -> float:
    """The relative error, zero where all is zero; a NaN fails."""
    relative = float(error / size) if error != 0 else 0.0
    bound = ROUNDINGS * float(np.finfo(A.dtype).eps) if bound is None else bound
    if not relative <= bound:
        raise AssertionError(f"{law}: relative error {relative:.1e}, expected at most {bound:.1e}")
    return relative

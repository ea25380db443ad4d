"""Principal angles between the spaces of two blocks of columns, in the memory of a few rows."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from hvp.linalg.blocks import float64_sum

# Rows that are worked on at once.
CHUNK_ROWS = 1 << 16


def principal_angles(U: np.ndarray, V: np.ndarray) -> np.ndarray:
    """(min(K, L),) the principal angles in radians of the columns U (P, K) and V (P, L), ascending.

    With orthonormal columns, the cosines are the singular values of UᵀV, and the sines those of
    V - U(UᵀV). Each angle is taken from the one that is accurate for it, as of Björck and Golub
    (1973). All sums are in float64, and nothing of length P is copied. (SciPy's
    `subspace_angles` takes all of a space for rounding where P times the precision of its columns
    is above one: from P = 2²³ on in float32.)

    The columns of each block must be independent.

    >>> principal_angles(np.array([[1.0], [0.0]]), np.array([[1.0], [1.0]])).round(6).tolist()
    [0.785398]
    """
    if U.shape[1] < V.shape[1]:
        U, V = V, U
    to_U, to_V = (_to_orthonormal(block) for block in (U, V))
    M = to_U.T @ float64_sum(lambda u, v: u.T @ v, U, V, chunk=CHUNK_ROWS) @ to_V

    def gram_of_rest(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        rest = v @ to_V - u @ (to_U @ M)
        return rest.T @ rest

    cosines = np.clip(np.linalg.svd(M, compute_uv=False), 0, 1)
    squared_sines = np.linalg.eigvalsh(float64_sum(gram_of_rest, U, V, chunk=CHUNK_ROWS))
    sines = np.sqrt(np.clip(squared_sines, 0, 1))
    return np.where(cosines**2 >= 0.5, np.arcsin(sines), np.arccos(cosines))


def _to_orthonormal(block: np.ndarray) -> np.ndarray:
    """T (K, K) for which the columns of block @ T are orthonormal."""
    gram = float64_sum(lambda x: x.T @ x, block, chunk=CHUNK_ROWS)
    return scipy.linalg.inv(scipy.linalg.cholesky(gram))

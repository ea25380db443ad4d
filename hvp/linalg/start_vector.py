"""The vectors that an iteration starts from: random, given, or earlier eigenvectors."""

from __future__ import annotations

import numpy as np

from hvp.errors import InputError
from hvp.linalg.blocks import dot

# Length of the random part, relative to the sum of the earlier eigenvectors.
RANDOM_SHARE = 0.03
# Entries of a vector that are converted to float64 at once.
CHUNK_ENTRIES = 1 << 16


def given(v0: np.ndarray, size: int, dtype: np.dtype) -> np.ndarray:
    """A vector (P,) from a user. Raises InputError where it cannot start an iteration."""
    v = np.asarray(v0)
    if v.shape != (size,) or v.dtype.kind not in "fiu":
        got = f"{v.dtype} of shape {v.shape}"
        raise InputError(f"a v0 of real numbers of shape ({size},)", got, "give one entry a row")
    length = float(np.sqrt(dot(v, v, CHUNK_ENTRIES)))
    if not 0 < length < np.inf:
        raise InputError("a finite v0 that is not zero", f"‖v0‖ = {length}", "leave it out")
    return (v / length).astype(dtype)


def summed(*blocks: np.ndarray) -> np.ndarray:
    """The sum (P,) of all columns of blocks (P, k)."""
    total = np.zeros(len(blocks[0]))
    for block in blocks:
        for column in block.T:
            total += column
    return total


def combined(vectors: np.ndarray, size: int, dtype: np.dtype, seed: int) -> np.ndarray:
    """The sum of earlier eigenvectors (P, k) and a random vector, of length one.

    Lanczos finds no direction that its start lacks. In the sum all earlier eigenvectors have the
    same weight; the random part has every other direction.
    """
    v, u = np.random.default_rng(seed).standard_normal(size), summed(_checked(vectors, size))
    v *= (RANDOM_SHARE * np.sqrt(np.dot(u, u)) or 1.0) / np.sqrt(np.dot(v, v))
    v += u
    return (v / np.sqrt(np.dot(v, v))).astype(dtype)


def earlier(vectors: np.ndarray, size: int, dtype: np.dtype) -> list[np.ndarray]:
    """Earlier eigenvectors, the columns of (P, k), of length one; zeros are left out."""
    vectors = _checked(vectors, size)
    lengths = [np.sqrt(dot(v, v, CHUNK_ENTRIES)) for v in vectors.T]
    return [
        (v / length).astype(dtype) for v, length in zip(vectors.T, lengths, strict=True) if length
    ]


def rows(
    given: list[np.ndarray], count: int, size: int, dtype: np.dtype, rng: np.random.Generator
) -> np.ndarray:
    """(count, P) random vectors of length one, the last of which are those given.

    Lanczos finds no direction that its start lacks: random ones have each.
    """
    found = np.empty((count, size), dtype)
    num_random = count - len(given)
    for row in found[:num_random]:
        rng.standard_normal(out=row, dtype=dtype)
        row /= np.sqrt(dot(row, row, CHUNK_ENTRIES))
    for row, vector in zip(found[num_random:], given, strict=True):
        row[:] = vector
    return found


def _checked(vectors: np.ndarray, size: int) -> np.ndarray:
    """Earlier eigenvectors (P, k). Raises InputError for another shape, NaN and infinity."""
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != size or not np.isfinite(vectors).all():
        is_other_shape = vectors.ndim != 2 or len(vectors) != size
        got = f"vectors of shape {vectors.shape}" if is_other_shape else "NaN or infinity"
        raise InputError(f"a start with finite vectors of shape ({size}, k)", got, "leave it out")
    return vectors

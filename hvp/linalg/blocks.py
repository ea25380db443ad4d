"""Blocks of column vectors: products, random probes, and sums in float64.

A block (P, K) has the operator's precision. Sums over its P rows are made in float64, a chunk of
rows at a time, so that no float64 copy of a whole vector is needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import threadpoolctl
from scipy.sparse.linalg import LinearOperator

# Columns that are multiplied at once.
BLOCK_COLUMNS = 16
# Rows of a block that are converted to float64 at once.
CHUNK_ROWS = 1 << 14
# Entries of a vector from which BLAS may use several threads. For shorter vectors a second thread
# does not help: memory is the limit, and the thread waits, spinning, on a core that products need.
MULTITHREADED_ENTRIES = 1 << 20


def multiply(A: LinearOperator, V: np.ndarray) -> np.ndarray:
    """AV (P, K), a few columns at once; V may be of another precision."""
    product = np.empty(V.shape, A.dtype, order="F")
    for columns in chunks(V.shape[1], BLOCK_COLUMNS):
        product[:, columns] = A.matmat(V[:, columns].astype(A.dtype, copy=False))
    return product


def gram(U: np.ndarray, V: np.ndarray) -> np.ndarray:
    """UᵀV (J, K) of two blocks, summed in float64."""
    return float64_sum(lambda u, v: u.T @ v, U, V)


def dot(u: np.ndarray, v: np.ndarray, chunk: int) -> float:
    """uᵀv of two vectors (P,), summed in float64."""
    return float64_sum(np.dot, u, v, chunk=chunk)


def squared_lengths(V: np.ndarray) -> np.ndarray:
    """(K,) ‖v‖² of the columns of a block, summed in float64."""
    return float64_sum(lambda v: np.sum(v**2, axis=0), V)


def float64_sum(function: Callable[..., Any], *arrays: np.ndarray, chunk: int = CHUNK_ROWS) -> Any:
    """The sum over chunks of rows of function(chunk of each array, in float64)."""
    total: Any = 0.0
    for rows in chunks(len(arrays[0]), chunk):
        total = total + function(*(array[rows].astype(np.float64) for array in arrays))
    return total


def chunks(length: int, size: int = CHUNK_ROWS) -> Iterator[slice]:
    """Slices of at most `size` that cover range(length); one empty slice for length 0."""
    return (slice(start, start + size) for start in range(0, max(length, 1), size))


def columns_within(max_bytes: int, size: int, itemsize: int) -> int:
    """How many vectors of so many entries take at most `max_bytes`, one at least."""
    return max(max_bytes // (size * itemsize), 1)


def gaussians(rng: np.random.Generator, size: int, count: int, dtype: np.dtype) -> np.ndarray:
    """(size, count) independent standard normal entries."""
    return rng.standard_normal((count, size), dtype=dtype).T


def signs(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """(size, count) independent entries ±1, one byte each."""
    return (2 * rng.integers(0, 2, (count, size), dtype=np.int8) - 1).T


def few_threads(size: int) -> AbstractContextManager[Any]:
    """A context that limits BLAS to one thread while vectors have fewer than 2²⁰ entries."""
    return nullcontext() if size >= MULTITHREADED_ENTRIES else _blas().limit(limits=1)


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController().select(user_api="blas")

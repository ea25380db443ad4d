"""Hutchinson's estimator: means over random signs, for few products or large operators.

Source: Hutchinson 1990; for the diagonal Bekas, Kokiopoulou and Saad 2007.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hvp.linalg.blocks import gram, signs
from hvp.linalg.counted_operator import CountedOperator
from hvp.linalg.estimate import HUTCHINSON, Estimate, standard_error_of_mean, student_factor

# The least number of products for a basis and two probes that test it.
MIN_BASIS_PRODUCTS = 4
# Probes that are multiplied at once.
BLOCK_PROBES = 4
# The most memory for the basis, its image and the probes.
MAX_BYTES = 1 << 33


def is_basis_possible(A: CountedOperator, num_products: int) -> bool:
    """Whether there are enough products, and enough memory, for a basis of the range of A."""
    num_bytes = num_products * A.shape[0] * A.dtype.itemsize
    return num_products >= MIN_BASIS_PRODUCTS and num_bytes <= MAX_BYTES


class _RunningMoments:
    """Mean and sum of squared deviations of vectors (P,), by running sums (Welford 1962)."""

    def __init__(self, size: int):
        self.count, self.mean, self.squares = 0, np.zeros(size), np.zeros(size)

    def add(self, V: np.ndarray, AV: np.ndarray) -> None:
        """Add the columns of V ∘ AV."""
        for v, product in zip(V.T, AV.T, strict=True):
            self.count += 1
            deviation = v * product - self.mean
            self.mean += deviation / self.count
            self.squares += deviation * (v * product - self.mean)


def hutchinson_trace(A: CountedOperator, num_products: int, seed: int) -> Estimate[float]:
    """The mean of the samples ωᵀAω over random signs."""
    samples, diagonals = [], _RunningMoments(A.shape[0])

    def add(V: np.ndarray, AV: np.ndarray) -> None:
        samples.append(np.einsum("pk,pk->k", V, AV, dtype=np.float64))
        diagonals.add(V, AV)

    _for_each_block(A, num_products, seed, add)
    variance = float(diagonals.squares.sum()) / max(num_products - 1, 1)
    return _mean(A, samples, trace_error(variance, num_products))


def trace_error(variance: float, count: int) -> float:
    """The standard error of a mean of ωᵀAω by the variances of the entries of ω ∘ Aω.

    The variance of ωᵀAω over random signs is 2 Σ A_ij² over i ≠ j: twice the sum of the variances
    of the entries. It is known better than by the spread of a few samples, which may agree by
    chance.

    Args:
        variance: the sum of the entries' variances.
        count: the number of samples in the mean.
    """
    if count < 2:
        return np.nan
    return student_factor(count - 1) * float(np.sqrt(2 * variance / count))


def hutchinson_squared_norm(A: CountedOperator, num_products: int, seed: int) -> Estimate[float]:
    """The mean of the samples ‖Aω‖² over random signs."""
    samples, inner_squares = [], []

    def add(_: np.ndarray, AV: np.ndarray) -> None:
        inner = gram(AV, AV)
        samples.append(np.diag(inner).copy())
        inner_squares.append(inner[~np.eye(len(inner), dtype=bool)] ** 2)

    _for_each_block(A, num_products, seed, add)
    min_error = squared_norm_error(
        np.concatenate(samples), np.concatenate(inner_squares), A.shape[0]
    )
    return _mean(A, samples, min_error)


def squared_norm_error(samples: np.ndarray, inner_squares: np.ndarray, size: int) -> float:
    """The standard error of a mean of ‖Aω‖² by the inner products of pairs of Aω.

    The variance of ‖Aω‖² over random signs is at most 2‖A²‖²_F - 2‖A‖⁴_F/P, and ‖A²‖²_F is the mean
    of (ωᵀA²ω')² of independent probes. Few of these pairs are skewed to small values; the result is
    raised by 1/s for that.

    Args:
        samples: (s,) the ‖Aω‖².
        inner_squares: (ωᵀA²ω')² of pairs.
        size: P.
    """
    count = len(samples)
    if count < 2:
        return np.nan
    variance = max(float(inner_squares.mean() - samples.mean() ** 2 / size), 0.0)
    error = student_factor(count - 1) * np.sqrt(2 * variance / count)
    return float((1 + 1 / count) * error)


def _mean(A: CountedOperator, samples: list[np.ndarray], min_error: float) -> Estimate[float]:
    joined = np.concatenate(samples)
    stderr = max(float(standard_error_of_mean(joined)), min_error)
    return Estimate(float(joined.mean()), stderr, A.count, method=HUTCHINSON)


def hutchinson_diagonal(A: CountedOperator, num_products: int, seed: int) -> Estimate[np.ndarray]:
    """The mean (P,) of ω ∘ Aω over random signs, and its standard errors by running sums."""
    found = _RunningMoments(A.shape[0])
    _for_each_block(A, num_products, seed, found.add)
    pairs = found.count * (found.count - 1)
    if not pairs:
        return Estimate(found.mean, np.full_like(found.mean, np.nan), A.count, method=HUTCHINSON)
    stderr = student_factor(found.count - 1) * np.sqrt(found.squares / pairs)
    return Estimate(found.mean, stderr, A.count, method=HUTCHINSON)


def _for_each_block(
    A: CountedOperator,
    num_products: int,
    seed: int,
    function: Callable[[np.ndarray, np.ndarray], None],
) -> None:
    """Call function(V, AV) on blocks of random signs V, `num_products` columns in all."""
    rng = np.random.default_rng(seed)
    for start in range(0, num_products, BLOCK_PROBES):
        V = signs(rng, A.shape[0], min(BLOCK_PROBES, num_products - start)).astype(A.dtype)
        AV = A.matmat(V)
        A.check_symmetry(V, AV)
        function(V, AV)

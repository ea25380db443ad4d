"""Sampling errors, the standard errors over the choice of examples, from sums over batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class BatchForms:
    """The quadratic forms vᵀAv of each batch's share A of a matrix, for the K columns v of a block.

    Attributes:
        shares: (B, K) by batch; their sum plus `penalty` is the form of the whole matrix.
        penalty: (K,) the forms of the penalties on the weights.
        examples: (B,) the number of examples in each batch.
    """

    shares: np.ndarray
    penalty: np.ndarray
    examples: np.ndarray

    @property
    def stderr(self) -> np.ndarray:
        """(K,) the sampling errors of the forms."""
        return sampling_error(self.shares, self.examples)


@dataclass(frozen=True, eq=False)
class BatchGrams:
    """The matrices VᵀAV of each batch's share A of a matrix, for the K columns of a block V.

    Attributes:
        shares: (B, K, K) by batch; their sum plus `penalty` is VᵀAV of the whole matrix.
        penalty: (K, K) VᵀAV of the penalties on the weights.
        examples: (B,) the number of examples in each batch.
    """

    shares: np.ndarray
    penalty: np.ndarray
    examples: np.ndarray

    def grouped(self, most: int) -> BatchGrams:
        """The sums over at most `most` groups of neighbouring batches."""
        count = len(self.examples)
        starts = np.unique(np.linspace(0, count, min(count, most), endpoint=False).astype(int))
        shares, examples = (
            np.add.reduceat(each, starts, axis=0) for each in (self.shares, self.examples)
        )
        return BatchGrams(shares, self.penalty, examples)

    def left_out(self, whole: np.ndarray) -> np.ndarray:
        """(B, K, K) the matrix of all other batches, given that of the whole (K, K)."""
        remaining = 1 - self.examples / self.examples.sum()
        return (whole - self.penalty - self.shares) / remaining[:, None, None] + self.penalty


def jackknife(left_out: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """The sampling error (…) of a figure, from its values without each of B batches, by S probes.

    It is √(Σ_b (1 - n_b/N) (θ_b - θ̄)²), with θ_b (B, S, …) averaged over the probes. The variance
    that differences between the probes add is subtracted, as long as at least half of the error
    remains: few probes do not allow more, and a single one allows nothing. For a figure that is
    linear in the matrix, and equal batches, it is `sampling_error` (Efron and Stein 1981; for
    groups Kott 2001). Vectors and spaces that were projected out are held fixed. NaN for a single
    batch.

    Args:
        left_out: (B, S, …) the figure without each batch, by probe.
        examples: (B,) n_b, the number of examples in each batch.

    >>> jackknife(np.array([[3.0], [1.0]]), np.array([10, 10])).tolist()
    1.0
    """
    count, probes = left_out.shape[:2]
    if count < 2:
        return np.full(left_out.shape[2:], np.nan)
    remaining = (1 - examples / examples.sum()).reshape(-1, *[1] * (left_out.ndim - 2))
    mean = np.sum(remaining[:, None] * left_out, axis=0) / (count - 1)
    deviations = left_out - mean
    variance = np.sum(remaining * deviations.mean(axis=1) ** 2, axis=0)
    if probes > 1:
        probe_variance = np.sum(remaining * deviations.var(axis=1, ddof=1), axis=0) / probes
        variance = np.maximum(variance - probe_variance, variance / 4)
    return np.sqrt(variance)


def sampling_error(shares: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """The sampling error (K,) of Σ_b shares (B, K): its standard error over the choice of examples.

    A share is n_b/N times the mean m_b over the n_b examples of a batch. The variance of m_b is
    σ²/n_b, that of the sum m is σ²/N, and σ² is estimated by Σ n_b (m_b - m)² / (B - 1) (Cochran
    1977, section 5.2). Batches are assumed to be random samples: for data in an order, by class for
    instance, the result is too large. The vectors are held fixed: a top eigenvector also fits the
    noise of its own sample, which makes its eigenvalue too large, and this bias is not included.

    NaN for a single batch.

    Args:
        shares: (B, K) by batch.
        examples: (B,) n_b, the number of examples in each batch.

    >>> sampling_error(np.array([[1.0], [3.0]]), np.array([10, 10])).tolist()
    [2.0]
    """
    count = len(examples)
    if count < 2:
        return np.full(shares.shape[1], np.nan)
    weights = (examples / examples.sum())[:, None]
    spread = weights * (shares / weights - shares.sum(axis=0)) ** 2
    return np.sqrt(spread.sum(axis=0) / (count - 1))

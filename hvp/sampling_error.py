"""What the sample of examples adds to the error of a form vᵀAv, told from its batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class BatchForms:
    """The forms vᵀAv of each batch's share A of a matrix, for the K columns v of a block.

    Attributes:
        shares: (B, K) by batch; with `penalty` they add up to the forms of the whole.
        penalty: (K,) what penalties on the weights add.
        examples: (B,) how many examples each batch holds.
    """

    shares: np.ndarray
    penalty: np.ndarray
    examples: np.ndarray

    @property
    def stderr(self) -> np.ndarray:
        """(K,) the standard errors of the forms, had other examples been drawn."""
        return sampling_error(self.shares, self.examples)


@dataclass(frozen=True, eq=False)
class BatchGrams:
    """The matrices VᵀAV of each batch's share A of a matrix, for the K columns of a block V.

    Attributes:
        shares: (B, K, K) by batch; with `penalty` they add up to that of the whole.
        penalty: (K, K) what penalties on the weights add.
        examples: (B,) how many examples each batch holds.
    """

    shares: np.ndarray
    penalty: np.ndarray
    examples: np.ndarray

    def grouped(self, most: int) -> BatchGrams:
        """The same with neighbouring batches taken together, to at most so many groups."""
        count = len(self.examples)
        starts = np.unique(np.linspace(0, count, min(count, most), endpoint=False).astype(int))
        shares, examples = (
            np.add.reduceat(each, starts, axis=0) for each in (self.shares, self.examples)
        )
        return BatchGrams(shares, self.penalty, examples)

    def left_out(self, whole: np.ndarray) -> np.ndarray:
        """(B, K, K) what the matrix of the whole would be without each batch."""
        kept = 1 - self.examples / self.examples.sum()
        return (whole - self.penalty - self.shares) / kept[:, None, None] + self.penalty


def jackknife(left_out: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """The standard error of a figure from its values without each of B batches, by S probes.

    √(Σ_b (1 - n_b/N) (θ_b - θ̄)²) for θ_b (B, S, …) averaged over the probes, less what their
    differences add to that, down to a half of it: few probes cannot tell more, and a single one
    nothing. Where the figure is linear in the matrix, and batches are equal, it is `sampling_error`
    (Efron and Stein 1981; for groups Kott 2001). Vectors and spaces that were projected out are
    held fixed. NaN for a single batch.

    >>> jackknife(np.array([[3.0], [1.0]]), np.array([10, 10])).tolist()
    1.0
    """
    count, probes = left_out.shape[:2]
    if count < 2:
        return np.full(left_out.shape[2:], np.nan)
    kept = (1 - examples / examples.sum()).reshape(-1, *[1] * (left_out.ndim - 2))
    mean = np.sum(kept[:, None] * left_out, axis=0) / (count - 1)
    apart = left_out - mean
    variance = np.sum(kept * apart.mean(axis=1) ** 2, axis=0)
    if probes > 1:
        noise = np.sum(kept * apart.var(axis=1, ddof=1), axis=0) / probes
        variance = np.maximum(variance - noise, variance / 4)
    return np.sqrt(variance)


def sampling_error(shares: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """The standard error (K,) of Σ_b shares (B, K), had other N examples been drawn.

    A share is the batch's n_b/N times a mean m_b over its examples, whose variance is σ²/n_b. That
    of the sum is σ²/N, and σ² is estimated by Σ n_b (m_b - m)² / (B - 1) with the sum m (Cochran
    1977, section 5.2). Batches are taken for random samples: of data that lie in an order, by class
    say, they tell too large an error. The vectors are held fixed: that a top eigenvector also fits
    the noise of its own sample, and its eigenvalue is high for it, is no part of it.

    NaN for a single batch, which cannot tell.

    >>> sampling_error(np.array([[1.0], [3.0]]), np.array([10, 10])).tolist()
    [2.0]
    """
    count = len(examples)
    if count < 2:
        return np.full(shares.shape[1], np.nan)
    weights = (examples / examples.sum())[:, None]
    spread = weights * (shares / weights - shares.sum(axis=0)) ** 2
    return np.sqrt(spread.sum(axis=0) / (count - 1))

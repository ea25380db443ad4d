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

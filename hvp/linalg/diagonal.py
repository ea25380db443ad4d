"""The diagonal of a symmetric operator from a few products."""

from __future__ import annotations

import numpy as np

from hvp.linalg.blocks import chunks, few_threads
from hvp.linalg.counted_operator import CountedOperator, Operator, check_num_products
from hvp.linalg.deflation import deflate
from hvp.linalg.estimate import (
    DEFLATED,
    HUTCHINSON,
    UNIT_VECTORS,
    Estimate,
    standard_error_of_mean,
)
from hvp.linalg.hutchinson import hutchinson_diagonal, is_basis_possible
from hvp.progress import ProgressHook
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of

# Two probes are the fewest that have a standard error.
MIN_PROBES = 2


def diagonal(
    A: Operator,
    *,
    num_products: int = 96,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
    progress: ProgressHook | None = None,
) -> Estimate[np.ndarray]:
    """diag A of a symmetric operator, (P,), every entry with its standard error.

    A third of the products finds an orthonormal basis Q of the range of A on random signs, and a
    third is AQ. The other s products are with independent random signs ωᵢ. With Π = QQᵀ the samples

        xᵢ = diag(ΠA + AΠ - ΠAΠ) + ωᵢ ∘ (I - Π)A(I - Π)ωᵢ

    are unbiased and, given Q, independent: the estimate is their mean, with the standard error of a
    mean. It is exact where the rank is at most num_products / 3. There is no basis from fewer than
    4 products, or where the vectors in memory, 1.1 per product, would take more than 8 GiB. From P
    products or more the result is the diagonal itself. `method` of the result says which.

    Arguments and errors are those of `trace`.

    Source: the split is that of Hutch++ (Meyer, Musco, Musco and Woodruff 2021), on both sides.
    The samples of XDiag (Epperly, Tropp and Webber 2024) depend on each other: with few probes,
    their spread is no estimate of the error on a matrix that is nearly diagonal.

    >>> A = np.diag([1.0, 2.0, 4.0] + 97 * [0.0])
    >>> diagonal(A, num_products=20).value.round(9)[:4].tolist()
    [1.0, 2.0, 4.0, 0.0]
    """
    seed = seed_of(seed, rng)
    check_num_products(num_products)
    counted = CountedOperator(A, progress)
    counted.total = min(num_products, counted.shape[0])
    size = counted.shape[0]
    with few_threads(size):
        if num_products >= size:
            exact = np.diag(counted.dense()).astype(float)
            return Estimate(exact, np.zeros(size), size, method=UNIT_VECTORS)
        if not is_basis_possible(counted, num_products):
            return hutchinson_diagonal(counted, num_products, seed)
        return _deflated_diagonal(counted, num_products, seed)


def _deflated_diagonal(A: CountedOperator, num_products: int, seed: int) -> Estimate[np.ndarray]:
    size = A.shape[0]
    split = deflate(A, num_products, np.random.default_rng(seed), MIN_PROBES)
    value, stderr = np.empty(size), np.empty(size)
    for rows in chunks(size):
        known = 2 * np.einsum("pq,pq->p", split.Q[rows], split.F[rows], dtype=np.float64)
        samples = split.probes[rows] * split.remainder[rows].astype(np.float64)
        value[rows] = known + samples.mean(axis=1)
        stderr[rows] = standard_error_of_mean(samples.T)
    method = DEFLATED if split.Q.shape[1] else HUTCHINSON
    return Estimate(value, stderr, A.count, method=method)

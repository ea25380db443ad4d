"""Hutchinson's estimator: means over random signs, for few products or large operators.

Source: Hutchinson 1990; for the diagonal Bekas, Kokiopoulou and Saad 2007.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hvp.linalg.blocks import signs
from hvp.linalg.counted_operator import CountedOperator
from hvp.linalg.estimate import HUTCHINSON, Estimate, standard_error_of_mean

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


def hutchinson_mean(
    A: CountedOperator,
    num_products: int,
    seed: int,
    sample: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Estimate[float]:
    """The mean of the samples (K,) that `sample` makes of probes V (P, K) and AV (P, K)."""
    found: list[np.ndarray] = []
    _for_each_block(A, num_products, seed, lambda V, AV: found.append(sample(V, AV)))
    samples = np.concatenate(found)
    stderr = float(standard_error_of_mean(samples))
    return Estimate(float(samples.mean()), stderr, A.count, method=HUTCHINSON)


def hutchinson_diagonal(A: CountedOperator, num_products: int, seed: int) -> Estimate[np.ndarray]:
    """The mean (P,) of ω ∘ Aω over random signs, and its standard errors by running sums."""
    count, mean, squares = 0, np.zeros(A.shape[0]), np.zeros(A.shape[0])

    def add(V: np.ndarray, AV: np.ndarray) -> None:
        nonlocal count
        for v, product in zip(V.T, AV.T, strict=True):  # Welford 1962
            count += 1
            deviation = v * product - mean
            mean[:] += deviation / count
            squares[:] += deviation * (v * product - mean)

    _for_each_block(A, num_products, seed, add)
    pairs = count * (count - 1)
    stderr = np.sqrt(squares / pairs) if pairs else np.full_like(mean, np.nan)
    return Estimate(mean, stderr, A.count, method=HUTCHINSON)


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

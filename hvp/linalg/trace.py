"""Trace and Frobenius norms of a symmetric operator from a few products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hvp.linalg.blocks import (
    BLOCK_COLUMNS,
    chunks,
    few_threads,
    gaussians,
    gram,
    multiply,
    squared_lengths,
)
from hvp.linalg.counted_operator import CountedOperator, Operator, check_num_products
from hvp.linalg.estimate import UNIT_VECTORS, XTRACE, Estimate
from hvp.linalg.hutchinson import (
    hutchinson_squared_norm,
    hutchinson_trace,
    is_basis_possible,
)
from hvp.linalg.xtrace import (
    Sketch,
    SketchedMatrix,
    leave_one_out,
    leave_two_out,
    sketch,
    standard_error,
)
from hvp.progress import ProgressHook
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of


def trace(
    A: Operator,
    *,
    num_products: int = 96,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
    progress: ProgressHook | None = None,
) -> Estimate[float]:
    """tr A of a symmetric operator, by XTrace.

    Of s = num_products / 2 Gaussian probes each is the test vector of the others' range, ::

        xᵢ = tr(Q₍ᵢ₎ᵀ A Q₍ᵢ₎) + (P - rᵢ) uᵢᵀAuᵢ,    uᵢ = (I - Q₍ᵢ₎Q₍ᵢ₎ᵀ)ωᵢ, normalised,

    with Q₍ᵢ₎ (P, rᵢ) an orthonormal basis of A times the other probes. Every xᵢ is unbiased. Their
    mean is the estimate, exact where the rank is below s. Its standard error accounts for the
    probes that the xᵢ have in common; where s is about the rank it may still be too small.

    From fewer than 4 products, or where 2s vectors take more than 8 GiB, the estimate is
    Hutchinson's mean of ωᵀAω over random signs; its standard error is NaN for a single product.
    From P products or more it is the sum of the diagonal itself. `method` of the result says which.
    At most 2s vectors are in memory, and two blocks of 16 while these are multiplied.

    Args:
        A: a SciPy LinearOperator or matrix of shape (P, P), real and symmetric.
        num_products: products with A, at most; XTrace makes an even number.
        seed: of the probes.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).
        progress: called with the number of products so far, a `hvp.Progress`.

    Raises:
        InputError: A is not symmetric, a product is not finite, or num_products is below 1.

    Source: Epperly, Tropp and Webber 2024, *XTrace: making the most of every sample in stochastic
    trace estimation*, sections 2.1 to 2.4; Hutchinson 1990.

    >>> A = np.diag([1.0, 2.0, 4.0] + 97 * [0.0])
    >>> print(trace(A, num_products=20).value.__round__(9))
    7.0
    """
    seed = seed_of(seed, rng)
    check_num_products(num_products)
    counted = CountedOperator(A, progress)
    counted.total = min(num_products, counted.shape[0])
    with few_threads(counted.shape[0]):
        if num_products >= counted.shape[0]:
            return _exact(counted, lambda matrix: np.trace(matrix, dtype=float))
        if not is_basis_possible(counted, num_products):
            return hutchinson_trace(counted, num_products, seed)
        return _xtrace(counted, num_products // 2, seed)


def squared_frobenius_norm(
    A: Operator,
    *,
    num_products: int = 96,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
    progress: ProgressHook | None = None,
) -> Estimate[float]:
    """‖A‖²_F = tr A² of a symmetric operator, unbiased, from single products with A.

    As `trace`, with ::

        xᵢ = ‖A Q₍ᵢ₎‖²_F + (P - rᵢ) ‖Auᵢ‖².

    It is exact where the rank is below num_products / 2; otherwise its variance is that of what
    the ranges of the Q₍ᵢ₎ leave. From few products, or for large operators, it is the mean of
    ‖Aω‖². Arguments, memory and errors are those of `trace`.

    >>> A = np.diag([1.0, 2.0, 4.0] + 97 * [0.0])
    >>> print(squared_frobenius_norm(A, num_products=20).value.__round__(9))
    21.0
    """
    seed = seed_of(seed, rng)
    check_num_products(num_products)
    counted = CountedOperator(A, progress)
    counted.total = min(num_products, counted.shape[0])
    with few_threads(counted.shape[0]):
        if num_products >= counted.shape[0]:
            return _exact(counted, lambda matrix: np.sum(squared_lengths(matrix)))
        if not is_basis_possible(counted, num_products):
            return hutchinson_squared_norm(counted, num_products, seed)
        return _xtrace_of_square(counted, num_products // 2, seed)


def frobenius_norm(
    A: Operator,
    *,
    num_products: int = 96,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
    progress: ProgressHook | None = None,
) -> Estimate[float]:
    """‖A‖_F of a symmetric operator, the root of `squared_frobenius_norm`.

    The standard error is the distance to the root of the square less its standard error: more than
    to first order where the error is not small relative to the value. Arguments, memory and errors
    are those of `trace`.

    >>> print(frobenius_norm(np.diag([3.0, 4.0])))
    5 ± 0
    """
    seed = seed_of(seed, rng)
    square = squared_frobenius_norm(A, num_products=num_products, seed=seed, progress=progress)
    value = float(np.sqrt(square.value))
    # x - √(x² - e), without cancellation; the value itself where the error e is more than x².
    lowest = np.sqrt(np.maximum(square.value - square.stderr, 0.0))
    stderr = float(min(square.stderr / (value + lowest), value)) if value else 0.0
    return Estimate(value, stderr, square.num_products, method=square.method)


def _exact(A: CountedOperator, function: Callable[[np.ndarray], float]) -> Estimate[float]:
    return Estimate(float(function(A.dense())), 0.0, A.count, method=UNIT_VECTORS)


def _xtrace(A: CountedOperator, num_probes: int, seed: int) -> Estimate[float]:
    basis, lengths = _gaussian_sketch(A, num_probes, seed)
    inner = np.zeros((basis.Q.shape[1],) * 2)  # QᵀAQ, a few columns at once
    for columns in chunks(len(inner), BLOCK_COLUMNS):
        inner[:, columns] = gram(basis.Q, multiply(A, basis.Q[:, columns]))
    forms = np.sum(basis.probes * basis.products, axis=0)
    return _mean(basis, SketchedMatrix(inner, basis.products, forms, lengths), A)


def _xtrace_of_square(A: CountedOperator, num_probes: int, seed: int) -> Estimate[float]:
    basis, lengths = _gaussian_sketch(A, num_probes, seed)
    AQ = multiply(A, basis.Q)
    images, forms = gram(basis.Q, AQ) @ basis.products, np.sum(basis.products**2, axis=0)
    return _mean(basis, SketchedMatrix(gram(AQ, AQ), images, forms, lengths), A)


def _gaussian_sketch(A: CountedOperator, num_probes: int, seed: int) -> tuple[Sketch, np.ndarray]:
    """The sketch by Gaussian probes, and their squared lengths."""
    probes = gaussians(np.random.default_rng(seed), A.shape[0], num_probes, A.dtype)
    lengths = squared_lengths(probes)
    return sketch(A, probes), lengths


def _mean(basis: Sketch, B: SketchedMatrix, A: CountedOperator) -> Estimate[float]:
    samples = leave_one_out(basis, B)
    stderr = standard_error(samples, leave_two_out(basis, B))
    return Estimate(float(samples.mean()), stderr, A.count, method=XTRACE)

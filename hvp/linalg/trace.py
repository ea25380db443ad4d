"""Trace, diagonal and Frobenius norm of a symmetric operator from a few products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hvp.linalg.blocks import (
    COLUMNS,
    ROWS,
    Sketch,
    check_budget,
    dense,
    gaussians,
    gram,
    multiply,
    parted,
    signs,
    sketch,
    squares,
)
from hvp.linalg.counted_operator import CountedOperator
from hvp.linalg.estimate import Estimate
from hvp.linalg.threads import few_threads
from hvp.linalg.xtrace import Form, leave_one_out, leave_two_out, standard_error

# Two probes of two products each give a standard error.
FEWEST = 4
# Probes beside a basis.
FEWEST_BESIDE = 2
# Bytes of the blocks of vectors, beyond which single probes are taken.
MOST_MEMORY = 1 << 33
EXACT, HUTCHINSON, XTRACE = "unit vectors", "Hutchinson", "XTrace"
BASIS = "Hutchinson beside a basis"


def trace(
    A: Any,
    *,
    num_products: int = 96,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Estimate[float]:
    """tr A of a symmetric operator, by XTrace.

    Of s = num_products / 2 Gaussian probes each is the test vector of the others' range, ::

        xᵢ = tr(Q₍ᵢ₎ᵀ A Q₍ᵢ₎) + (P - rᵢ) uᵢᵀAuᵢ,    uᵢ = (I - Q₍ᵢ₎Q₍ᵢ₎ᵀ)ωᵢ, normalised,

    with Q₍ᵢ₎ (P, rᵢ) a basis of A times the other probes. Every xᵢ is unbiased, and their mean is
    the estimate, exact where the rank is below s. Its standard error takes into account that the xᵢ
    have probes in common; where s is about the rank it may still be low.

    From fewer than 4 products, or where 2s vectors are more than 8 GiB, Hutchinson's mean of ωᵀAω
    over random signs, with a standard error of NaN from a single product; from P products or more
    the diagonal itself. `method` of the result says which. 2s vectors are held at most, and two
    blocks of 16 while these are multiplied.

    Args:
        A: a SciPy LinearOperator or matrix of shape (P, P), real and symmetric.
        num_products: products with A, at most; an odd one is left over.
        seed: of the probes.
        progress: called with the number of products so far.

    Raises:
        InputError: no symmetric operator, a product that is not finite, num_products below 1.

    Source: Epperly, Tropp and Webber 2024, *XTrace: making the most of every sample in stochastic
    trace estimation*, sections 2.1 to 2.4; Hutchinson 1990.

    >>> A = np.diag([1.0, 2.0, 4.0] + 97 * [0.0])
    >>> print(trace(A, num_products=20).value.__round__(9))
    7.0
    """
    counted = _counted(A, num_products, progress)
    with few_threads(counted.shape[0]):
        return _trace(counted, num_products, seed)


def squared_frobenius_norm(
    A: Any,
    *,
    num_products: int = 96,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Estimate[float]:
    """‖A‖²_F = tr A² of a symmetric operator, unbiased, from single products with A.

    As `trace`, with ::

        xᵢ = ‖A Q₍ᵢ₎‖²_F + (P - rᵢ) ‖Auᵢ‖²,

    which is exact where the rank is below num_products / 2, and otherwise has the variance of the
    rest that Q₍ᵢ₎ does not reach. From few products, or for large operators, the mean of ‖Aω‖².
    Arguments, memory and errors are those of `trace`.

    >>> A = np.diag([1.0, 2.0, 4.0] + 97 * [0.0])
    >>> print(squared_frobenius_norm(A, num_products=20).value.__round__(9))
    21.0
    """
    counted = _counted(A, num_products, progress)
    with few_threads(counted.shape[0]):
        return _squared_frobenius_norm(counted, num_products, seed)


def frobenius_norm(
    A: Any,
    *,
    num_products: int = 96,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Estimate[float]:
    """‖A‖_F of a symmetric operator, the root of `squared_frobenius_norm`.

    The standard error is carried over to first order, so that value and error hold where the error
    is small beside the value. Arguments, memory and errors are those of `trace`.

    >>> print(frobenius_norm(np.diag([3.0, 4.0])))
    5 ± 0
    """
    square = squared_frobenius_norm(A, num_products=num_products, seed=seed, progress=progress)
    value = float(np.sqrt(square.value))
    stderr = square.stderr / (2 * value) if value else 0.0
    return Estimate(value, stderr, square.num_products, method=square.method)


def diagonal(
    A: Any,
    *,
    num_products: int = 96,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Estimate[np.ndarray]:
    """diag A of a symmetric operator, (P,), every entry with its standard error.

    A third of the products find an orthonormal basis Q of the range of A on random signs, and a
    third AQ; on the other s products, with independent random signs ωᵢ, and P = QQᵀ ::

        xᵢ = diag(PA + AP - PAP) + ωᵢ ∘ (I - P)A(I - P)ωᵢ,

    are unbiased and, given Q, independent: the estimate is their mean, the standard error that of a
    mean. Exact where the rank is at most num_products / 3. From fewer than 4 products, or where the
    vectors held, 1.1 a product, are more than 8 GiB, without a basis (Bekas, Kokiopoulou and Saad
    2007); from P products or more the diagonal itself. Arguments and errors are those of `trace`.

    Source: the parting is that of Hutch++ (Meyer, Musco, Musco and Woodruff 2021), on both sides.
    The samples of XDiag (Epperly, Tropp and Webber 2024) depend on each other: with few probes,
    their spread says nothing of the error on a matrix that is nearly diagonal.

    >>> A = np.diag([1.0, 2.0, 4.0] + 97 * [0.0])
    >>> diagonal(A, num_products=20).value.round(9)[:4].tolist()
    [1.0, 2.0, 4.0, 0.0]
    """
    counted = _counted(A, num_products, progress)
    with few_threads(counted.shape[0]):
        return _diagonal(counted, num_products, seed)


def _trace(A: CountedOperator, num_products: int, seed: int) -> Estimate[float]:
    if num_products >= A.shape[0]:
        return Estimate(float(np.trace(dense(A), dtype=float)), 0.0, A.count, method=EXACT)
    if not _fits(A, num_products):
        samples = _single(A, num_products, seed, _forms)
        return _mean(samples, A, HUTCHINSON)
    basis, lengths = _sketched(A, num_products // 2, seed)
    inner = np.zeros((basis.Q.shape[1],) * 2)  # QᵀAQ, a few columns at once
    for start in range(0, len(inner), COLUMNS):
        columns = slice(start, start + COLUMNS)
        inner[:, columns] = gram(basis.Q, multiply(A, basis.Q[:, columns]))
    own = np.sum(basis.probes * basis.products, axis=0)
    return _exchangeable(basis, Form(inner, basis.products, own, lengths), A)


def _squared_frobenius_norm(A: CountedOperator, num_products: int, seed: int) -> Estimate[float]:
    if num_products >= A.shape[0]:
        return Estimate(float(np.sum(squares(dense(A)))), 0.0, A.count, method=EXACT)
    if not _fits(A, num_products):
        samples = _single(A, num_products, seed, lambda V, AV: squares(AV))
        return _mean(samples, A, HUTCHINSON)
    basis, lengths = _sketched(A, num_products // 2, seed)
    AQ = multiply(A, basis.Q)
    inner, outer = gram(basis.Q, AQ), gram(AQ, AQ)
    images, own = inner @ basis.products, np.sum(basis.products**2, axis=0)
    return _exchangeable(basis, Form(outer, images, own, lengths), A)


def _diagonal(A: CountedOperator, num_products: int, seed: int) -> Estimate[np.ndarray]:
    size = A.shape[0]
    if num_products >= size:
        return Estimate(np.diag(dense(A)).astype(float), np.zeros(size), size, method=EXACT)
    if not _fits(A, num_products):
        return _plain_diagonal(A, num_products, seed)
    parts = parted(A, num_products, np.random.default_rng(seed), FEWEST_BESIDE)
    value, stderr = np.empty(size), np.empty(size)
    for start in range(0, size, ROWS):
        rows = slice(start, start + ROWS)
        known = 2 * np.einsum("pq,pq->p", parts.Q[rows], parts.F[rows], dtype=np.float64)
        samples = parts.probes[rows] * parts.rest[rows].astype(np.float64)
        value[rows] = known + samples.mean(axis=1)
        stderr[rows] = samples.std(axis=1, ddof=1) / np.sqrt(samples.shape[1])
    method = BASIS if parts.Q.shape[1] else HUTCHINSON
    return Estimate(value, stderr, A.count, method=method)


def _counted(A: Any, num_products: int, progress: Callable[[int], None] | None) -> CountedOperator:
    check_budget(num_products)
    return CountedOperator(A, progress)


def _fits(A: CountedOperator, num_products: int) -> bool:
    """Whether there are products, and is memory, for a basis."""
    return num_products >= FEWEST and num_products * A.shape[0] * A.dtype.itemsize <= MOST_MEMORY


def _sketched(A: CountedOperator, count: int, seed: int) -> tuple[Sketch, np.ndarray]:
    """The basis of so many Gaussian probes, and their squared lengths."""
    probes = gaussians(np.random.default_rng(seed), A.shape[0], count, A.dtype)
    lengths = squares(probes)
    return sketch(A, probes), lengths


def _mean(samples: np.ndarray, A: CountedOperator, method: str) -> Estimate[float]:
    count = len(samples)
    stderr = samples.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return Estimate(float(samples.mean()), float(stderr), A.count, method=method)


def _exchangeable(basis: Sketch, form: Form, A: CountedOperator) -> Estimate[float]:
    samples = leave_one_out(basis, form)
    stderr = standard_error(samples, leave_two_out(basis, form))
    return Estimate(float(samples.mean()), stderr, A.count, method=XTRACE)


def _forms(V: np.ndarray, AV: np.ndarray) -> np.ndarray:
    return np.einsum("pk,pk->k", V, AV, dtype=np.float64)


def _single(
    A: CountedOperator,
    num_products: int,
    seed: int,
    sample: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """A sample from each of num_products random signs, a few of which are held at once."""
    rng = np.random.default_rng(seed)
    samples = []
    for start in range(0, num_products, FEWEST):
        V = signs(rng, A.shape[0], min(FEWEST, num_products - start)).astype(A.dtype)
        AV = A.matmat(V)
        A.check_symmetry(V, AV)
        samples.append(sample(V, AV))
    return np.concatenate(samples)


def _plain_diagonal(A: CountedOperator, num_products: int, seed: int) -> Estimate[np.ndarray]:
    """The mean of ω ∘ Aω, and its standard error from running sums."""
    count, mean, spread = 0, np.zeros(A.shape[0]), np.zeros(A.shape[0])

    def add(V: np.ndarray, AV: np.ndarray) -> np.ndarray:
        nonlocal count
        for v, product in zip(V.T, AV.T, strict=True):  # Welford 1962
            count += 1
            gap = v * product - mean
            mean[:] += gap / count
            spread[:] += gap * (v * product - mean)
        return np.zeros(0)

    _single(A, num_products, seed, add)
    degrees = count * (count - 1)
    stderr = np.sqrt(spread / degrees) if degrees else np.full_like(mean, np.nan)
    return Estimate(mean, stderr, A.count, method=HUTCHINSON)

"""The best part of a positive semidefinite operator that few products give: randomised Nyström."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import LinearOperator

from hvp.errors import InputError, shown
from hvp.linalg.blocks import chunks, gaussians, gram, multiply, squared_lengths
from hvp.linalg.counted_operator import CountedOperator, Operator
from hvp.linalg.lanczos import lanczos
from hvp.linalg.xtrace import CHECKED_COLUMNS
from hvp.progress import ProgressHook
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of

# Lanczos steps that measure the error, and the probability that its bound fails.
NUM_STEPS, FAILURE = 16, 1e-5


class LowRank(LinearOperator):
    """UΛUᵀ, (P, P): a positive semidefinite operator of low rank, a SciPy operator itself.

    Attributes:
        vectors: U, (P, r) orthonormal columns.
        values: Λ, (r,) not negative, in descending order.
        error_bound: of ‖A - UΛUᵀ‖, the largest eigenvalue of what is left of A. It holds with a
            probability of at least 1 - 10⁻⁵ over the random vector that Lanczos starts from.
        num_products: products with A.

    >>> found = low_rank(np.diag([4.0, 2.0, 0.0]), 2)
    >>> found.values.round(6).tolist(), (found @ np.ones(3)).round(6).tolist()
    ([4.0, 2.0], [4.0, 2.0, 0.0])
    """

    def __init__(
        self, vectors: np.ndarray, values: np.ndarray, error_bound: float, num_products: int
    ):
        super().__init__(vectors.dtype, (len(vectors), len(vectors)))
        self.vectors, self.values = vectors, values
        self.error_bound, self.num_products = error_bound, num_products

    def __repr__(self) -> str:
        return (
            f"LowRank(rank={len(self.values)}, size={len(self.vectors)}, "
            f"error_bound={self.error_bound:.2g}, num_products={self.num_products})"
        )

    def rows(self) -> list[dict[str, float]]:
        """A dict for each value, the largest first, as `pandas.DataFrame` takes them.

        >>> low_rank(np.diag([4.0, 0.0]), 1).rows()[0]["rank"]
        1
        """
        return [
            {
                "rank": rank,
                "value": float(value),
                "error_bound": float(self.error_bound),
                "num_products": self.num_products,
            }
            for rank, value in enumerate(self.values, 1)
        ]

    def preconditioner(self, damping: float) -> LinearOperator:
        """(λ_r + δ) U(Λ + δ)⁻¹Uᵀ + I - UUᵀ, which approximates (λ_r + δ)(A + δI)⁻¹.

        Source: Frangella, Tropp and Udell 2023, *Randomized Nyström preconditioning*, equation 1.3.

        >>> found = low_rank(np.diag([4.0, 2.0, 0.0]), 2)
        >>> (found.preconditioner(1.0) @ np.array([5.0, 3.0, 1.0])).round(6).tolist()
        [3.0, 3.0, 1.0]
        """
        if not damping > 0:
            raise InputError("a positive damping", shown(damping), "raise it")
        factors = (self.values.min(initial=math.inf) + damping) / (self.values + damping) - 1
        return _Changed(self.vectors, factors if len(factors) else np.zeros(0))

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self.vectors @ (self.values.astype(self.dtype) * (self.vectors.T @ v.reshape(-1)))

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self.vectors @ (self.values.astype(self.dtype)[:, None] * (self.vectors.T @ V))

    def _adjoint(self) -> LowRank:
        return self


class _Changed(LinearOperator):
    """I + U diag(factors) Uᵀ."""

    def __init__(self, vectors: np.ndarray, factors: np.ndarray):
        super().__init__(vectors.dtype, (len(vectors), len(vectors)))
        self._vectors, self._factors = vectors, factors.astype(vectors.dtype)

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        v = v.reshape(-1)
        return v + self._vectors @ (self._factors * (self._vectors.T @ v))

    def _adjoint(self) -> _Changed:
        return self


def low_rank(
    A: Operator,
    rank: int,
    *,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
    progress: ProgressHook | None = None,
) -> LowRank:
    """The Nyström approximation UΛUᵀ = AΩ(ΩᵀAΩ)⁻¹ΩᵀA with random Ω (P, rank).

    It makes `rank` products and 16 more for `error_bound`; three blocks of `rank` vectors are in
    memory. It is never above A: A - UΛUᵀ is positive semidefinite to rounding. It is good where
    eigenvalues fall, as those of G do.

    Args:
        A: a SciPy LinearOperator, sparse or dense matrix of shape (P, P), real, symmetric and
            positive semidefinite, such as `hvp.GaussNewton` of a convex loss.
        rank: from 1 to P.
        seed: of Ω and of the vectors that test the error.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).
        progress: called with the number of products so far, a `hvp.Progress`.

    Raises:
        InputError: A is no symmetric operator, `rank` is out of range, or A is found to have
            negative eigenvalues.

    Source: Tropp, Yurtsever, Udell and Cevher 2017, *Fixed-rank approximation of a
    positive-semidefinite matrix from streaming data*, algorithm 3. The bound of the error is that
    of Kuczyński and Woźniakowski 1992, theorem 4.2, for Lanczos from a random vector.

    >>> found = low_rank(np.diag([4.0, 2.0, 1.0, 0.0]), 3)
    >>> found.values.round(6).tolist(), bool(found.error_bound < 1e-6), found.num_products
    ([4.0, 2.0, 1.0], True, 8)
    """
    seed = seed_of(seed, rng)
    counted = CountedOperator(A, progress)
    size = counted.shape[0]
    if not isinstance(rank, int | np.integer) or not 1 <= rank <= size:
        raise InputError(f"a rank from 1 to {size}", shown(rank), "ask for fewer")
    rng = np.random.default_rng(seed)
    probes = gaussians(rng, size, int(rank), counted.dtype)
    probes, _ = scipy.linalg.qr(probes, mode="economic", overwrite_a=True)
    Y = multiply(counted, probes)
    counted.check_symmetry(probes[:, :CHECKED_COLUMNS], Y[:, :CHECKED_COLUMNS])
    vectors, values = _nystroem(probes, Y, _shift(Y))
    found = LowRank(vectors, values, math.inf, counted.count)
    found.error_bound = _largest_eigenvalue_bound(_Left(counted, found), rng)
    found.num_products = counted.count
    return found


class _Left(LinearOperator):
    """A - UΛUᵀ."""

    def __init__(self, A: CountedOperator, part: LowRank):
        super().__init__(A.dtype, A.shape)
        self._A, self._part = A, part

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self._A.matmat(V) - self._part.matmat(V)


def _largest_eigenvalue_bound(A: LinearOperator, rng: np.random.Generator) -> float:
    """An upper bound of the largest eigenvalue of a positive semidefinite operator.

    After m steps from a random vector, the largest Ritz value θ is below (1 - ε)λ with a
    probability of at most 1.648 √P exp(-√ε (2m - 1)).
    """
    size = A.shape[0]
    start = gaussians(rng, size, 1, A.dtype)
    if not A.matmat(start).any():
        return 0.0
    T = lanczos(A, start, min(NUM_STEPS, size))
    values, _, _ = T.ritz(0, T.steps[0])
    root = math.log(1.648 * math.sqrt(size) / FAILURE) / (2 * T.steps[0] - 1)
    largest = max(float(values[-1]), 0.0)
    return largest if T.complete[0] else largest / (1 - root**2)


def _shift(Y: np.ndarray) -> float:
    """A small multiple of the identity that is added to A, so that rounding leaves it definite."""
    eps = float(np.finfo(Y.dtype).eps)
    return eps * math.sqrt(float(squared_lengths(Y).sum()))


def _nystroem(probes: np.ndarray, Y: np.ndarray, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """U (P, r) and Λ (r,) from Ω and AΩ."""
    dtype, eps = Y.dtype, float(np.finfo(Y.dtype).eps)
    if shift == 0:  # A is zero
        return probes[:, :0], np.zeros(0)
    inner = gram(probes, Y)
    inner = (inner + inner.T) / 2
    values, basis = np.linalg.eigh(inner)
    if values[0] < -math.sqrt(eps) * values[-1]:
        raise InputError(
            "a positive semidefinite operator",
            f"a curvature of {values[0]:.3g} beside {values[-1]:.3g}",
            "pass hvp.GaussNewton(lin) of a convex loss",
        )
    # B = (Y + shift·Ω) C⁻ᵀ with CCᵀ = inner + shift·I, so that BBᵀ is the approximation + shift.
    scales = 1 / np.sqrt(np.maximum(values, 0.0) + shift)
    for rows in chunks(len(Y)):
        Y[rows] = (Y[rows] + dtype.type(shift) * probes[rows]) @ (basis * scales).astype(dtype)
    vectors, sizes, _ = scipy.linalg.svd(Y, full_matrices=False, overwrite_a=True)
    return vectors, np.maximum(sizes.astype(np.float64) ** 2 - shift, 0.0)

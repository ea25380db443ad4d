"""SciPy's `eigsh` on any symmetric operator, with the true error of every pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from scipy.sparse.linalg import LinearOperator

from hvp.errors import ConvergenceError, InputError
from hvp.linalg.counted_operator import CountedOperator
from hvp.linalg.lanczos import ROUNDINGS, lanczos
from hvp.linalg.threads import few_threads

ENDS = ("LA", "SA", "BE", "LM")
POWER_STEPS = 6
# Up to here Lanczos saves no products over taking the whole space, which misses nothing.
WHOLE = 512
# From here on ARPACK's own work on a long basis takes longer than the products that it saves.
WIDE = 1 << 20
CHUNK = 1 << 16
# Of the second start.
STARTS, STEPS = 2, 40


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Eigenvalues in ascending order, what they are worth, and what they cost.

    The i-th smallest value found is never below the i-th smallest eigenvalue, nor the i-th largest
    above (Courant and Fischer). It is that eigenvalue, within its error, unless Lanczos from a
    single vector missed one beyond it: of a multiple eigenvalue it sees a single copy.

    Attributes:
        values: (k,) Rayleigh quotients vᵀAv.
        vectors: (P, k) orthonormal columns.
        errors: (k,) ‖Av - λv‖, from products made after the iteration. An eigenvalue of A lies
            within this distance of λ (Parlett 1998, theorem 4.5.1).
        num_products: products with A, all of them.
        unseen: whether a second start found an eigenvalue beyond these, None where there was none.

    >>> pairs = eigsh(np.diag([1.0, 2.0, 2.0, 5.0]), 2)
    >>> pairs.vectors.shape, pairs.num_products, pairs.separate.tolist()
    ((4, 2), 6, [True, True])
    """

    values: np.ndarray
    vectors: np.ndarray
    errors: np.ndarray
    num_products: int
    unseen: bool | None = None

    @property
    def enclosures(self) -> np.ndarray:
        """(k, 2) the interval λ ± error around each value, in which an eigenvalue lies."""
        return np.stack([self.values - self.errors, self.values + self.errors], axis=1)

    def __getitem__(self, chosen: slice | np.ndarray) -> Eigenpairs:
        """Some of the pairs, in the order that they have here; the cost is that of all."""
        return Eigenpairs(
            self.values[chosen],
            self.vectors[:, chosen],
            self.errors[chosen],
            self.num_products,
            self.unseen,
        )

    @property
    def separate(self) -> np.ndarray:
        """(k,) whether λ ± error meets no other such interval.

        Where it does, `tol` does not resolve a cluster, such as the null space of G, and the value
        is a bound rather than the eigenvalue of that rank. It does not vouch for copies of a
        multiple eigenvalue that the iteration has not seen.
        """
        apart = np.diff(self.values) > self.errors[1:] + self.errors[:-1]
        return np.r_[True, apart] & np.r_[apart, True]


def eigsh(
    A: Any,
    k: int,
    *,
    which: str = "LA",
    tol: float | None = None,
    scale: float | None = None,
    ncv: int | None = None,
    max_products: int = 10_000,
    second_start: bool = False,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Eigenpairs:
    """The k eigenpairs at an end of the spectrum of a symmetric operator: A v = λ v.

    SciPy's ARPACK (implicitly restarted Lanczos) does the work, on A/scale + 2I: that leaves the
    eigenvectors and the order as they are, and makes `tol` relative to ‖A‖ at both ends, where
    ARPACK's own test is relative to each eigenvalue and cannot be met by those near zero. A space
    of up to 512 dimensions is taken whole instead.

    Args:
        A: a SciPy LinearOperator, sparse or dense matrix of shape (P, P), real and symmetric.
        k: how many, from 1 to P - 1.
        which: "LA" the largest, "SA" the smallest, "BE" half from each end, "LM" the largest in
            magnitude.
        tol: error of a pair relative to `scale`; None is the square root of the precision.
        scale: size of the numbers that matter, None for ‖A‖ by a few power steps. Give ‖H‖ for
            R = H - G, which is zero but for rounding where the network is piecewise linear.
        ncv: size of the Krylov basis; None is at least 2k + 5, 20, or 10 in large spaces, where the
            work on a long basis would take longer than the products it saves.
        max_products: after about so many products the iteration gives up.
        second_start: look for what a single vector misses, such as copies of a multiple eigenvalue,
            by up to 40 Lanczos steps from two vectors orthogonal to the pairs found; `unseen` of
            the result tells.
        seed: of the starting vectors.
        progress: called with the number of products so far.

    Raises:
        InputError: no symmetric operator, k out of range, an unknown `which`, a product that is
            not finite.
        ConvergenceError: a pair whose true error is beyond ten times the tolerance.

    >>> import numpy as np
    >>> pairs = eigsh(np.diag([1.0, 2.0, 4.0, 8.0]), 2)
    >>> pairs.values.round(9).tolist(), bool((pairs.errors < 1e-9).all())
    ([4.0, 8.0], True)
    """
    counted = CountedOperator(A, progress)
    size, eps = counted.shape[0], float(np.finfo(counted.dtype).eps)
    _check(k, which, size, max_products, scale)
    tol = float(np.sqrt(eps)) if tol is None else tol
    if not tol >= eps:
        raise InputError(f"a tol of at least {eps:.1e}, the precision of A", tol, "loosen it")
    basis = max(2 * k + 5, 20 if size < WIDE else 10, WHOLE if size <= WHOLE else 0)
    ncv = min(size, basis if ncv is None else ncv)
    if ncv <= k and ncv < size:
        raise InputError(f"an ncv above k = {k}", ncv, "leave ncv out for the default")
    with few_threads(size):
        if ncv >= size and size <= WHOLE:
            vectors, norm = _all_vectors(counted, k, which)
            scale = norm if scale is None else scale
        else:
            rng = np.random.default_rng(seed)
            scale = _norm(counted, rng) if scale is None else scale
            vectors = _arpack(counted, k, which, scale, ncv, tol, max_products, rng)
        pairs = _certified(counted, vectors)
        if second_start and pairs.vectors.shape[1] < size:
            unseen = _second_start(counted, pairs, which, seed)
            pairs = replace(pairs, unseen=unseen, num_products=counted.count)
    scale = max(scale, float(np.abs(pairs.values).max()))
    allowed = max(10 * tol, 100 * eps) * scale
    if not (pairs.errors <= allowed).all():
        raise ConvergenceError(
            f"expected errors up to {allowed:.1e}, got {pairs.errors.max():.1e} after "
            f"{pairs.num_products} products; check that A is symmetric and finite, or loosen tol"
        )
    return pairs


def _check(k: int, which: str, size: int, max_products: int, scale: float | None) -> None:
    if which == "SM":
        raise InputError(
            f"which among {', '.join(ENDS)}",
            "'SM', which does not converge without a shift-invert",
            "take 'SA' for the smallest, or give SciPy's eigsh a sigma and OPinv",
        )
    if which not in ENDS:
        raise InputError(f"which among {', '.join(ENDS)}", repr(which), "choose one of these")
    most = max(size - 1, 1)
    if not isinstance(k, int | np.integer) or not 1 <= k <= most:
        raise InputError(f"k from 1 to {most} for {size} parameters", k, "ask for fewer")
    if max_products < 1:
        raise InputError("max_products of at least 1", max_products, "leave it out")
    if scale is not None and not 0 <= scale < np.inf:
        raise InputError("a finite scale from 0", scale, "leave it out")


def _norm(A: LinearOperator, rng: np.random.Generator) -> float:
    """‖A‖ from below by power steps; a factor of two is all that the shift needs."""
    norm, v = 0.0, rng.standard_normal(A.shape[0], dtype=A.dtype)
    for _ in range(POWER_STEPS):
        v = A.matvec((v / scipy.linalg.norm(v)).astype(A.dtype))
        norm = max(norm, float(scipy.linalg.norm(v)))
        if norm == 0:
            break
    return norm


def _scaled(A: LinearOperator, scale: float, shift: float) -> LinearOperator:
    """A/scale + shift·I: ARPACK's tests hold for numbers around one."""
    factor = A.dtype.type(1 / scale)
    # Large vectors are not made anew for each step; ARPACK copies what it is given.
    result = np.empty(A.shape[0], A.dtype)
    (axpy,) = scipy.linalg.get_blas_funcs(["axpy"], [result])

    def matvec(v: np.ndarray) -> np.ndarray:
        np.multiply(A.matvec(v), factor, out=result)
        return axpy(v, result, a=shift)

    return LinearOperator(A.shape, matvec=matvec, dtype=A.dtype)


def _arpack(
    A: CountedOperator,
    k: int,
    which: str,
    scale: float,
    ncv: int,
    tol: float,
    max_products: int,
    rng: np.random.Generator,
) -> np.ndarray:
    # A zero operator gives ARPACK no basis; any shift does.
    shift = 0.0 if which == "LM" and scale > 0 else 2.0
    which = "LA" if which == "BE" and k == 1 else which
    restarts = max(1, max_products // (ncv - k))
    try:
        _, vectors = scipy.sparse.linalg.eigsh(
            _scaled(A, scale or 1.0, shift),
            k,
            which=which,
            ncv=ncv,
            maxiter=restarts,
            tol=tol,
            rng=rng,
        )
    except scipy.sparse.linalg.ArpackNoConvergence as error:
        raise ConvergenceError(
            f"expected {k} pairs at {which} within {tol:.1e}, got {len(error.eigenvalues)} after "
            f"{A.count} products; loosen tol, or raise max_products ({max_products}) or ncv ({ncv})"
        ) from error
    except scipy.sparse.linalg.ArpackError as error:
        raise ConvergenceError(f"expected {k} pairs at {which}, got {error}") from error
    return vectors


def _all_vectors(A: LinearOperator, k: int, which: str) -> tuple[np.ndarray, float]:
    """The vectors wanted and ‖A‖, by dense algebra in as many products as dimensions."""
    matrix = A.matmat(np.eye(A.shape[0], dtype=A.dtype))
    values, vectors = scipy.linalg.eigh((matrix + matrix.T) / 2)
    if which == "LM":
        return vectors[:, np.argsort(np.abs(values))[-k:]], float(np.abs(values).max())
    low = {"SA": k, "LA": 0, "BE": k // 2}[which]
    wanted = np.r_[:low, len(values) - (k - low) : len(values)]
    return vectors[:, wanted], float(np.abs(values).max())


def _certified(A: LinearOperator, vectors: np.ndarray) -> Eigenpairs:
    """Rayleigh quotients and true errors from one product a vector."""
    values = np.empty(vectors.shape[1])
    errors = np.empty(vectors.shape[1])
    for i, v in enumerate(vectors.T):
        product = A.matvec(v)
        length = np.sqrt(_accurate_sum(lambda v: v @ v, v))
        values[i] = _accurate_sum(lambda v, product: v @ product, v, product) / length
        scaled = values[i] / length

        def squares(v: np.ndarray, product: np.ndarray, scaled: float = scaled) -> float:
            return np.sum((product - scaled * v) ** 2)

        errors[i] = np.sqrt(_accurate_sum(squares, v, product))
    order = np.argsort(values)
    return Eigenpairs(values[order], vectors[:, order], errors[order], A.count)


def _second_start(A: CountedOperator, pairs: Eigenpairs, which: str, seed: int) -> bool:
    """Whether another start finds an eigenvalue where those of `which` should all be known.

    A Ritz value outside the space of the pairs, less its error, bounds from inside what lies there.
    """
    size, k = pairs.vectors.shape
    start = np.random.default_rng(seed + 1).standard_normal((size, STARTS)).astype(A.dtype)
    for _ in range(2):
        start -= pairs.vectors @ (pairs.vectors.T @ start)
    T = lanczos(A, start, min(STEPS, size - k), outside=pairs.vectors.astype(A.dtype))
    ritz = [T.ritz(probe, steps) for probe, steps in enumerate(T.steps)]
    found, error = (np.concatenate([each[i] for each in ritz]) for i in (0, 2))
    error += ROUNDINGS * np.finfo(A.dtype).eps * np.abs(pairs.values).max()
    if which == "LM":
        return bool((np.abs(found) - error > np.min(np.abs(pairs.values) + pairs.errors)).any())
    low = {"SA": k, "LA": 0, "BE": k // 2}[which]
    beyond = np.zeros(len(found), bool)
    if low:
        beyond |= found + error < pairs.values[low - 1] - pairs.errors[low - 1]
    if low < k:
        beyond |= found - error > pairs.values[low] + pairs.errors[low]
    return bool(beyond.any())


def _accurate_sum(function: Callable[..., float], *vectors: np.ndarray) -> float:
    """The sum of a function of chunks of vectors in float64, which never are there as a whole."""
    size = len(vectors[0])
    return sum(
        function(*(v[start : start + CHUNK].astype(np.float64) for v in vectors))
        for start in range(0, size, CHUNK)
    )

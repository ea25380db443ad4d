"""SciPy's `eigsh` on any symmetric operator, with the true error of every pair."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import scipy.linalg

from hvp.errors import ConvergenceError, InputError, shown
from hvp.linalg import arpack, block_lanczos, start_vector
from hvp.linalg.blocks import dot, few_threads, float64_sum
from hvp.linalg.counted_operator import CountedOperator, Operator
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.lanczos import ROUNDINGS, lanczos
from hvp.progress import ProgressHook
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of

ENDS = ("LA", "SA", "BE", "LM")
POWER_STEPS = 6
# Up to this P the whole matrix is formed: Lanczos would need about as many products, and may miss
# copies of a multiple eigenvalue.
DENSE_SIZE = 512
# From this P on, ARPACK's own work on a long basis takes longer than the products that it saves.
SHORT_BASIS_SIZE = 1 << 20
# Vectors of the basis beyond the earlier ones, at least: they show what those lack.
MIN_STEPS = 7
# Entries of a vector that are converted to float64 at once.
CHUNK_ENTRIES = 1 << 16
# Vectors and Lanczos steps of the second start.
SECOND_STARTS, SECOND_STEPS = 2, 40


def eigsh(
    A: Operator,
    k: int,
    *,
    which: str = "LA",
    tol: float | None = None,
    scale: float | None = None,
    ncv: int | None = None,
    v0: np.ndarray | None = None,
    start: Eigenpairs | None = None,
    block: int | None = None,
    max_products: int = 10_000,
    second_start: bool = False,
    partial: bool = False,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
    progress: ProgressHook | None = None,
) -> Eigenpairs:
    """The k eigenpairs at an end of the spectrum of a symmetric operator: A v = λ v.

    SciPy's ARPACK (implicitly restarted Lanczos) runs on A/scale + 2I, which has the eigenvectors
    of A in the same order. So `tol` is relative to ‖A‖ at both ends; ARPACK's own test is relative
    to each eigenvalue, which those near zero cannot meet. For P up to 512, the matrix is formed and
    all its eigenpairs are computed instead. From P = 2²⁰ on, and with `start` or `block`, it is
    block Lanczos with thick restarts (Wu and Simon 2000), which has the basis in memory, one vector
    for each of a block, and what a product takes, where ARPACK through SciPy has the basis twice.

    Args:
        A: a SciPy LinearOperator, sparse or dense matrix of shape (P, P), real and symmetric.
        k: how many, from 1 to P - 1; P too where all eigenpairs are computed.
        which: "LA" the largest, "SA" the smallest, "BE" half from each end, "LM" the largest in
            magnitude.
        tol: error of a pair relative to `scale`; None is the square root of the precision.
        scale: norm that `tol` is relative to, None for ‖A‖ by a few power steps or from the
            iteration. Give ‖H‖ for R = H - G, which is zero but for rounding where the network is
            piecewise linear.
        ncv: vectors of the Krylov basis; None is the larger of 2k + 5 and 20. From P = 2²⁰ on it is
            the larger of 2k + 5 and 10: work on a longer basis would take longer than the products
            it saves.
        v0: (P,) the vector that the iteration starts from, None for a random one of the seed.
        start: eigenpairs of a matrix near A, such as those at earlier weights. The iteration starts
            from all their vectors and a random one, and multiplies what their residuals need.
            Neither changes what is found, within its errors, but how many products that takes: for
            networks some steps apart, and the same `tol`, a third for the largest, a half for the
            three largest, nine tenths for ten. For P up to 512 both are unused.
        block: how many vectors are multiplied at once. More than one take more products in all, but
            each costs less where saved tensors do not fit the cache: what of a product does not
            depend on the vector is then computed once for the block. None is one, and with `start`
            as many as are needed.
        max_products: the iteration stops with an error after about this number of products.
        second_start: look for eigenvalues that a single starting vector misses, such as copies of a
            multiple one, by up to 40 Lanczos steps from two vectors orthogonal to the pairs found.
            The result is in `unseen`. In a cluster that `tol` does not resolve, a value may be of
            another rank all the same: it is then not `separate`.
        partial: where not all pairs converge, return those that did instead of an error; there is
            still one if none did. `num_missing` says how many are left out.
        seed: of the starting vectors.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).
        progress: called with the number of products so far, a `hvp.Progress`.

    Raises:
        InputError: A is no symmetric operator, k is out of range, `which` is unknown, or a product
            is not finite.
        ConvergenceError: the true error of a pair is more than ten times the tolerance, of each
            pair with `partial`.

    >>> import numpy as np
    >>> pairs = eigsh(np.diag([1.0, 2.0, 4.0, 8.0]), 2)
    >>> pairs.values.round(9).tolist(), bool((pairs.errors < 1e-9).all())
    ([4.0, 8.0], True)
    """
    seed = seed_of(seed, rng)
    counted = CountedOperator(A, progress)
    size, eps = counted.shape[0], float(np.finfo(counted.dtype).eps)
    is_dense = size <= DENSE_SIZE and (ncv is None or ncv >= size)
    _check(k, which, size, is_dense, max_products, scale)
    tol = float(np.sqrt(eps)) if tol is None else tol
    if not tol >= eps:
        raise InputError(f"a tol of at least {eps:.1e}, the precision of A", tol, "loosen it")
    is_short = start is not None and which in ("LA", "LM")
    ncv = basis_size(k, size, is_short) if ncv is None else min(ncv, size)
    if ncv <= k and not is_dense:
        raise InputError(f"an ncv above k = {k}", ncv, "leave ncv out for the default")
    if block is not None and not (isinstance(block, int | np.integer) and 1 <= block < size):
        raise InputError(f"a block of 1 to {size - 1} vectors", shown(block), "leave it out")
    rng = np.random.default_rng(seed)
    rows = _start(v0, start, size, counted.dtype, rng, block or 1)
    with few_threads(size):
        if is_dense:
            counted.total = size + k
            vectors, norm = _dense_vectors(counted, k, which)
            scale = norm if scale is None else math.ldexp(scale, -counted.exponent)
        elif size < SHORT_BASIS_SIZE and block is None and start is None:
            scale = _norm(counted, rng) if scale is None else _in_units(counted, scale)
            first = None if v0 is None else rows()[0]
            vectors = arpack.eigenvectors(
                counted, k, which, scale, ncv, tol, max_products, rng, partial, first
            )
        else:
            scale = None if scale is None else _in_units(counted, scale)
            least = ncv if start is None else start.vectors.shape[1] + MIN_STEPS
            width = (block or 1) if start is None else block
            vectors, scale = block_lanczos.eigenvectors(
                counted, k, which, scale, ncv, tol, max_products, rng, partial, rows, least, width
            )
        pairs = _certified(counted, vectors)
        if second_start and pairs.vectors.shape[1] < size:
            unseen = _second_start(counted, pairs, which, seed)
            pairs = replace(pairs, unseen=unseen, num_products=counted.count)
    scale = max(scale, float(np.abs(pairs.values).max()))
    allowed = np.ldexp(max(10 * tol, 100 * eps) * scale, counted.exponent)
    if counted.exponent:
        values, errors = (np.ldexp(x, counted.exponent) for x in (pairs.values, pairs.errors))
        pairs = replace(pairs, values=values, errors=errors)
    converged = pairs.errors <= allowed
    pairs = replace(pairs, scale=float(np.ldexp(scale, counted.exponent)))
    if partial and converged.any():
        pairs = replace(pairs[converged], num_missing=k - int(converged.sum()))
    elif not converged.all():
        counted.check_resolution(float(np.ldexp(scale, counted.exponent)))
        # SciPy's products and sums of operators have the dtype of their most precise part.
        parts = " and all its parts float64" if counted.dtype == np.float64 else ""
        raise ConvergenceError(
            f"expected errors up to {allowed:.1e}, got {pairs.errors.max():.1e} after "
            f"{pairs.num_products} products; check that A is symmetric and finite{parts}, or "
            "loosen tol"
        )
    return pairs if pairs.num_missing else replace(pairs, ranks=_ranks(pairs.values, which))


def basis_size(k: int, size: int, is_short: bool = False) -> int:
    """The vectors of the Krylov basis for k eigenpairs of so many parameters.

    A short one serves large eigenvalues, which stand apart, from a start that nearly has them.
    """
    least = 0 if is_short else 20 if size < SHORT_BASIS_SIZE else 10
    return min(size, max(2 * k + 5, least))


def _start(
    v0: np.ndarray | None,
    pairs: Eigenpairs | None,
    size: int,
    dtype: np.dtype,
    rng: np.random.Generator,
    count: int,
) -> Callable[[], np.ndarray]:
    """A function that makes the starting vectors, as rows: at least `count`."""
    if v0 is not None and pairs is not None:
        raise InputError("v0 or start", "both", "leave one out")
    if pairs is not None and not isinstance(pairs, Eigenpairs):
        raise InputError("a start of Eigenpairs", type(pairs).__name__, "pass what eigsh returned")
    given = [] if v0 is None else [start_vector.given(v0, size, dtype)]
    if pairs is not None:
        given = start_vector.earlier(pairs.vectors, size, dtype)
        count = max(count, len(given) + 1)
    return lambda: start_vector.rows(given, max(count, len(given)), size, dtype, rng)


def _in_units(A: CountedOperator, scale: float) -> float:
    """The scale given, in units of the operator's exponent."""
    A.adapt_exponent(scale)
    return math.ldexp(scale, -A.exponent)


def _check(
    k: int, which: str, size: int, is_dense: bool, max_products: int, scale: float | None
) -> None:
    if not isinstance(which, str):
        raise InputError(f"which among {', '.join(ENDS)}", shown(which), "choose one of these")
    if which == "SM":
        raise InputError(
            f"which among {', '.join(ENDS)}",
            "'SM', which does not converge without a shift-invert",
            "take 'SA' for the smallest, or give SciPy's eigsh a sigma and OPinv",
        )
    if which not in ENDS:
        raise InputError(f"which among {', '.join(ENDS)}", shown(which), "choose one of these")
    most = size if is_dense else max(size - 1, 1)
    if not isinstance(k, int | np.integer) or not 1 <= k <= most:
        raise InputError(f"k from 1 to {most} for {size} parameters", k, "ask for fewer")
    if max_products < 1:
        raise InputError("max_products of at least 1", max_products, "leave it out")
    if scale is not None and not 0 <= scale < np.inf:
        raise InputError("a finite scale from 0", scale, "leave it out")


def _norm(A: CountedOperator, rng: np.random.Generator) -> float:
    """A lower bound of ‖A‖ by power steps; within a factor of two is enough for the shift."""
    norm, v = 0.0, rng.standard_normal(A.shape[0], dtype=A.dtype)
    for step in range(POWER_STEPS):
        v = A.matvec((v / scipy.linalg.norm(v)).astype(A.dtype))
        if step == 0:
            A.adapt_exponent(float(scipy.linalg.norm(v.astype(np.float64))))
            v = np.ldexp(v, -A.exponent)
        norm = max(norm, float(scipy.linalg.norm(v)))
        if norm == 0:
            break
    return norm


def _dense_vectors(A: CountedOperator, k: int, which: str) -> tuple[np.ndarray, float]:
    """The (P, k) eigenvectors and ‖A‖, by dense algebra from P products."""
    matrix = A.matmat(np.eye(A.shape[0], dtype=A.dtype))
    A.adapt_exponent(float(np.abs(matrix).max()))
    matrix = np.ldexp(matrix, -A.exponent)
    values, vectors = scipy.linalg.eigh((matrix + matrix.T) / 2)
    if which == "LM":
        return vectors[:, np.argsort(np.abs(values))[-k:]], float(np.abs(values).max())
    num_lowest = _num_lowest(k, which)
    chosen = np.r_[:num_lowest, len(values) - (k - num_lowest) : len(values)]
    return vectors[:, chosen], float(np.abs(values).max())


def _certified(A: CountedOperator, vectors: np.ndarray) -> Eigenpairs:
    """Rayleigh quotients and true errors, from one product per vector."""
    values = np.empty(vectors.shape[1])
    errors = np.empty(vectors.shape[1])
    for i, v in enumerate(vectors.T):
        product = A.matvec(v)
        length = np.sqrt(dot(v, v, CHUNK_ENTRIES))
        values[i] = dot(v, product, CHUNK_ENTRIES) / length
        errors[i] = _error(v, product, values[i] / length)
    order = np.argsort(values)
    return Eigenpairs(values[order], vectors[:, order], errors[order], A.count)


def _error(v: np.ndarray, product: np.ndarray, value: float) -> float:
    """‖Av - λv‖ of a vector and its product Av."""

    def squares(v: np.ndarray, product: np.ndarray) -> float:
        return np.sum((product - value * v) ** 2)

    return np.sqrt(float64_sum(squares, v, product, chunk=CHUNK_ENTRIES))


def _second_start(A: CountedOperator, pairs: Eigenpairs, which: str, seed: int) -> bool:
    """Whether Lanczos from other vectors finds an eigenvalue that `pairs` should include.

    Lanczos runs orthogonally to the pairs. An eigenvalue that they lack lies within its error of
    each Ritz value.
    """
    size, k = pairs.vectors.shape
    start = np.random.default_rng(seed + 1).standard_normal((size, SECOND_STARTS)).astype(A.dtype)
    for _ in range(2):
        start -= pairs.vectors @ (pairs.vectors.T @ start)
    T = lanczos(A, start, min(SECOND_STEPS, size - k), outside=pairs.vectors.astype(A.dtype))
    ritz = [T.ritz(probe, steps) for probe, steps in enumerate(T.steps)]
    found, error = (np.concatenate([each[i] for each in ritz]) for i in (0, 2))
    error += ROUNDINGS * np.finfo(A.dtype).eps * np.abs(pairs.values).max()
    if which == "LM":
        return bool((np.abs(found) - error > np.min(np.abs(pairs.values) + pairs.errors)).any())
    num_lowest = _num_lowest(k, which)
    is_beyond = np.zeros(len(found), bool)
    if num_lowest:
        i = num_lowest - 1
        is_beyond |= found + error < pairs.values[i] - pairs.errors[i]
    if num_lowest < k:
        is_beyond |= found - error > pairs.values[num_lowest] + pairs.errors[num_lowest]
    return bool(is_beyond.any())


def _ranks(values: np.ndarray, which: str) -> np.ndarray:
    """(k,) the ranks of ascending values: 1 for the largest, -1 for the smallest."""
    k = len(values)
    if which == "LM":
        return np.argsort(np.argsort(-np.abs(values), kind="stable")) + 1
    num_lowest = _num_lowest(k, which)
    return np.r_[-1 - np.arange(num_lowest), np.arange(k - num_lowest, 0, -1)]


def _num_lowest(k: int, which: str) -> int:
    """How many of the k pairs are from the lower end of the spectrum."""
    return {"SA": k, "LA": 0, "BE": k // 2}[which]

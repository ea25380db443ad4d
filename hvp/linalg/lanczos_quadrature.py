"""Stochastic Lanczos quadrature: a whole spectrum from a number of products independent of P.

For v uniform on the unit sphere E vᵀf(A)v = tr f(A)/P, and vᵀf(A)v = Σ (q_iᵀv)² f(λ_i) is an
integral over the spectrum, weighted by v. Lanczos computes its Gauss rule: m steps from v give T
(m, m), whose eigenvalues θ are the nodes. The weights are the squares of the first entries of its
eigenvectors. The rule is exact for polynomials of degree up to 2m - 1 (Golub and Welsch 1969; for
spectra of large matrices Lin, Saad and Yang 2016, Ubaru, Chen and Saad 2017, of networks Ghorbani,
Krishnan and Xiao 2019).

Probes are Gaussian vectors of length one rather than signs. Their distribution is the same in every
basis: the variance of vᵀf(A)v is 2/(P + 2) that of f over the spectrum, whatever the eigenvectors,
and zero where f is constant. Signs may be orthogonal to an eigenvector and miss it. Gaussian
vectors also stay uniform where eigenvectors are projected out.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hvp.errors import InputError
from hvp.linalg.blocks import few_threads
from hvp.linalg.counted_operator import CountedOperator, Operator
from hvp.linalg.density import Density
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.lanczos import Tridiagonal, lanczos
from hvp.linalg.measure import BatchJackknife
from hvp.progress import ProgressHook
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of

# Batches are left out in at most this many groups: enough for a standard error within a tenth.
MAX_GROUPS = 50


def density(
    A: Operator,
    *,
    num_probes: int = 10,
    num_steps: int = 80,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
    pairs: Eigenpairs | None = None,
    scale: float | None = None,
    reorthogonalise: bool = True,
    num_resampled: int = 0,
    progress: ProgressHook | None = None,
) -> Density:
    """The spectrum of a symmetric operator by stochastic Lanczos quadrature.

    It makes num_probes × num_steps products, in blocks of all probes. For a single probe there is
    one more, with another vector, to check the symmetry of A.

    Args:
        A: a SciPy LinearOperator, sparse or dense matrix of shape (P, P), real and symmetric.
        num_probes: S; standard errors fall like 1/√S.
        num_steps: m; resolution grows like m. At most P - k; a reduction is in the `notes`.
        seed: of the probes. The same seed, size and precision draw the same probes, so that the
            difference of two densities has a small error.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).
        pairs: k eigenpairs to project out, such as the largest by `hvp.eigsh`. They are the exact
            `outliers` of the result, and all Lanczos steps serve the other eigenvalues, the bulk.
            Where a pair has an error, the result is that of a matrix within that distance of A.
        scale: norm against which asymmetry is measured, None for the pairs' largest magnitude. Give
            ‖H‖ for R = H - G, whose products may be rounding of H's, which is not symmetric.
        reorthogonalise: with num_steps + 1 vectors per probe in memory. False needs two, for large
            P. Then eigenvalues that have converged appear as several nodes that share the weight of
            one, and the `notes` say so. Integrals are still right.
        num_resampled: the number of probes whose figures get a `sampling` error; each takes
            num_steps more products, and one is enough for a first estimate. A must be the Hessian,
            GaussNewton or Residual of a `Linearization`. NaN for a single batch.
        progress: called with the number of products so far, a `hvp.Progress`.

    Raises:
        InputError: A is no symmetric operator, there are no probes or steps, the pairs have another
            size or are not orthonormal, or a product is not finite.

    >>> d = density(np.diag(np.r_[np.zeros(90), np.linspace(1.0, 2.0, 10)]), num_probes=20)
    >>> rank = d.count_above(0.5)
    >>> abs(rank.value - 10) < 3 * rank.stderr
    True
    """
    seed = seed_of(seed, rng)
    if scale is None and pairs is not None:
        scale = float(np.abs(pairs.values).max(initial=0.0))
    counted = CountedOperator(A, progress, scale)
    size = counted.shape[0]
    _check_whole(1, num_probes=num_probes, num_steps=num_steps)
    _check_whole(0, num_resampled=num_resampled)
    _check_resampled(A, num_resampled, num_probes, reorthogonalise)
    outlier_vectors = _outlier_vectors(pairs, size, counted.dtype)
    bulk_size = size - outlier_vectors.shape[1]
    steps = min(num_steps, bulk_size)
    counted.total = num_probes * steps + (num_probes == 1)
    rng = np.random.default_rng(seed)
    tridiagonal = lanczos(
        _SymmetryChecked(counted, rng),
        _probes(rng, num_probes, outlier_vectors),
        steps,
        outside=outlier_vectors,
        reorthogonalise=reorthogonalise,
    )
    complete = tridiagonal.complete | (reorthogonalise and steps == bulk_size)
    lengths = tridiagonal.steps
    nodes, weights, errors = _gauss(tridiagonal, lengths)
    half_nodes, half_weights, _ = _gauss(tridiagonal, np.where(complete, lengths, lengths // 2))
    values = np.zeros(0) if pairs is None else pairs.values.astype(np.float64)
    left_out, num_products = None, counted.count
    if num_resampled:
        with few_threads(size):
            left_out = _left_out(A, tridiagonal, outlier_vectors, values, num_resampled)
        num_products += len(values)
        num_products += 0 if left_out is None else int(lengths[:num_resampled].sum())
    return Density(
        nodes=nodes,
        weights=weights,
        errors=errors,
        half_nodes=half_nodes,
        half_weights=half_weights,
        steps=lengths,
        outliers=np.sort(values),
        size=size,
        precision=float(np.finfo(counted.dtype).eps),
        seed=seed,
        notes=_notes(num_steps, steps, reorthogonalise),
        num_products=num_products,
        left_out=left_out,
    )


def _check_whole(minimum: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int | np.integer) or number < minimum:
            raise InputError(f"a whole {name} of at least {minimum}", number, "leave it out")


def _check_resampled(A: Operator, count: int, num_probes: int, reorthogonalise: bool) -> None:
    if count and not hasattr(A, "batch_grams"):
        raise InputError(
            "Hessian(lin), GaussNewton(lin) or Residual(lin), whose batches are known",
            type(A).__name__,
            "leave num_resampled out",
        )
    if count > num_probes or (count and not reorthogonalise):
        raise InputError(
            "num_resampled of at most num_probes, with reorthogonalisation",
            f"{count} of {num_probes}" + ("" if reorthogonalise else ", without"),
            "lower num_resampled",
        )


def _left_out(
    A: LinearOperator,
    T: Tridiagonal,
    outlier_vectors: np.ndarray,
    outliers: np.ndarray,
    num_probes: int,
) -> BatchJackknife | None:
    """The first probes' nodes and weights, and the outliers, without each batch.

    None for a single batch, which has no sampling error.
    """
    assert T.basis is not None
    outlier_grams = A.batch_grams(outlier_vectors).grouped(MAX_GROUPS)
    if len(outlier_grams.examples) < 2:
        return None
    found = []
    for s, n in enumerate(T.steps[:num_probes]):
        grams = A.batch_grams(T.basis[:n, s].T).grouped(MAX_GROUPS)
        nodes, vectors = np.linalg.eigh(grams.left_out(T.dense(s)))
        padding = ((0, 0), (0, T.steps.max() - n))
        found.append((np.pad(nodes, padding, "edge"), np.pad(vectors[:, 0] ** 2, padding)))
    nodes, weights = (np.stack(each, axis=1) for each in zip(*found, strict=True))
    changed = np.diagonal(outlier_grams.left_out(np.diag(outliers)), axis1=1, axis2=2)
    return BatchJackknife(nodes, weights, changed, outlier_grams.examples)


class _SymmetryChecked(LinearOperator):
    """An operator whose first product is checked for symmetry."""

    def __init__(self, A: CountedOperator, rng: np.random.Generator):
        super().__init__(A.dtype, A.shape)
        self._A, self._rng = A, rng
        self._is_checked = False

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self._A.matmat(V) if self._is_checked else self._checked(V)

    def _checked(self, V: np.ndarray) -> np.ndarray:
        count = V.shape[1]
        if count == 1 < len(V):
            other = self._rng.standard_normal((1, len(V)), dtype=V.dtype)
            V = np.concatenate([V.T, other]).T
        product = self._A.matmat(V)
        self._A.check_symmetry(V, product)
        self._is_checked = True
        return product[:, :count]


def _probes(rng: np.random.Generator, count: int, U: np.ndarray) -> np.ndarray:
    """(P, S) Gaussian columns, of the precision of U (P, k) and orthogonal to it."""
    rows = rng.standard_normal((count, len(U)), dtype=U.dtype)
    for row in rows if U.shape[1] else ():
        row -= U @ (U.T @ row)
    return rows.T


def _outlier_vectors(pairs: Eigenpairs | None, size: int, dtype: np.dtype) -> np.ndarray:
    """(P, k) the vectors to project out."""
    if pairs is None:
        return np.zeros((size, 0), dtype)
    U = np.asarray(pairs.vectors, dtype)
    if len(U) != size or U.shape[1] >= size:
        raise InputError(
            f"fewer than {size} pairs of {size} entries", f"vectors of shape {U.shape}", "drop some"
        )
    deviation = np.abs(U.T @ U - np.eye(U.shape[1])).max(initial=0.0)
    if not deviation <= np.sqrt(np.finfo(dtype).eps):
        raise InputError(
            "orthonormal vectors of pairs", f"UᵀU - I of {deviation:.1e}", "use hvp.eigsh"
        )
    return U


def _notes(num_steps: int, steps: int, reorthogonalise: bool) -> tuple[str, ...]:
    notes = []
    if steps < num_steps:
        notes.append(f"num_steps cut from {num_steps} to {steps}, the dimension of the space")
    if not reorthogonalise:
        notes.append("no reorthogonalisation: eigenvalues that converged come up as several nodes")
    return tuple(notes)


def _gauss(T: Tridiagonal, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(S, m) nodes, weights and error bounds of the leading blocks of T of these lengths."""
    nodes, weights, errors = np.zeros((3, len(lengths), T.steps.max()))
    for s, n in enumerate(lengths):
        if n == 0:
            nodes[s], weights[s], errors[s] = T.alphas[s, 0], np.nan, np.nan
            continue
        values, shares, bounds = T.ritz(s, n)
        nodes[s], errors[s] = values[-1], bounds[-1]
        nodes[s, :n], weights[s, :n], errors[s, :n] = values, shares, bounds
    return nodes, weights, errors

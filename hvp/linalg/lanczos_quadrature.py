"""Whole spectra by stochastic Lanczos quadrature: as many products for a million eigenvalues.

For v uniform on the unit sphere E vᵀf(A)v = tr f(A)/P, and vᵀf(A)v = Σ (q_iᵀv)² f(λ_i) is an
integral over the spectrum as v sees it. Its Gauss rule is at hand: m Lanczos steps from v give T
(m, m) whose eigenvalues θ are the nodes, with the squares of the first entries of its eigenvectors
for weights, exact for polynomials of degree up to 2m - 1 (Golub and Welsch 1969; for spectra of
large matrices Lin, Saad and Yang 2016, Ubaru, Chen and Saad 2017, of networks Ghorbani, Krishnan
and Xiao 2019).

Probes are Gaussian vectors of length one rather than signs. Their law is the same in every basis:
the variance of vᵀf(A)v is 2/(P + 2) that of f over the spectrum, whatever the eigenvectors, and
nothing where f is constant. No eigenvector is missed, where signs may be orthogonal to one; and
they stay uniform where eigenvectors are projected out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hvp.errors import InputError
from hvp.linalg.blocks import few_threads
from hvp.linalg.counted_operator import CountedOperator
from hvp.linalg.density import BatchJackknife, Density
from hvp.linalg.eigsh import Eigenpairs
from hvp.linalg.lanczos import Tridiagonal, lanczos

# Batches are left out by groups, to so many: their standard error is good to a tenth.
MOST_GROUPS = 50


def density(
    A: Any,
    *,
    num_probes: int = 10,
    num_steps: int = 80,
    seed: int = 0,
    pairs: Eigenpairs | None = None,
    scale: float | None = None,
    reorthogonalise: bool = True,
    num_resampled: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Density:
    """The spectrum of a symmetric operator by stochastic Lanczos quadrature.

    num_probes × num_steps products, in blocks of all probes, and one more where there is a single
    probe, whose symmetry another vector must test.

    Args:
        A: a SciPy LinearOperator, sparse or dense matrix of shape (P, P), real and symmetric.
        num_probes: S; standard errors fall like 1/√S.
        num_steps: m; resolution grows like m. Cut to P - k, with a note.
        seed: of the probes. The same seed, size and precision draw the same probes, so that the
            difference of two densities has little noise.
        pairs: k eigenpairs to project out, such as the largest by `hvp.eigsh`: they come back as
            exact `outliers`, and all Lanczos steps are for the bulk. Where a pair has an error the
            spectrum found is that of a matrix within that distance of A.
        scale: size of the numbers that matter, None for the pairs' largest. Give ‖H‖ for R = H - G,
            whose products may be rounding of H's, which is not symmetric.
        reorthogonalise: keeps num_steps + 1 vectors a probe. False keeps two, for P beyond memory:
            eigenvalues that converge then come up as several nodes that share one's weight, which
            integrals do not mind and a note says.
        num_resampled: of the probes, how many tell the `sampling` error of each figure, what other
            examples would have changed; each takes num_steps products more. A must be the Hessian,
            GaussNewton or Residual of a `Linearization`; one probe is enough for a first idea. A
            single batch cannot tell, and leaves NaN.
        progress: called with the number of products so far.

    Raises:
        InputError: no symmetric operator, no probes or steps, pairs of another size or not
            orthonormal, a product that is not finite.

    >>> d = density(np.diag(np.r_[np.zeros(90), np.linspace(1.0, 2.0, 10)]), num_probes=20)
    >>> rank = d.count_above(0.5)
    >>> abs(rank.value - 10) < 3 * rank.stderr
    True
    """
    if scale is None and pairs is not None:
        scale = float(np.abs(pairs.values).max(initial=0.0))
    counted = CountedOperator(A, progress, scale)
    size = counted.shape[0]
    for name, number, least in (
        ("num_probes", num_probes, 1),
        ("num_steps", num_steps, 1),
        ("seed", seed, 0),
        ("num_resampled", num_resampled, 0),
    ):
        if not isinstance(number, int | np.integer) or number < least:
            raise InputError(f"a whole {name} of at least {least}", number, "leave it out")
    _check_resampled(A, num_resampled, num_probes, reorthogonalise)
    out = _outliers(pairs, size, counted.dtype)
    bulk = size - out.shape[1]
    steps = min(num_steps, bulk)
    rng = np.random.default_rng(seed)
    tridiagonal = lanczos(
        _Symmetric(counted, rng),
        _probes(rng, num_probes, out),
        steps,
        outside=out,
        reorthogonalise=reorthogonalise,
    )
    full = tridiagonal.complete | (reorthogonalise and steps == bulk)
    lengths = tridiagonal.steps
    nodes, weights, errors = _gauss(tridiagonal, lengths)
    half_nodes, half_weights, _ = _gauss(tridiagonal, np.where(full, lengths, lengths // 2))
    values = np.zeros(0) if pairs is None else pairs.values.astype(np.float64)
    left_out = _left_out(A, tridiagonal, out, values, num_resampled) if num_resampled else None
    cost = int(lengths[:num_resampled].sum()) if left_out is not None else 0
    cost += len(values) if num_resampled else 0
    return Density(
        nodes,
        weights,
        errors,
        half_nodes,
        half_weights,
        lengths,
        np.sort(values),
        size,
        float(np.finfo(counted.dtype).eps),
        seed,
        _notes(num_steps, steps, reorthogonalise),
        counted.count + cost,
        left_out,
    )


def _check_resampled(A: Any, count: int, num_probes: int, reorthogonalise: bool) -> None:
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
    A: Any, T: Tridiagonal, outside: np.ndarray, values: np.ndarray, count: int
) -> BatchJackknife | None:
    """What the first probes' nodes and weights, and the values, would be without each batch.

    None for a single batch, which cannot tell.
    """
    assert T.basis is not None
    beside = A.batch_grams(outside).grouped(MOST_GROUPS)
    if len(beside.examples) < 2:
        return None
    found = []
    for s, n in enumerate(T.steps[:count]):
        grams = A.batch_grams(T.basis[:n, s].T).grouped(MOST_GROUPS)
        with few_threads(n):
            nodes, vectors = np.linalg.eigh(grams.left_out(T.dense(s)))
        missing = ((0, 0), (0, T.steps.max() - n))
        found.append((np.pad(nodes, missing, "edge"), np.pad(vectors[:, 0] ** 2, missing)))
    nodes, weights = (np.stack(each, axis=1) for each in zip(*found, strict=True))
    shifted = np.diagonal(beside.left_out(np.diag(values)), axis1=1, axis2=2)
    return BatchJackknife(nodes, weights, shifted, beside.examples)


class _Symmetric(LinearOperator):
    """A as it is, whose first product is held to symmetry."""

    def __init__(self, A: CountedOperator, rng: np.random.Generator):
        super().__init__(A.dtype, A.shape)
        self._A, self._rng = A, rng
        self._is_seen = False

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self._A.matmat(V) if self._is_seen else self._first(V)

    def _first(self, V: np.ndarray) -> np.ndarray:
        count = V.shape[1]
        if count == 1 < len(V):
            other = self._rng.standard_normal((1, len(V)), dtype=V.dtype)
            V = np.concatenate([V.T, other]).T
        product = self._A.matmat(V)
        self._A.check_symmetry(V, product)
        self._is_seen = True
        return product[:, :count]


def _probes(rng: np.random.Generator, count: int, U: np.ndarray) -> np.ndarray:
    """(P, S) Gaussian columns in the precision of U (P, k) and orthogonal to it."""
    rows = rng.standard_normal((count, len(U)), dtype=U.dtype)
    for row in rows if U.shape[1] else ():
        row -= U @ (U.T @ row)
    return rows.T


def _outliers(pairs: Eigenpairs | None, size: int, dtype: np.dtype) -> np.ndarray:
    """(P, k) vectors to project out."""
    if pairs is None:
        return np.zeros((size, 0), dtype)
    U = np.asarray(pairs.vectors, dtype)
    if len(U) != size or U.shape[1] >= size:
        raise InputError(
            f"fewer than {size} pairs of {size} entries", f"vectors of shape {U.shape}", "drop some"
        )
    gap = np.abs(U.T @ U - np.eye(U.shape[1])).max(initial=0.0)
    if not gap <= np.sqrt(np.finfo(dtype).eps):
        raise InputError("orthonormal vectors of pairs", f"UᵀU - I of {gap:.1e}", "use hvp.eigsh")
    return U


def _notes(asked: int, taken: int, reorthogonalise: bool) -> tuple[str, ...]:
    notes = []
    if taken < asked:
        notes.append(f"num_steps cut from {asked} to {taken}, the dimension of the space")
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

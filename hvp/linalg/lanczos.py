"""The Lanczos recurrence from several starting vectors at once: A Q = Q T + r eᵀ.

From a vector q of length one the recurrence builds an orthonormal basis Q (P, m) of the Krylov
space q, Aq, A²q, … A symmetric A is tridiagonal in this basis: T = QᵀAQ, with α on the diagonal and
β next to it,

    β_j q_(j+1) = A q_j - α_j q_j - β_(j-1) q_(j-1).

S recurrences run at once, independent of each other, and their vectors are multiplied as one block.
In rounded arithmetic three terms do not keep Q orthogonal once an eigenvalue has converged (Paige
1976). Therefore each new vector is orthogonalised against all vectors before it, by classical
Gram-Schmidt, and once more where that has removed most of it: twice is enough (Parlett 1998,
section 6.9).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import LinearOperator

from hvp.linalg.blocks import chunks, dot, few_threads

# Products are assumed to be right to this many roundings of ‖A‖; a smaller β counts as zero.
ROUNDINGS = 32
# Entries of a vector that are converted to float64 at once.
CHUNK_ENTRIES = 1 << 15


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """T of S recurrences, and their bases with reorthogonalisation.

    Attributes:
        alphas: (S, m) the diagonals, float64; zero after the last step of a probe.
        betas: (S, m) the off-diagonals, float64; that of a probe's last step is ‖r‖.
        steps: (S,) steps of each probe. Fewer than m where its Krylov space is invariant: the
            eigenvalues of T are then eigenvalues of A.
        complete: (S,) whether the Krylov space is invariant, be it after all m steps.
        basis: (m + 1, S, P) the vectors q, and after the last step r/‖r‖; None without
            reorthogonalisation. Entries after that of a probe are undefined.
    """

    alphas: np.ndarray
    betas: np.ndarray
    steps: np.ndarray
    complete: np.ndarray
    basis: np.ndarray | None

    def dense(self, probe: int) -> np.ndarray:
        """T of a probe, (n, n) after its n steps."""
        n = self.steps[probe]
        betas = self.betas[probe, : n - 1]
        return np.diag(self.alphas[probe, :n]) + np.diag(betas, 1) + np.diag(betas, -1)

    def ritz(self, probe: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Eigenvalues θ (n,) of a probe's T after n steps, their weights (n,) and errors (n,).

        The weights are the squares of the first entries of T's eigenvectors: those of the starting
        vector's components along the Ritz vectors y. The errors are β_n times the last entries,
        which is ‖Ay - θy‖ (Parlett 1998, section 13.2).
        """
        alphas, betas = self.alphas[probe, :steps], self.betas[probe, :steps]
        values, vectors = scipy.linalg.eigh_tridiagonal(alphas, betas[:-1])
        return values, vectors[0] ** 2, betas[-1] * np.abs(vectors[-1])


def lanczos(
    A: LinearOperator,
    start: np.ndarray,
    num_steps: int,
    *,
    outside: np.ndarray | None = None,
    reorthogonalise: bool = True,
) -> Tridiagonal:
    """Tridiagonal matrices of a symmetric A on the Krylov spaces of the columns of a block.

    Vectors have the precision of A; α and β are summed in float64. T is then exact for a matrix
    within some roundings of ‖A‖ from A, and its eigenvalues have that absolute error: smaller ones
    are noise.

    A probe ends early where β is within 32 roundings of its largest ‖Aq‖ so far.

    Args:
        A: real and symmetric, (P, P), of float32 or float64.
        start: (P, S) starting vectors, none zero.
        num_steps: m, at most P.
        outside: (P, k) orthonormal columns U, to which all vectors stay orthogonal: the recurrence
            is then that of (I - UUᵀ) A (I - UUᵀ). Starting vectors must be orthogonal to them.
        reorthogonalise: against all vectors before, which needs m + 1 vectors per probe in memory.
            Without it there are two, and eigenvalues that have converged appear again as copies
            (ghosts): the eigenvalues of T are still near those of A, and copies share the weight of
            their original (Greenbaum 1989), but they cannot be counted.

    >>> from scipy.sparse.linalg import aslinearoperator
    >>> T = lanczos(aslinearoperator(np.diag([1.0, 2.0, 4.0])), np.ones((3, 1)), 2)
    >>> T.alphas.round(6).tolist(), T.betas.round(6).tolist(), T.steps.tolist()
    ([[2.333333, 2.809524]], [[1.247219, 0.742307]], [2])
    """
    size, count = start.shape
    space = np.empty((num_steps + 1 if reorthogonalise else 2, count, size), A.dtype)
    for q, v in zip(space[0], start.T, strict=True):
        q[:] = v
        _normalise(q, np.sqrt(dot(q, q, CHUNK_ENTRIES)))
    del start, v  # frees the memory if the caller holds no reference
    alphas, betas = np.zeros((count, num_steps)), np.zeros((count, num_steps))
    steps, norms, complete = np.zeros(count, int), np.zeros(count), np.zeros(count, bool)
    tolerance = ROUNDINGS * float(np.finfo(A.dtype).eps)
    outside_bases = [] if outside is None else [outside.T]
    for j in range(num_steps):
        active = np.flatnonzero(~complete)
        if not len(active):
            break
        before, now, after = (space[i % len(space)] for i in (j - 1, j, j + 1))
        product = A.matmat((now if len(active) == count else now[active]).T)
        with few_threads(size):
            for s, Aq in zip(active, product.T, strict=True):
                beta = float(betas[s, j - 1]) if j else 0.0
                alpha = _three_terms(Aq, now[s], before[s] if j else now[s], beta, after[s])
                bases = list(outside_bases)
                if reorthogonalise:
                    bases.append(space[: j + 1, s])
                norm = _orthogonalise(bases, after[s])
                alphas[s, j], betas[s, j], steps[s] = alpha, norm, j + 1
                norms[s] = max(norms[s], np.sqrt(alpha**2 + beta**2 + norm**2))
                complete[s] = norm <= tolerance * norms[s]
                if not complete[s]:
                    _normalise(after[s], norm)
        del product, Aq  # frees the memory before the next product
    basis = space if reorthogonalise else None
    return Tridiagonal(alphas, betas, steps, complete, basis)


def _three_terms(
    Aq: np.ndarray, q: np.ndarray, before: np.ndarray, beta: float, after: np.ndarray
) -> float:
    """Write Aq - αq - β·before into `after`, which may be `before`; α is returned.

    β·before is subtracted first, which is best without reorthogonalisation (Paige 1972).
    """
    alpha = 0.0
    for c in chunks(len(q), CHUNK_ENTRIES):
        after[c] = Aq[c] - beta * before[c].astype(np.float64)
        alpha += np.dot(q[c].astype(np.float64), after[c].astype(np.float64))
    for c in chunks(len(q), CHUNK_ENTRIES):
        after[c] -= alpha * q[c].astype(np.float64)
    return alpha


def _orthogonalise(bases: list[np.ndarray], w: np.ndarray) -> float:
    """Make w (P,) orthogonal to the rows of the bases (j, P), in place; return its new length."""
    norm = 0.0
    for _ in range(2):
        removed = 0.0
        for basis in bases:
            along = basis @ w
            removed += float(np.sum(along.astype(np.float64) ** 2))
            for c in chunks(len(w), CHUNK_ENTRIES):
                w[c] -= along @ basis[:, c]
        norm = np.sqrt(dot(w, w, CHUNK_ENTRIES))
        # By Pythagoras, at least 1/√2 of the length of w remains: once was enough.
        if np.sqrt(removed) <= norm:
            break
    return norm


def _normalise(w: np.ndarray, norm: float) -> None:
    np.divide(w, norm, out=w, casting="same_kind")

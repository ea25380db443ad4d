"""The Lanczos recurrence, on several starting vectors in lockstep: A Q = Q T + r eᵀ.

From a vector q of length one the recurrence builds an orthonormal basis Q (P, m) of the Krylov
space q, Aq, A²q, … in which a symmetric A is tridiagonal: T = QᵀAQ, with α on the diagonal and β
beside it,

    β_j q_(j+1) = A q_j - α_j q_j - β_(j-1) q_(j-1).

Here S of them run at once, each on its own, and their vectors are multiplied as one block. In
rounded arithmetic three terms do not keep Q orthogonal once an eigenvalue has converged (Paige
1976): each new vector is orthogonalised against all before it, by classical Gram-Schmidt, and once
more where the first pass took most of it away: twice is enough (Parlett 1998, section 6.9).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import LinearOperator

from hvp.linalg.threads import few_threads

# Products are taken to be right to so many roundings of ‖A‖, and β within them to be zero.
ROUNDINGS = 32
# Entries that are taken to float64 at once.
CHUNK = 1 << 15


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """T of S recurrences, and the bases where they were kept.

    Attributes:
        alphas: (S, m) the diagonals, float64; zero after the last step of a probe.
        betas: (S, m) beside the diagonals; the one of a probe's last step is ‖r‖.
        steps: (S,) how many each made. Fewer than asked for where its Krylov space is invariant:
            the eigenvalues of T are then eigenvalues of A.
        complete: (S,) whether it is, which a last step may find too.
        basis: (m + 1, S, P) the vectors q, and after the last step r/‖r‖; None where only two
            vectors were kept. What lies after a probe's last step is no vector.
    """

    alphas: np.ndarray
    betas: np.ndarray
    steps: np.ndarray
    complete: np.ndarray
    basis: np.ndarray | None

    def dense(self, probe: int) -> np.ndarray:
        """T of a probe, (n, n) after its n steps."""
        n = self.steps[probe]
        beside = self.betas[probe, : n - 1]
        return np.diag(self.alphas[probe, :n]) + np.diag(beside, 1) + np.diag(beside, -1)

    def ritz(self, probe: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The eigenvalues θ of a probe's T after so many steps, what they weigh, and their errors.

        The weights are the squares of the first entries of T's eigenvectors, the share that the
        starting vector has in each; the errors are β_m times the last, ‖Ay - θy‖ of the Ritz vector
        (Parlett 1998, section 13.2).
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

    Vectors are in the precision of A; α and β are summed in float64, so that T is the exact one of
    a matrix within roundings of ‖A‖, and so absolutely right are its eigenvalues: those smaller
    than that are noise.

    A probe ends early where β is within 32 roundings of the largest ‖Aq‖ seen.

    Args:
        A: real and symmetric, (P, P), of float32 or float64.
        start: (P, S) starting vectors, none zero.
        num_steps: m, at most P.
        outside: (P, k) orthonormal columns U, to which all vectors stay orthogonal: the recurrence
            is then that of (I - UUᵀ) A (I - UUᵀ). Starting vectors must be orthogonal to them.
        reorthogonalise: against all vectors before, which takes m + 1 vectors a probe. Otherwise
            two are kept, and eigenvalues that have converged come up again as copies (ghosts):
            the eigenvalues of T are still near those of A, and copies share the weight of their
            original (Greenbaum 1989), but they cannot be counted.

    >>> from scipy.sparse.linalg import aslinearoperator
    >>> T = lanczos(aslinearoperator(np.diag([1.0, 2.0, 4.0])), np.ones((3, 1)), 2)
    >>> T.alphas.round(6).tolist(), T.betas.round(6).tolist(), T.steps.tolist()
    ([[2.333333, 2.809524]], [[1.247219, 0.742307]], [2])
    """
    size, count = start.shape
    space = np.empty((num_steps + 1 if reorthogonalise else 2, count, size), A.dtype)
    for q, v in zip(space[0], start.T, strict=True):
        q[:] = v
        _normalise(q, np.sqrt(_dot(q, q)))
    del start, v  # a vector a probe, where the caller has let go of it
    alphas, betas = np.zeros((count, num_steps)), np.zeros((count, num_steps))
    steps, scales, complete = np.zeros(count, int), np.zeros(count), np.zeros(count, bool)
    tolerance = ROUNDINGS * float(np.finfo(A.dtype).eps)
    away = [] if outside is None else [outside.T]
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
                bases = [*away, space[: j + 1, s]] if reorthogonalise else away
                norm = _orthogonalise(bases, after[s])
                alphas[s, j], betas[s, j], steps[s] = alpha, norm, j + 1
                scales[s] = max(scales[s], np.sqrt(alpha**2 + beta**2 + norm**2))
                complete[s] = norm <= tolerance * scales[s]
                if not complete[s]:
                    _normalise(after[s], norm)
        del product, Aq  # before the next is made
    basis = space if reorthogonalise else None
    return Tridiagonal(alphas, betas, steps, complete, basis)


def _three_terms(
    Aq: np.ndarray, q: np.ndarray, before: np.ndarray, beta: float, after: np.ndarray
) -> float:
    """Write Aq - αq - β·before into `after`, which may be `before`; α is returned.

    α is taken after β·before, as is best without reorthogonalisation (Paige 1972).
    """
    alpha = 0.0
    for c in _chunks(q):
        after[c] = Aq[c] - beta * before[c].astype(np.float64)
        alpha += np.dot(q[c].astype(np.float64), after[c].astype(np.float64))
    for c in _chunks(q):
        after[c] -= alpha * q[c].astype(np.float64)
    return alpha


def _orthogonalise(bases: list[np.ndarray], w: np.ndarray) -> float:
    """Take from w (P,) what lies along the rows of the bases (j, P); what is left is ‖w‖."""
    norm = 0.0
    for _ in range(2):
        taken = 0.0
        for basis in bases:
            along = basis @ w
            taken += float(along @ along)
            for c in _chunks(w):
                w[c] -= along @ basis[:, c]
        norm = np.sqrt(_dot(w, w))
        # By Pythagoras: at least 1/√2 of w is left.
        if np.sqrt(taken) <= norm:
            break
    return norm


def _normalise(w: np.ndarray, norm: float) -> None:
    np.divide(w, norm, out=w, casting="same_kind")


def _dot(u: np.ndarray, v: np.ndarray) -> float:
    """uᵀv, summed in float64 without a vector of it."""
    return sum(float(np.dot(u[c].astype(np.float64), v[c].astype(np.float64))) for c in _chunks(u))


def _chunks(v: np.ndarray) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, len(v), CHUNK)]

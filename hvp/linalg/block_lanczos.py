"""Eigenpairs by block Lanczos with thick restarts, in the memory of one basis.

A basis Q (P, n) grows by the products of its newest columns, so that

    A Q = Q T + F C,    T = QᵀAQ,

where F (P, f), the fresh vectors, are orthonormal and orthogonal to Q, and C (f, n) couples them.
For an eigenvector s of T, y = Qs is a Ritz vector with ‖Ay - θy‖ = ‖Cs‖. A full basis is replaced
by the Ritz vectors of the wanted end, in place: they have the same form with a diagonal T (Wu and
Simon 2000; Stewart 2001, for blocks Zhou and Saad 2008). So nothing is held besides Q and F, and
any orthonormal block can start it, such as all eigenvectors of a matrix nearby.

Several fresh vectors are multiplied as one block, which costs less where products compute anew what
does not depend on the vector.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hvp.errors import ConvergenceError
from hvp.linalg.arpack import advice
from hvp.linalg.blocks import chunks
from hvp.linalg.counted_operator import ASYMMETRY_EXPONENT, CountedOperator
from hvp.linalg.lanczos import ROUNDINGS

# Entries of each vector that are worked on at once: fewer leave nothing for a second thread.
CHUNK_ENTRIES = 1 << 17
# Parts of residuals that are less than this share of the error allowed are not worth a product.
SMALL = 0.5
# Of what is free in the basis after the wanted vectors, the share that a restart keeps.
KEPT = 0.5


class Basis:
    """Q, T, F and C of an operator, from orthonormal starting vectors.

    Attributes:
        size: n, the columns of Q.
        fresh: f, the columns of F.
        norm: the largest ‖Aq‖ so far, a lower bound of ‖A‖.
        asymmetry: the largest |uᵀ(Av) - (Au)ᵀv| of vectors of the basis so far.
        is_incomplete: whether the space was invariant once, and went on from a random vector.

    Args:
        A: real and symmetric, (P, P).
        start: (b, P) starting vectors, as rows; those that depend on others are left out.
        capacity: the most columns of Q. Memory is taken for so many and b more.
        rng: of the vectors that follow an invariant space.
    """

    def __init__(
        self, A: CountedOperator, start: np.ndarray, capacity: int, rng: np.random.Generator
    ):
        width, length = start.shape
        self._A, self._rng = A, rng
        self._rows = np.empty((min(max(capacity, width), length) + width, length), A.dtype)
        self._T = np.zeros((len(self._rows),) * 2)
        self._eps = ROUNDINGS * float(np.finfo(A.dtype).eps)
        self.size, self.fresh, self.is_incomplete = 0, 0, False
        self.norm = self.asymmetry = 0.0
        self._rows[:width] = start
        self.fresh = self._accept(width, self._eps)[1].shape[0]
        self._C = np.zeros((self.fresh, 0))
        if not self.fresh:
            self._add_random()

    def aim(self, S: np.ndarray, count: int, error: float) -> int:
        """Turn F so that its first vectors are those that the residuals of Ritz vectors QS need.

        They are at most `count`, without those of which the residuals have less than `error`.
        Returns their number, one at least.
        """
        U, lengths, _ = np.linalg.svd(self._C @ S)
        rows, turn = self._rows[self.size : self.size + self.fresh], U.T.astype(self._rows.dtype)
        for c in chunks(rows.shape[1], CHUNK_ENTRIES):
            rows[:, c] = turn @ rows[:, c]
        self._C = U.T @ self._C
        return int(np.clip(np.sum(lengths > error), 1, count))

    def grow(self, count: int) -> None:
        """Multiply the first `count` fresh vectors."""
        old, rest = self.size, self.fresh - count
        self._multiply(count)
        self.size = n = old + count
        self.fresh = rest
        inside, coupling = self._accept(count, self._eps * self.norm)
        difference = float(np.abs(inside[:old].T - self._C[:count]).max(initial=0.0))
        self.asymmetry = max(self.asymmetry, difference)
        self._T[:n, old:n], self._T[old:n, :n] = inside, inside.T
        self._T[old:n, old:n] = (inside[old:] + inside[old:].T) / 2
        before = np.zeros((len(coupling), old))
        before[:rest] = self._C[count:]
        self._C = np.concatenate([before, coupling], axis=1)
        self.fresh = len(coupling)
        if not self.fresh:
            self.is_incomplete = n < self._rows.shape[1]
            self._add_random()

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ascending eigenvalues θ (n,) of T, its eigenvectors S (n, n), and ‖Ay - θy‖ (n,)."""
        values, S = np.linalg.eigh(self._T[: self.size, : self.size])
        return values, S, np.linalg.norm(self._C @ S, axis=0)

    def restart(self, values: np.ndarray, S: np.ndarray) -> None:
        """Replace Q by QS, whose Rayleigh quotients are the values, in place."""
        n, kept, f = self.size, S.shape[1], self.fresh
        rotation = S.T.astype(self._rows.dtype)
        for c in chunks(self._rows.shape[1], CHUNK_ENTRIES):
            rotated, fresh = rotation @ self._rows[:n, c], self._rows[n : n + f, c].copy()
            self._rows[:kept, c], self._rows[kept : kept + f, c] = rotated, fresh
        self._T[:kept, :kept] = np.diag(values)
        self._C = self._C @ S
        self.size = kept

    def vectors(self, S: np.ndarray) -> np.ndarray:
        """QS (P, k), in memory of its own."""
        found = np.empty((S.shape[1], self._rows.shape[1]), self._rows.dtype)
        rotation = S.T.astype(found.dtype)
        for c in chunks(found.shape[1], CHUNK_ENTRIES):
            np.matmul(rotation, self._rows[: self.size, c], out=found[:, c])
        return found.T

    def _multiply(self, count: int) -> None:
        """Write the products of the first rows of F behind F."""
        rows = self._rows[self.size : self.size + count]
        product = self._A.matvec(rows[0]) if count == 1 else self._A.matmat(rows.T)
        product = product.reshape(-1, count)
        if self.norm == 0 and not self._A.exponent:
            largest = max(float(product.max()), -float(product.min()))
            self._A.adapt_exponent(min(largest * len(product) ** 0.5, np.finfo(float).max))
            product = np.ldexp(product, -self._A.exponent) if self._A.exponent else product
        behind = self._rows[self.size + self.fresh : self.size + self.fresh + count]
        for c in chunks(len(product), CHUNK_ENTRIES):
            behind[:, c] = product[c].T

    def _accept(self, count: int, least: float) -> tuple[np.ndarray, np.ndarray]:
        """Make `count` rows behind F orthonormal to all before; those up to `least` are left out.

        Returns the coefficients of the rows in Q (n, count), and in F and what joins it (f, count).
        """
        n, f = self.size, self.fresh
        inside, outside = np.zeros((n, count)), np.zeros((f + count, count))
        for i in range(count):
            row = self._rows[n + self.fresh + i]
            found, norm = _orthogonalise(self._rows[: n + f], row, f + count)
            self.norm = max(self.norm, float(np.sqrt(np.sum(found**2) + norm**2))) if n else 0.0
            inside[:, i], outside[:f, i] = found[:n], found[n:]
            if norm > least:
                np.divide(row, norm, out=self._rows[n + f], casting="same_kind")
                outside[f, i] = norm
                f += 1
        return inside, outside[:f]

    def _add_random(self) -> None:
        """Go on from a random vector where the space is invariant, but not all of R^P."""
        n, length = self.size, self._rows.shape[1]
        self.fresh = int(n < length)
        self._C = np.zeros((self.fresh, n))
        if self.fresh:
            self._rows[n] = self._rng.standard_normal(length, dtype=self._rows.dtype)
            _, norm = _orthogonalise(self._rows[:n], self._rows[n], 0)
            self._rows[n] /= norm


def eigenvectors(
    A: CountedOperator,
    k: int,
    which: str,
    scale: float | None,
    capacity: int,
    tol: float,
    max_products: int,
    rng: np.random.Generator,
    partial: bool,
    start: Callable[[], np.ndarray],
    least: int,
    block: int | None,
) -> tuple[np.ndarray, float]:
    """The (P, k) Ritz vectors with errors up to `tol` times the scale, and the scale.

    With `partial` they may be fewer, if only those converge within `max_products`. A scale of None
    is that of the products, a lower bound of ‖A‖. `start` gives the starting vectors, as rows. The
    basis is not left before it has `least` vectors. So many vectors as `block` says are multiplied
    at once; None is those that the residuals of the wanted Ritz vectors need.
    """
    basis = Basis(A, start(), capacity, rng)
    count = basis.fresh
    most = min(block or count, capacity - k)
    while True:
        basis.grow(count)
        found = basis.norm if scale is None else scale
        if basis.asymmetry > float(np.finfo(A.dtype).eps) ** ASYMMETRY_EXPONENT * found:
            raise ConvergenceError(
                f"expected uᵀ(Av) = (Au)ᵀv, got a difference of {basis.asymmetry / found:.1e} ‖A‖; "
                "check that A is symmetric and finite, or give a scale"
            )
        values, S, errors = basis.ritz()
        order = preferred(values, which)
        wanted = order[:k]
        has_converged = errors[wanted] <= tol * found
        if block is not None or basis.fresh < 2:
            count = min(basis.fresh, most)
        else:  # where all have converged, what may still be missing shows in the next one
            needed = order[k : k + 1] if has_converged.all() else wanted[~has_converged]
            count = basis.aim(S[:, needed], most, SMALL * tol * found)
        is_full = not basis.fresh or basis.size + count > capacity
        may_end = is_full or (basis.size >= least and not basis.is_incomplete)
        if len(wanted) == k and has_converged.all() and may_end:
            return basis.vectors(S[:, wanted]), found
        if is_full and A.count >= max_products:
            if partial and has_converged.any():
                return basis.vectors(S[:, wanted[has_converged]]), found
            raise ConvergenceError(
                f"expected {k} pairs at {which} within {tol:.1e} of ‖A‖, got "
                f"{has_converged.sum()} that converged after {A.count} products; "
                f"{advice(A, k, found, tol, max_products)}"
            )
        if is_full:
            kept = order[: k + int(KEPT * max(capacity - k - count, 0))]
            basis.restart(values[kept], S[:, kept])


def preferred(values: np.ndarray, which: str) -> np.ndarray:
    """The order of ascending Ritz values: those that are wanted, then those next to them."""
    if which == "LM":
        return np.argsort(-np.abs(values), kind="stable")
    low = np.arange(len(values))
    if which == "BE":  # from both ends in turn, first from the upper one
        return np.stack([low[::-1], low], axis=1).ravel()[: len(values)]
    return low if which == "SA" else low[::-1]


def _orthogonalise(basis: np.ndarray, w: np.ndarray, recent: int) -> tuple[np.ndarray, float]:
    """Make w (P,) orthogonal to the rows of the basis (j, P), in place.

    Returns its coefficients (j,) and its new length. Most of a product lies along the `recent` last
    rows: it is removed first, so that one look at all rows is mostly enough.
    """
    found = np.zeros(len(basis))
    if 2 * recent < len(basis):
        found[-recent:], _ = _remove(basis[-recent:], w)
    for _ in range(3):
        along, norm = _remove(basis, w)
        found += along
        # By Pythagoras, at least 1/√2 of the length of w remains: once more is not needed.
        if np.sum(along**2) <= norm**2:
            break
    return found, norm


def _remove(basis: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, float]:
    """Subtract from w what is along the rows of the basis; its coefficients and its new length."""
    along, square = np.zeros(len(basis)), 0.0
    for c in chunks(len(w), CHUNK_ENTRIES):
        along += basis[:, c] @ w[c]
    rounded = along.astype(w.dtype)
    for c in chunks(len(w), CHUNK_ENTRIES):
        part = w[c]
        part -= rounded @ basis[:, c]
        square += float(np.dot(part, part))
    return along, float(np.sqrt(square))

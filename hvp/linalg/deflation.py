"""A symmetric operator split into a part of low rank, known exactly, and a remainder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvp.linalg.blocks import chunks, gram, multiply, signs
from hvp.linalg.counted_operator import CountedOperator
from hvp.linalg.xtrace import CHECKED_COLUMNS, sketch


@dataclass(frozen=True, eq=False)
class Deflated:
    """A = K + E: a known matrix K of low rank, and products of the remainder E with probes.

    With Π = QQᵀ, K = ΠA + AΠ - ΠAΠ = QFᵀ + FQᵀ and E = (I - Π)A(I - Π). The probes are independent
    of Q and of each other.

    Attributes:
        Q: (P, q) orthonormal columns.
        F: (P, q) AQ - QQᵀAQ/2.
        probes: (P, s) random signs, one byte each.
        remainder: (P, s) E times the probes.
    """

    Q: np.ndarray
    F: np.ndarray
    probes: np.ndarray
    remainder: np.ndarray

    def rows(self, part: slice | np.ndarray) -> Deflated:
        """The same of some of the P entries; no copy where they are a slice."""
        return Deflated(self.Q[part], self.F[part], self.probes[part], self.remainder[part])


def deflate(
    A: CountedOperator, num_products: int, rng: np.random.Generator, min_probes: int
) -> Deflated:
    """Split A: a third of the products finds Q, a third is AQ, the others are with the probes.

    Q has fewer columns, or none, where fewer than `min_probes` products would be left. About 1.1
    times as many vectors as products are in memory. Raises InputError if A is not symmetric.
    """
    rank = min(num_products // 3, (num_products - min_probes) // 2)
    probes = signs(rng, A.shape[0], num_products - 2 * rank)
    if rank:
        Q = sketch(A, signs(rng, A.shape[0], rank)).Q
        AQ = multiply(A, Q)
    else:
        Q, AQ = (np.empty((A.shape[0], 0), A.dtype) for _ in range(2))
    remainder = multiply(A, probes)
    A.check_symmetry(probes[:, :CHECKED_COLUMNS].astype(A.dtype), remainder[:, :CHECKED_COLUMNS])
    inner, projected = gram(Q, AQ), gram(Q, probes)
    along_Q = gram(Q, remainder) - inner @ projected
    for rows in chunks(len(Q)):
        remainder[rows] -= AQ[rows] @ projected + Q[rows] @ along_Q
        AQ[rows] -= Q[rows] @ (inner / 2)
    return Deflated(Q, AQ, probes, remainder)

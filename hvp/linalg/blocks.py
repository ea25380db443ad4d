"""What products with a block of random probes tell of a symmetric operator.

Blocks lie column by column, in the operator's precision; what is small is float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from hvp.errors import InputError
from hvp.linalg.counted_operator import CountedOperator

# Columns that are multiplied at once, rows that are taken to float64 at once.
COLUMNS, ROWS = 16, 1 << 14
# Probes whose products are held against each other.
CHECKED = 4


@dataclass(frozen=True, eq=False)
class Sketch:
    """An orthonormal basis of AΩ for probes Ω (P, s), and what leaving one probe out takes from it.

    The basis Q₍ᵢ₎ of the products without the i-th has Q₍ᵢ₎Q₍ᵢ₎ᵀ = Q(I - sᵢsᵢᵀ)Qᵀ, where sᵢ is
    the unit vector orthogonal to all columns of QᵀAΩ but the i-th: that of its inverse transpose
    (Epperly, Tropp and Webber 2024, section 2.2), or zero where the others span the same space.

    Attributes:
        Q: (P, r) orthonormal columns, r the rank of AΩ.
        products: (r, s) QᵀAΩ.
        probes: (r, s) QᵀΩ.
        left_out: (r, s) the sᵢ.
    """

    Q: np.ndarray
    products: np.ndarray
    probes: np.ndarray
    left_out: np.ndarray

    @property
    def ranks(self) -> np.ndarray:
        """(s,) the dimensions of the Q₍ᵢ₎."""
        return np.where(self.left_out.any(axis=0), len(self.left_out) - 1, len(self.left_out))


def sketch(A: CountedOperator, probes: np.ndarray) -> Sketch:
    """Multiply the probes and orthonormalise; two blocks of their size are held at most.

    Raises InputError where A is not symmetric.
    """
    Y = multiply(A, probes)
    A.check_symmetry(probes[:, :CHECKED].astype(A.dtype), Y[:, :CHECKED])
    Q, R = scipy.linalg.qr(Y, mode="economic", overwrite_a=True, check_finite=False)
    U, sizes, Vt = np.linalg.svd(R.astype(np.float64))
    eps = float(np.finfo(A.dtype).eps)
    rank = int(np.sum(sizes > len(sizes) * eps * sizes[0]))
    U, sizes, Vt = U[:, :rank], sizes[:rank], Vt[:rank]
    for rows in _chunks(len(Q)):
        Q[rows, :rank] = Q[rows] @ U.astype(Q.dtype)
    Q = Q[:, :rank]
    inverse = Vt / sizes[:, None]
    # The i-th column is needed for the span where its leverage, a diagonal of VVᵀ, is one.
    needed = np.sum(Vt**2, axis=0) > 1 - np.sqrt(eps)
    lengths = np.linalg.norm(inverse, axis=0)
    left_out = np.divide(inverse, lengths, out=np.zeros_like(inverse), where=needed)
    return Sketch(Q, sizes[:, None] * Vt, gram(Q, probes), left_out)


@dataclass(frozen=True, eq=False)
class Deflated:
    """A = K + E, a part that is known and a rest on which other probes are tested.

    With P = QQᵀ, K = PA + AP - PAP = QFᵀ + FQᵀ and E = (I - P)A(I - P): given Q nothing but the
    probes is random, and they are independent.

    Attributes:
        Q: (P, q) orthonormal columns.
        F: (P, q) AQ - QQᵀAQ/2.
        probes: (P, s) random signs, a byte each.
        rest: (P, s) E times the probes.
    """

    Q: np.ndarray
    F: np.ndarray
    probes: np.ndarray
    rest: np.ndarray


def parted(A: CountedOperator, num_products: int, rng: np.random.Generator, least: int) -> Deflated:
    """Part A by a third of the products for a range, a third for its image, the rest for probes.

    The basis is smaller, or none, where it would leave fewer than `least` probes. About 1.1 times
    as many vectors as products are held. Raises InputError where A is not symmetric.
    """
    count = min(num_products // 3, (num_products - least) // 2)
    probes = signs(rng, A.shape[0], num_products - 2 * count)
    if count:
        Q = sketch(A, signs(rng, A.shape[0], count)).Q
        AQ = multiply(A, Q)
    else:
        Q, AQ = (np.empty((A.shape[0], 0), A.dtype) for _ in range(2))
    rest = multiply(A, probes)
    A.check_symmetry(probes[:, :CHECKED].astype(A.dtype), rest[:, :CHECKED])
    inner, projected = gram(Q, AQ), gram(Q, probes)
    within = gram(Q, rest) - inner @ projected
    for rows in _chunks(len(Q)):
        rest[rows] -= AQ[rows] @ projected + Q[rows] @ within
        AQ[rows] -= Q[rows] @ (inner / 2)
    return Deflated(Q, AQ, probes, rest)


def multiply(A: CountedOperator, V: np.ndarray) -> np.ndarray:
    """AV (P, K), a few columns at once; V may be of another precision."""
    product = np.empty(V.shape, A.dtype, order="F")
    for start in range(0, V.shape[1], COLUMNS):
        columns = slice(start, start + COLUMNS)
        product[:, columns] = A.matmat(V[:, columns].astype(A.dtype, copy=False))
    return product


def gram(U: np.ndarray, V: np.ndarray) -> np.ndarray:
    """UᵀV in float64."""
    total = np.zeros((U.shape[1], V.shape[1]))
    for chunk in _chunks(len(U)):
        total += U[chunk].astype(np.float64).T @ V[chunk].astype(np.float64)
    return total


def squares(V: np.ndarray) -> np.ndarray:
    """(K,) ‖v‖² of the columns, in float64."""
    total = np.zeros(V.shape[1])
    for chunk in _chunks(len(V)):
        total += np.sum(np.square(V[chunk], dtype=np.float64), axis=0)
    return total


def gaussians(rng: np.random.Generator, size: int, count: int, dtype: np.dtype) -> np.ndarray:
    """(size, count) independent normal entries."""
    return rng.standard_normal((count, size), dtype=dtype).T


def signs(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """(size, count) independent entries ±1, a byte each."""
    return (2 * rng.integers(0, 2, (count, size), dtype=np.int8) - 1).T


def dense(A: CountedOperator) -> np.ndarray:
    """The matrix, by as many products as it has columns.

    Raises InputError where it is not symmetric.
    """
    identity = np.eye(A.shape[0], dtype=A.dtype)
    matrix = multiply(A, identity)
    A.check_symmetry(identity, matrix)
    return matrix


def check_budget(num_products: int, least: int = 1) -> None:
    """Raise InputError for a number of products that is none, or too small to estimate from."""
    if not isinstance(num_products, int | np.integer) or num_products < least:
        raise InputError(f"num_products of at least {least}", num_products, "raise it")


def _chunks(length: int) -> Iterator[slice]:
    return (slice(start, start + ROWS) for start in range(0, length, ROWS))

"""What counts as an operator for a check, and the vectors that it is checked with."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from hvp.errors import InputError, shown

# A SciPy operator, a matrix, or an object with shape, dtype and matvec, such as those of PyLops.
AnyOperator: TypeAlias = Any
PRECISIONS = (np.float32, np.float64)
# Operators of up to so many columns are checked entry by entry, larger ones with a few vectors.
MAX_DENSE_SIZE = 512
NUM_VECTORS = 3
WRAP = "give it shape, dtype and matvec, or make it one by scipy's LinearOperator or by np.array"


class _ByProtocol(LinearOperator):
    """An object with shape, dtype and matvec; its own block product and adjoint where it has them.

    SciPy's ``aslinearoperator`` would replace its block product by columns.
    """

    def __init__(self, A: AnyOperator):
        super().__init__(np.dtype(A.dtype), tuple(A.shape))
        self._object = A

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        product: np.ndarray = self._object.matvec(v)
        return product

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        has_own = hasattr(self._object, "matmat")
        product: np.ndarray = self._object.matmat(V) if has_own else super()._matmat(V)
        return product

    def _rmatvec(self, u: np.ndarray) -> np.ndarray:
        if not hasattr(self._object, "rmatvec"):
            raise NotImplementedError("rmatvec is not defined")
        product: np.ndarray = self._object.rmatvec(u)
        return product


def as_operator(A: AnyOperator, name: str = "A") -> LinearOperator:
    """A SciPy operator of float32 or float64 that multiplies as A does.

    Raises InputError for what is no operator, and for other types of numbers.
    """
    operator = _wrapped(A, name)
    if operator.dtype not in PRECISIONS:
        raise InputError(
            f"{name} of float32 or float64", str(operator.dtype), "give it such a dtype"
        )
    if 0 in operator.shape:
        raise InputError(f"{name} with rows and columns", f"shape {operator.shape}", "check it")
    return operator


def square_operator(A: AnyOperator, name: str = "A") -> LinearOperator:
    """`as_operator`, and InputError where it is not square."""
    operator = as_operator(A, name)
    if operator.shape[0] != operator.shape[1]:
        raise InputError(f"a square {name}", f"shape {operator.shape}", "take AᵀA or a block of it")
    return operator


def _wrapped(A: AnyOperator, name: str) -> LinearOperator:
    if isinstance(A, LinearOperator):
        return A
    if all(hasattr(A, member) for member in ("shape", "dtype", "matvec")):
        return _ByProtocol(A)
    is_matrix = scipy.sparse.issparse(A) or (isinstance(A, np.ndarray) and A.ndim == 2)
    if not is_matrix:
        remedy = "pass hvp.Hessian(lin), say" if hasattr(A, "gnvp") else WRAP
        raise InputError(f"{name}, an operator or a matrix", shown(A), remedy)
    is_whole = np.issubdtype(A.dtype, np.integer) or A.dtype == bool
    return aslinearoperator(A.astype(np.float64) if is_whole else A)


def probes(operator: LinearOperator, seed: int) -> np.ndarray:
    """The vectors (n, K) of a check: the unit vectors where they are few, else random ones."""
    size = operator.shape[1]
    if size <= MAX_DENSE_SIZE:
        return np.eye(size, dtype=operator.dtype)
    return random_vectors(size, NUM_VECTORS, seed).astype(operator.dtype)


def random_vectors(size: int, count: int, seed: int) -> np.ndarray:
    """Vectors (size, count) in float64 with independent standard normal entries."""
    return np.random.default_rng(seed).standard_normal((size, count))

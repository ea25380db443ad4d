"""The operator that every algorithm of `hvp.linalg` works on: square, real, finite and counted."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from scipy.sparse.linalg import LinearOperator

from hvp.errors import InputError
from hvp.linalg.blocks import gram, multiply, squared_lengths
from hvp.progress import Progress, ProgressHook

# What SciPy takes for a linear operator: its own, a sparse or a dense matrix.
Operator: TypeAlias = LinearOperator | scipy.sparse.sparray | scipy.sparse.spmatrix | np.ndarray

# An asymmetry of up to eps ** ASYMMETRY_EXPONENT, relative to the products, counts as rounding.
ASYMMETRY_EXPONENT = 0.5
# Norms up to which, and from whose inverse on, `adapt_exponent` leaves an operator as it is.
MAX_NORM = {"float32": 1e30, "float64": 1e100}
# The largest size of float64 products whose squares and their sums are finite; the smallest is its
# inverse.
MAX_SIZE = 1e140


class CountedOperator(LinearOperator):
    """A square operator that counts its products; a block counts as many as it has columns.

    The operator gets read-only vectors, or copies where it cannot work on those. A product that
    shares memory with its argument, or that the operator itself keeps, is copied.

    An operator with a method ``source_of_nan(v)`` is asked where a NaN comes from.

    Attributes:
        count: products made so far.
        exponent: products are divided by two to the power of this, which is exact.
        total: the most products expected, None where that is not known; for `progress`.

    Args:
        A: a SciPy LinearOperator, sparse or dense matrix of shape (P, P).
        progress: called with a `Progress` of `count` after each product.
        scale: for an operator that is a small difference of large ones, the norm of these. Their
            rounding then does not count as asymmetry.

    Raises:
        InputError: A is not a square operator of float32 or float64, it has no rows, it writes into
            its argument, or a product is not finite.
    """

    def __init__(
        self, A: Operator, progress: ProgressHook | None = None, scale: float | None = None
    ):
        operator = _operator(A)
        super().__init__(operator.dtype, operator.shape)
        self.count = 0
        self.exponent = 0
        self.total: int | None = None
        self._operator = operator
        self._progress = progress
        self._scale = scale or 0.0
        # Whether the operator needs arrays that can be written; whether it keeps its products,
        # which the first one shows; whether columns of a block have been seen to differ.
        self._needs_writable = False
        self._keeps_products: bool | None = None
        self._has_distinct_columns = False

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self._checked(self._product(self._operator.matvec, v), v, 1)

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        product = self._checked(self._product(self._operator.matmat, V), V, V.shape[1])
        if self._has_distinct_columns or V.shape[1] < 2:
            return product
        # SciPy makes a block from single products. If they are all the same buffer, so are its
        # columns.
        self._has_distinct_columns = not _equal_ends(product) or _equal_ends(V)
        if self._has_distinct_columns or not product.any():
            return product
        if np.array_equal(self.matvec(V[:, 0].copy()), product[:, 0]):
            self._has_distinct_columns = True
            return product
        self._keeps_products = True
        self._operator = _ByColumns(self._operator)
        return np.asfortranarray(self.matmat(V))

    def _product(self, multiply: Callable[[np.ndarray], np.ndarray], v: np.ndarray) -> np.ndarray:
        product = self._protected(multiply, v)
        if self._keeps_products is None:
            copy, owner = product.copy(order="K"), weakref.ref(_owner(product))
            del product
            # CPython frees an array with its last reference: one that is alive has another owner.
            self._keeps_products = owner() is not None
            return copy
        if self._keeps_products or np.may_share_memory(product, v):
            return product.copy(order="K")
        return product

    def _protected(self, multiply: Callable[[np.ndarray], np.ndarray], v: np.ndarray) -> np.ndarray:
        """The product with a read-only view of v, or with a copy where that is refused."""
        if not self._needs_writable:
            view = v.view()
            view.flags.writeable = False
            try:
                return multiply(view)
            except ValueError as error:
                if "read-only" not in str(error) and "not writ" not in str(error):
                    raise
        argument = v.copy(order="K")
        product = multiply(argument)
        if not np.array_equal(argument, v, equal_nan=True):
            raise InputError(
                "an operator that leaves its argument as it is",
                "one that writes into its argument",
                "copy it first: v = v.copy()",
            )
        self._needs_writable = True
        return product

    def _adjoint(self) -> CountedOperator:
        return self

    def _checked(self, product: np.ndarray, v: np.ndarray, columns: int) -> np.ndarray:
        self.count += columns
        if self._progress is not None:
            self._progress(Progress(self.count, columns, self.total))
        if not _is_finite(product):
            source = getattr(self._operator, "source_of_nan", lambda v: "")(v)
            raise InputError(
                "finite products",
                f"NaN or infinity in product {self.count}{f', from {source}' if source else ''}",
                "check the data there, or the operator",
            )
        return np.ldexp(product, -self.exponent) if self.exponent else product

    def adapt_exponent(self, norm: float) -> None:
        """Choose the exponent for an operator of this norm: zero unless squares are out of range.

        Raises:
            InputError: the products are so small that their rounding is above eps ** 0.5.
        """
        if norm and not 1 / MAX_NORM[self.dtype.name] <= norm <= MAX_NORM[self.dtype.name]:
            self.check_resolution(norm)
            self.exponent = int(np.frexp(norm)[1])

    def check_resolution(self, norm: float) -> None:
        """Raise InputError where products with unit vectors are near the smallest number."""
        info = np.finfo(self.dtype)
        rounding = np.sqrt(self.shape[0]) * float(info.smallest_subnormal)
        if 0 < norm < rounding / float(info.eps) ** ASYMMETRY_EXPONENT:
            raise InputError(
                f"products that {self.dtype} resolves",
                f"products of size {norm:.1e}",
                "multiply the operator by a constant, or use float64",
            )

    def check_symmetry(self, V: np.ndarray, AV: np.ndarray) -> None:
        """Raise InputError if VᵀAV (K, K) is not symmetric, for random vectors V (P, K).

        Also where the products are so large or small that their squares are out of range.
        """
        largest = float(np.abs(AV).max(initial=0.0))
        norm = max(largest / float(np.abs(V).max(initial=0.0) or 1.0), self._scale)
        self.check_resolution(norm)
        if self.dtype == np.float64 and norm and not 1 / MAX_SIZE <= norm <= MAX_SIZE:
            raise InputError(
                f"products of size {1 / MAX_SIZE:.0e} to {MAX_SIZE:.0e}",
                f"size {norm:.1e}",
                "divide the operator by its norm",
            )
        inner = gram(V, AV)
        lengths, product_lengths = np.sqrt([squared_lengths(V), squared_lengths(AV)])
        sizes = lengths[:, None] * np.maximum(product_lengths, self._scale * lengths)
        size = float(np.max(sizes + sizes.T, initial=0.0))
        asymmetry = float(np.max(np.abs(inner - inner.T), initial=0.0)) / size if size else 0.0
        if asymmetry > float(np.finfo(self.dtype).eps) ** ASYMMETRY_EXPONENT:
            raise InputError(
                "a symmetric operator, uᵀ(Av) = (Au)ᵀv",
                f"a relative difference of {asymmetry:.1e}",
                "take (A + Aᵀ)/2, or check the operator",
            )

    def dense(self) -> np.ndarray:
        """The matrix (P, P), by P products. Raises InputError if it is not symmetric."""
        identity = np.eye(self.shape[0], dtype=self.dtype)
        matrix = multiply(self, identity)
        self.check_symmetry(identity, matrix)
        return matrix


def check_num_products(num_products: int, minimum: int = 1) -> None:
    """Raise InputError if `num_products` is not a whole number of at least `minimum`."""
    if not isinstance(num_products, int | np.integer) or num_products < minimum:
        raise InputError(f"num_products of at least {minimum}", num_products, "raise it")


class _ByColumns(LinearOperator):
    """An operator whose blocks are made column by column, each copied at once."""

    def __init__(self, operator: LinearOperator):
        super().__init__(operator.dtype, operator.shape)
        self._operator = operator

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self._operator.matvec(v)

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return np.stack([self._operator.matvec(v).copy() for v in V.T], axis=1)


def _owner(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory, as far as NumPy knows it."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _equal_ends(V: np.ndarray) -> bool:
    """Whether the first and the last column are equal."""
    return np.array_equal(V[:, 0], V[:, -1])


def _operator(A: Operator) -> LinearOperator:
    try:
        operator = scipy.sparse.linalg.aslinearoperator(A)
    except TypeError as error:
        is_backend = hasattr(A, "gnvp")
        raise InputError(
            "a SciPy LinearOperator or a matrix",
            type(A).__name__,
            "pass hvp.Hessian(lin), or hvp.GaussNewton(lin)" if is_backend else "wrap it",
        ) from error
    if operator.shape[0] != operator.shape[1]:
        raise InputError("a square operator", f"shape {operator.shape}", "use AᵀA or a block of it")
    if not operator.shape[0]:
        raise InputError("an operator of at least one row", "shape (0, 0)", "check its parameters")
    if operator.dtype not in (np.float32, np.float64):
        raise InputError(
            "an operator of float32 or float64", operator.dtype, "pass dtype= to LinearOperator"
        )
    return operator


def _is_finite(v: np.ndarray) -> bool:
    # NaN and infinity survive a sum of squares, which is fast. A finite v may overflow in it, so
    # that an infinite sum needs a look at every entry.
    entries = v.ravel(order="K")  # a view, of a block of columns too
    return bool(np.isfinite(np.vdot(entries, entries)) or np.isfinite(v).all())

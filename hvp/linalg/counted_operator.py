"""What every algorithm takes for an operator: symmetric in shape, real, counted, never NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse.linalg
from scipy.sparse.linalg import LinearOperator

from hvp.errors import InputError

# Relative asymmetry of products that rounding explains: the square root of the precision.
ASYMMETRY = 0.5
# Rows of a block that are taken to float64 at once.
CHUNK = 1 << 14


class CountedOperator(LinearOperator):
    """A square operator that counts its products and reports them; a block counts its columns.

    Raises InputError for what is no square operator of float32 or float64, and for a product that
    is not finite: where the operator has a method ``source_of_nan(v)`` it says where that is from.
    Of an operator that is a small difference of large ones, `scale` is the norm of these, whose
    rounding is no asymmetry.
    """

    def __init__(
        self, A: Any, progress: Callable[[int], None] | None = None, scale: float | None = None
    ):
        operator = _operator(A)
        super().__init__(operator.dtype, operator.shape)
        self.count = 0
        self._operator = operator
        self._progress = progress
        self._scale = scale or 0.0

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self._checked(self._operator.matvec(v), v, 1)

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self._checked(self._operator.matmat(V), V, V.shape[1])

    def _adjoint(self) -> CountedOperator:
        return self

    def _checked(self, product: np.ndarray, v: np.ndarray, columns: int) -> np.ndarray:
        self.count += columns
        if self._progress is not None:
            self._progress(self.count)
        if not _is_finite(product):
            source = getattr(self._operator, "source_of_nan", lambda v: "")(v)
            raise InputError(
                "finite products",
                f"NaN or infinity in product {self.count}{f', from {source}' if source else ''}",
                "check the data there, or the operator",
            )
        return product

    def check_symmetry(self, V: np.ndarray, AV: np.ndarray) -> None:
        """Raise InputError where VᵀAV (K, K), of a block of random vectors, is not symmetric."""
        inner, squares = np.zeros((V.shape[1], V.shape[1])), np.zeros((2, V.shape[1]))
        for start in range(0, len(V), CHUNK):
            U, AU = (B[start : start + CHUNK].astype(np.float64) for B in (V, AV))
            inner += U.T @ AU
            squares += [np.sum(U**2, axis=0), np.sum(AU**2, axis=0)]
        lengths, images = np.sqrt(squares)
        sizes = lengths[:, None] * np.maximum(images, self._scale * lengths)
        size = float(np.max(sizes + sizes.T, initial=0.0))
        asymmetry = float(np.max(np.abs(inner - inner.T), initial=0.0)) / size if size else 0.0
        if asymmetry > float(np.finfo(self.dtype).eps) ** ASYMMETRY:
            raise InputError(
                "a symmetric operator, uᵀ(Av) = (Au)ᵀv",
                f"a relative difference of {asymmetry:.1e}",
                "take (A + Aᵀ)/2, or check the operator",
            )


def _operator(A: Any) -> LinearOperator:
    try:
        operator = scipy.sparse.linalg.aslinearoperator(A)
    except TypeError as error:
        raise InputError(
            "a SciPy LinearOperator or a matrix", type(A).__name__, "wrap it"
        ) from error
    if operator.shape[0] != operator.shape[1]:
        raise InputError("a square operator", f"shape {operator.shape}", "use AᵀA or a block of it")
    if operator.dtype not in (np.float32, np.float64):
        raise InputError(
            "an operator of float32 or float64", operator.dtype, "pass dtype= to LinearOperator"
        )
    return operator


def _is_finite(v: np.ndarray) -> bool:
    # NaN and infinity survive a sum of squares; so may an overflow, hence the second look.
    entries = v.ravel(order="K")  # a view of a block of columns too
    return bool(np.isfinite(np.vdot(entries, entries)) or np.isfinite(v).all())

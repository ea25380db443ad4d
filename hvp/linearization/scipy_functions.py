"""A loss as the functions that `scipy.optimize.minimize` takes: value, gradient, product."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hvp.errors import InputError, shown

if TYPE_CHECKING:
    from hvp.linearization.linearization import Linearization

MATRICES = ("H", "G")


class ScipyFunctions(NamedTuple):
    """Functions of parameters (P,), in float64.

    Attributes:
        fun: L(w).
        jac: ∇L(w), (P,).
        hessp: (w, v) -> the product with v, (P,).
    """

    fun: Callable[[np.ndarray], float]
    jac: Callable[[np.ndarray], np.ndarray]
    hessp: Callable[[np.ndarray, np.ndarray], np.ndarray]


def scipy_functions(lin: Linearization, matrix: str) -> ScipyFunctions:
    """See `Linearization.scipy_functions`."""
    if matrix not in MATRICES:
        raise InputError("H or G", shown(matrix), "name it by its letter")
    last = _LastPoint(lin)

    def fun(w: np.ndarray) -> float:
        return lin.loss(w)

    def jac(w: np.ndarray) -> np.ndarray:
        return lin.gradient(w).astype(np.float64)

    def hessp(w: np.ndarray, v: np.ndarray) -> np.ndarray:
        there = last.at(w)
        product = there.hvp(v) if matrix == "H" else there.gnvp(v)
        return product.astype(np.float64)

    return ScipyFunctions(fun, jac, hessp)


class _LastPoint:
    """The linearization at the point that was asked for last."""

    def __init__(self, lin: Linearization):
        self._lin, self._w, self._there = lin, lin.theta.astype(np.float64), lin

    def at(self, w: np.ndarray) -> Linearization:
        if not np.array_equal(w, self._w):
            if self._there is not self._lin:
                self._there.close()
            self._w, self._there = np.array(w, np.float64), self._lin.at(w)
        return self._there

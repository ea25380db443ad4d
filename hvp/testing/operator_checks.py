"""All laws of an operator in one call, for operators that others have written."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hvp.certificate.checks import Check
from hvp.certificate.differences import relative
from hvp.errors import InputError, shown
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of
from hvp.testing import operator_laws
from hvp.testing.adapters import AnyOperator, as_operator
from hvp.testing.finite_differences import Report

# What a law measures: an error relative to the product, and a note for when it is too large.
Law = Callable[[], tuple[float | None, str]]
NUM_COLUMNS = 3


def check_operator(
    A: AnyOperator,
    *,
    symmetric: bool | None = None,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
    bound: float | None = None,
) -> Report:
    """Check the laws that every operator has to obey, on random vectors of non-zero mean.

    - products are finite, of the shape and the dtype that A states;
    - linearity, A(2u - 3v) = 2Au - 3Av, and repeatability;
    - the dot test, uᵀ(Av) = (Aᵀu)ᵀv, where A has an adjoint, and symmetry, uᵀ(Av) = (Au)ᵀv;
    - the product of a block holds those of its columns, row-major and column-major alike;
    - the product is the same for an argument that is read-only, or strided (every second entry);
    - the argument stays as it is, and the product is a new array: it shares no memory with the
      argument, and the next product does not overwrite it.

    Args:
        A: any SciPy operator, a matrix, or an object with shape, dtype and matvec.
        symmetric: whether A has to be symmetric; None: if it is square.
        seed: of the vectors.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).
        bound: of the relative errors; None for 1,000 roundings of A's precision.

    Returns:
        A `Report` with a line for each law. Where a product raises an error, the line holds it.
        `Report.raise_if_failed` raises AssertionError.

    Raises:
        InputError: A is no operator, or symmetric=True and it is not square.

    >>> report = check_operator(np.array([[2.0, 1.0], [1.0, 3.0]]))
    >>> report.passed, len(report.checks)
    (True, 13)
    >>> print(*(check.name for check in check_operator(np.array([[2.0, 1.0], [0.0, 3.0]])).failed))
    symmetry
    """
    seed = seed_of(seed, rng)
    operator = as_operator(A)
    is_square = operator.shape[0] == operator.shape[1]
    if symmetric and not is_square:
        raise InputError("a square A with symmetric=True", operator.shape, "leave it out")
    bound = operator_laws.ROUNDINGS * _eps(operator) if bound is None else bound
    laws = _Laws(operator, seed)
    named = laws.named(is_square if symmetric is None else symmetric)
    return Report(tuple(_measured(name, law, bound) for name, law in named))


def _measured(name: str, law: Law, bound: float) -> Check:
    """The check of a law. An error of a foreign operator, of whatever class, is its outcome."""
    try:
        error, note = law()
    except Exception as raised:
        return Check(name, np.inf, bound, f"{type(raised).__name__}: {shown(raised)}")
    return Check(name, error, bound, note if error is None or not error <= bound else "")


class _Copying(LinearOperator):
    """An operator whose products are new arrays, of arguments of their own."""

    def __init__(self, operator: LinearOperator):
        super().__init__(operator.dtype, operator.shape)
        self._operator = operator

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return np.array(self._operator.matvec(v.copy()))

    def _rmatvec(self, u: np.ndarray) -> np.ndarray:
        return np.array(self._operator.rmatvec(u.copy()))


class _Laws:
    """The laws as functions that return the relative error and what to say of it."""

    def __init__(self, operator: LinearOperator, seed: int):
        self._operator, self._seed = operator, seed
        rng = np.random.default_rng(seed)
        block = 0.5 + rng.standard_normal((operator.shape[1], NUM_COLUMNS))
        self._block = block.astype(operator.dtype)
        self._u, self._v = (np.ascontiguousarray(self._block[:, i]) for i in (0, 1))

    def named(self, symmetric: bool) -> Iterator[tuple[str, Law]]:
        yield "finite products of the stated shape", self._finite
        yield "dtype", self._dtype
        yield "linearity", self._linearity
        yield "repeatability", lambda: (self._product_change(self._u), "")
        yield "dot test", self._dot_test
        if symmetric:
            yield "symmetry", lambda: (self._law(operator_laws.symmetry), "")
        yield "blocks against columns", lambda: self._blocks(np.ascontiguousarray)
        yield "column-major blocks against columns", lambda: self._blocks(np.asfortranarray)
        yield "read-only argument", self._read_only
        yield "strided argument", self._strided
        yield "argument unchanged", self._argument_unchanged
        yield "product apart from its argument", self._apart
        yield "product kept by the next one", self._kept

    def _multiply(self, v: np.ndarray) -> np.ndarray:
        return np.array(self._operator.matvec(v.copy()))

    def _law(self, law: Callable[..., float]) -> float:
        return law(_Copying(self._operator), seed=self._seed, bound=np.inf)

    def _product_change(self, v: np.ndarray) -> float:
        return relative(self._multiply(v), self._multiply(v))

    def _finite(self) -> tuple[float, str]:
        product = self._multiply(self._u)
        count = int((~np.isfinite(product)).sum())
        return (np.inf if count else 0.0), f"{count} of {product.size} entries are not finite"

    def _dtype(self) -> tuple[float, str]:
        stated, found = self._operator.dtype, self._multiply(self._u).dtype
        return (np.inf if found != stated else 0.0), f"{found} where A states {stated}"

    def _linearity(self) -> tuple[float, str]:
        combined = (2 * self._u - 3 * self._v).astype(self._operator.dtype)
        Au, Av, both = map(self._multiply, (self._u, self._v, combined))
        size = np.linalg.norm(2 * Au) + np.linalg.norm(3 * Av)
        error = float(np.linalg.norm(both - (2 * Au - 3 * Av)))
        return (error / float(size) if error else 0.0), ""

    def _dot_test(self) -> tuple[float | None, str]:
        try:
            return self._law(operator_laws.dot_test), ""
        except (NotImplementedError, RecursionError):
            return None, "A has no adjoint"

    def _blocks(self, ordered: Callable[[np.ndarray], np.ndarray]) -> tuple[float, str]:
        block = np.array(self._operator.matmat(ordered(self._block.copy())))
        columns = np.stack([self._multiply(v) for v in self._block.T], axis=1)
        return relative(block, columns), ""

    def _read_only(self) -> tuple[float, str]:
        argument = self._u.copy()
        argument.flags.writeable = False
        return relative(np.array(self._operator.matvec(argument)), self._multiply(self._u)), ""

    def _strided(self) -> tuple[float, str]:
        argument = np.full(2 * self._u.size, np.nan, self._u.dtype)[::2]
        argument[:] = self._u
        return relative(np.array(self._operator.matvec(argument)), self._multiply(self._u)), ""

    def _argument_unchanged(self) -> tuple[float, str]:
        argument = self._u.copy()
        self._operator.matvec(argument)
        return relative(argument, self._u), "A writes into its argument"

    def _apart(self) -> tuple[float, str]:
        argument = self._u.copy()
        shared = np.shares_memory(self._operator.matvec(argument), argument)
        return (np.inf if shared else 0.0), "A returns its argument, or a part of it"

    def _kept(self) -> tuple[float, str]:
        first = self._operator.matvec(self._u.copy())
        before = np.array(first)
        self._operator.matvec(self._v.copy())
        return relative(
            first, before
        ), "A returns its own buffer, which the next product overwrites"


def _eps(operator: LinearOperator) -> float:
    return float(np.finfo(operator.dtype).eps)

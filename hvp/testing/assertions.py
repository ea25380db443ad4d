"""Assertions about operators in the manner of `numpy.testing`, for test suites.

They take any SciPy operator, a matrix (dense or sparse), and any object with `shape`, `dtype` and
`matvec`, as those of PyLops. Bad input is an InputError; what is not as expected is an
AssertionError that shows the entries that differ most.

A difference of at most ``atol + rtol·|expected|`` is allowed, as in NumPy. Where neither is given,
it is 1,000 roundings of A's precision, relative to the size of the product.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator

from hvp.errors import InputError, shown
from hvp.linalg.blocks import BLOCK_COLUMNS, chunks
from hvp.linalg.eigsh import eigsh
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of
from hvp.testing.adapters import (
    NUM_VECTORS,
    AnyOperator,
    as_operator,
    probes,
    random_vectors,
    square_operator,
)
from hvp.testing.mismatches import check_close, tolerance
from hvp.testing.operator_laws import ROUNDINGS


def assert_quadratic_form(
    A: AnyOperator,
    expected: ArrayLike | AnyOperator,
    V: ArrayLike | None = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
) -> None:
    """Assert that vᵀAv is as expected, for each column v of V.

    Args:
        A: (P, P).
        expected: a number, one a column (K,), or another operator or matrix (P, P), whose forms
            are expected.
        V: a vector (P,) or a block (P, K). None for
            ``numpy.random.default_rng(seed).standard_normal((P, K))``, with K as many as `expected`
            has numbers; three for an operator.
        rtol, atol: allowed is ``atol + rtol·|expected|``. Without both it is 1,000 roundings of
            ‖v‖‖Av‖.
        seed: of V where it is None.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).

    Raises:
        AssertionError: with the columns that differ most.
        InputError: A is no square operator, or shapes do not fit.

    >>> assert_quadratic_form(np.diag([1.0, 2.0]), [1.0, 3.0], [[1.0, 1.0], [0.0, 1.0]])
    >>> assert_quadratic_form(np.diag([1.0, 2.0]), [1.0, 3.1], [[1.0, 1.0], [0.0, 1.0]])
    Traceback (most recent call last):
        ...
    AssertionError: vᵀAv is not as expected
    column by column: 1 of 2 differ (50 %); the worst:
          column            found         expected  difference   allowed
               1                3              3.1    1.00e-01   7.0e-13
    """
    seed = seed_of(seed, rng)
    operator = square_operator(A)
    size = operator.shape[1]
    other = None if _are_numbers(expected) else square_operator(expected, "expected")
    if other is not None and other.shape != operator.shape:
        raise InputError(
            f"an expected operator {operator.shape}", other.shape, "compare like sizes"
        )
    numbers = np.zeros(NUM_VECTORS) if other is not None else _numbers(expected, "expected")
    block = random_vectors(size, max(numbers.size, 1), seed) if V is None else _block(V, size)
    if other is not None:
        numbers = _forms(other, block)[0]
    elif numbers.shape not in ((), (block.shape[1],)):
        raise InputError(
            f"one expected number for each of {block.shape[1]} columns",
            f"shape {numbers.shape}",
            "give as many numbers as V has columns",
        )
    forms, sizes = _forms(operator, block)
    numbers = np.broadcast_to(numbers, forms.shape)
    bound = tolerance(rtol, atol, numbers, _rounding(operator) * sizes)
    check_close(forms, numbers, bound, "vᵀAv is not as expected", index="column")


def assert_operator(
    A: AnyOperator,
    expected: AnyOperator | Callable[[np.ndarray], np.ndarray],
    *,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
) -> None:
    """Assert that A multiplies as a matrix, another operator or a function v (n,) -> Av (m,) does.

    Up to 512 columns all entries are compared; of a larger A, its products with three random
    vectors. The default tolerance is 1,000 roundings of the norm of each column of the product.

    Raises:
        AssertionError: with the entries (row, column) that differ most.
        InputError: A is no operator, or shapes do not fit.

    >>> from scipy.sparse.linalg import aslinearoperator
    >>> A = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> assert_operator(aslinearoperator(A), A)
    >>> assert_operator(aslinearoperator(A), lambda v: A @ v)
    >>> assert_operator(aslinearoperator(A), A.T)
    Traceback (most recent call last):
        ...
    AssertionError: the operator multiplies otherwise than expected
    entry by entry: 2 of 4 differ (50 %); the worst:
           entry            found         expected  difference   allowed
            1, 0                3                2    1.00e+00   5.0e-13
            0, 1                2                3    1.00e+00   1.1e-12
    """
    seed = seed_of(seed, rng)
    operator = as_operator(A)
    V = probes(operator, seed)
    wanted = _expected_product(expected, V, operator.shape)
    product = _product(operator, V)
    rounding = _rounding(operator) * np.linalg.norm(wanted, axis=0)
    title = "the operator multiplies otherwise than expected"
    check_close(product, wanted, tolerance(rtol, atol, wanted, rounding), title)


def assert_symmetric(
    A: AnyOperator,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
) -> None:
    """Assert that uᵀ(Av) = vᵀ(Au): for all entries up to 512 columns, else for random vectors.

    The default tolerance is 1,000 roundings of ‖u‖‖Av‖ + ‖v‖‖Au‖.

    >>> assert_symmetric(np.array([[1.0, 2.0], [2.0, 5.0]]))
    >>> assert_symmetric(np.array([[1.0, 2.0], [3.0, 5.0]]))
    Traceback (most recent call last):
        ...
    AssertionError: the operator is not symmetric: uᵀAv is not vᵀAu
    entry by entry: 2 of 4 differ (50 %); the worst:
           entry            found         expected  difference   allowed
            0, 1                2                3    1.00e+00   1.9e-12
            1, 0                3                2    1.00e+00   1.9e-12
    """
    seed = seed_of(seed, rng)
    operator = square_operator(A)
    V = probes(operator, seed).astype(np.float64)
    AV = _product(operator, V)
    inner = V.T @ AV
    sizes = np.outer(np.linalg.norm(V, axis=0), np.linalg.norm(AV, axis=0))
    bound = tolerance(rtol, atol, inner.T, _rounding(operator) * (sizes + sizes.T))
    title = "the operator is not symmetric: uᵀAv is not vᵀAu"
    check_close(inner, inner.T, bound, title)


def assert_psd(
    A: AnyOperator, *, atol: float | None = None, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN
) -> None:
    """Assert that no eigenvalue of a symmetric A is below -atol; None is 1,000 roundings of ‖A‖.

    The smallest eigenvalue is a Rayleigh quotient of `hvp.eigsh`, so that one below proves that A
    is not positive semidefinite. Up to 512 columns it is exact to rounding; of a larger A it may be
    lower than found by its error.

    Raises:
        AssertionError: with the smallest eigenvalue and its error; also where A is not symmetric.
        InputError: A is no square operator.
        ConvergenceError: Lanczos found no pair within its tolerance.

    >>> assert_psd(np.diag([0.0, 1.0]))
    >>> assert_psd(np.diag([-0.5, 1.0]))
    Traceback (most recent call last):
        ...
    AssertionError: A is not positive semidefinite: λmin = -0.5 ± 0.0e+00, allowed -2.2e-13
    """
    seed = seed_of(seed, rng)
    operator = square_operator(A)
    assert_symmetric(operator, seed=seed)
    allowed = np.asarray(0.0 if atol is None else tolerance(None, atol, np.zeros(()), 0.0))
    lowest = eigsh(operator, 1, which="SA", seed=seed)
    if atol is None:
        highest = eigsh(operator, 1, which="LM", seed=seed)
        allowed = np.asarray(_rounding(operator) * abs(float(highest.values[-1])))
    value, error = float(lowest.values[0]), float(lowest.errors[0])
    if not value >= -allowed:
        raise AssertionError(
            f"A is not positive semidefinite: λmin = {value:.6g} ± {error:.1e}, "
            f"allowed {-allowed:.1e}"
        )


def assert_spectrum(
    A: AnyOperator,
    values: ArrayLike,
    which: str = "LA",
    *,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
) -> None:
    """Assert that the eigenvalues at an end of the spectrum are `values`, in any order.

    Args:
        A: (P, P), symmetric.
        values: (k,); with k = P it is the whole spectrum.
        which: "LA" the k largest, "SA" the smallest, "BE" half from each end, "LM" the largest in
            magnitude, as in `hvp.eigsh`.
        rtol, atol: allowed is ``atol + rtol·|value|``. Without both it is the measured error of
            each eigenvalue and 1,000 roundings of the largest.
        seed: of the vector that Lanczos starts from; up to P = 512 all eigenvalues are computed.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).

    Raises:
        AssertionError: with the eigenvalues, in ascending order, that differ most; also where A is
            not symmetric.
        InputError: A is no square operator, or `which` or k is out of range.
        ConvergenceError: Lanczos found fewer pairs within its tolerance.

    >>> assert_spectrum(np.diag([1.0, 2.0, 4.0]), [4.0, 2.0])
    >>> assert_spectrum(np.diag([1.0, 2.0, 4.0]), [2.0, 1.5], "SA")
    Traceback (most recent call last):
        ...
    AssertionError: eigenvalues (SA) are not as expected
    eigenvalue by eigenvalue: 1 of 2 differ (50 %); the worst:
      eigenvalue            found         expected  difference   allowed
               0                1              1.5    5.00e-01   4.4e-13
    """
    seed = seed_of(seed, rng)
    operator, wanted = square_operator(A), np.sort(_numbers(values, "values").reshape(-1))
    if not wanted.size:
        raise InputError("at least one value", "none", "give those at one end")
    assert_symmetric(operator, seed=seed)
    pairs = eigsh(operator, wanted.size, which=which, seed=seed)
    rounding = _rounding(operator) * np.abs(pairs.values).max(initial=0.0)
    bound = tolerance(rtol, atol, wanted, pairs.errors + rounding)
    title = f"eigenvalues ({which}) are not as expected"
    check_close(pairs.values, wanted, bound, title, index="eigenvalue")


def assert_decomposes(
    H: AnyOperator,
    G: AnyOperator,
    R: AnyOperator,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
) -> None:
    """Assert that H = G + R: all entries up to 512 columns, else for three random vectors.

    The default tolerance is 1,000 roundings of the longest of Hv, Gv and Rv.

    >>> assert_decomposes(np.diag([3.0, 1.0]), np.diag([2.0, 1.0]), np.diag([1.0, 0.0]))
    """
    seed = seed_of(seed, rng)
    first, *others = (square_operator(A, name) for A, name in ((H, "H"), (G, "G"), (R, "R")))
    for other in others:
        if other.shape != first.shape:
            raise InputError(f"G and R of shape {first.shape}", other.shape, "compare like sizes")
    V = probes(first, seed)
    HV, GV, RV = (_product(operator, V) for operator in (first, *others))
    wanted = GV + RV
    sizes = np.max([np.linalg.norm(X, axis=0) for X in (HV, GV, RV)], axis=0)
    rounding = max(map(_rounding, (first, *others))) * sizes
    check_close(HV, wanted, tolerance(rtol, atol, wanted, rounding), "H is not G + R")


def _rounding(operator: LinearOperator) -> float:
    return ROUNDINGS * float(np.finfo(operator.dtype).eps)


def _product(operator: LinearOperator, V: np.ndarray) -> np.ndarray:
    """AV in float64, a few columns at once, with V in the precision of the operator."""
    product = np.empty((operator.shape[0], V.shape[1]))
    for columns in chunks(V.shape[1], BLOCK_COLUMNS):
        product[:, columns] = operator.matmat(V[:, columns].astype(operator.dtype))
    return product


def _forms(operator: LinearOperator, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """vᵀAv and ‖v‖‖Av‖ for each column, (K,) each."""
    V = V.astype(operator.dtype).astype(np.float64)
    AV = _product(operator, V)
    return np.einsum("pk,pk->k", V, AV), np.linalg.norm(V, axis=0) * np.linalg.norm(AV, axis=0)


def _expected_product(
    expected: AnyOperator | Callable[[np.ndarray], np.ndarray],
    V: np.ndarray,
    shape: tuple[int, int],
) -> np.ndarray:
    is_function = callable(expected) and not hasattr(expected, "shape")
    if not is_function:
        other = as_operator(expected, "expected")
        if other.shape != shape:
            raise InputError(f"an expected operator {shape}", other.shape, "compare like sizes")
        return _product(other, V)
    columns = [_numbers(expected(v.copy()), "a product of expected") for v in V.T]
    for column in columns:
        if column.shape != (shape[0],):
            raise InputError(
                f"a function whose products have the shape ({shape[0]},)",
                column.shape,
                "return Av for one vector v",
            )
    return np.stack(columns, axis=1)


def _are_numbers(expected: ArrayLike | AnyOperator) -> bool:
    return not hasattr(expected, "matvec") and getattr(expected, "ndim", 1) < 2


def _numbers(values: ArrayLike | AnyOperator, name: str) -> np.ndarray:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"numbers as {name}", shown(values), "make them an array") from error
    if numbers.ndim > 1:
        raise InputError(f"{name} with one axis", f"shape {numbers.shape}", "flatten it")
    return numbers


def _block(V: ArrayLike, size: int) -> np.ndarray:
    try:
        block = np.asarray(V, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("V of numbers", shown(V), "make it an array") from error
    block = block[:, None] if block.ndim == 1 else block
    if block.ndim != 2 or block.shape[0] != size or not block.shape[1]:
        raise InputError(f"V of shape ({size},) or ({size}, K)", np.shape(V), "transpose it?")
    if not np.isfinite(block).all():
        raise InputError("a finite V", "NaN or infinity", "check its entries")
    return block

"""Linear systems (A + λI)x = b by SciPy's conjugate gradients or MINRES, with true residuals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse.linalg
from scipy.sparse.linalg import LinearOperator

from hvp.errors import ConvergenceError, InputError, shown
from hvp.linalg.blocks import dot, float64_sum
from hvp.linalg.counted_operator import CountedOperator, Operator
from hvp.linalg.eigsh import eigsh
from hvp.linalg.low_rank import LowRank
from hvp.progress import ProgressHook
from hvp.tables import ShownAsTable, Table

METHODS = ("cg", "minres")
# Entries of a vector that are converted to float64 at once.
CHUNK_ENTRIES = 1 << 16
# The residual that an iteration carries on parts from the true one by rounding. It is then started
# anew from what it has found, at most so many times.
MAX_STARTS = 10
# MINRES stops where the residual is below rtol ‖A + λI‖‖x‖, which may be this much larger than ‖b‖.
MINRES_SHARE = 1e-4
# A later start has to bring the true residual below this share of the one before.
PROGRESS = 0.5


@dataclass(frozen=True, eq=False, repr=False)
class Solution(ShownAsTable):
    """The solution of (A + λI)x = b, with the residual that it leaves.

    Attributes:
        x: (P,) or, for a block b, (P, K).
        residuals: ‖b - (A + λI)x‖, from a product made after the iteration; (K,) for a block.
        lengths: ‖b‖, likewise.
        damping: λ.
        num_products: products with A, all of them.
        num_missing: how many columns do not meet `tol`, with ``partial=True``.

    >>> found = solve(np.diag([1.0, 3.0]), np.array([2.0, 4.0]), damping=1.0)
    >>> found.x.round(9).tolist(), found.num_products
    ([1.0, 1.0], 3)
    """

    x: np.ndarray
    residuals: np.ndarray
    lengths: np.ndarray
    damping: float
    num_products: int
    num_missing: int = 0

    def error_bounds(self, smallest: float = 0.0) -> np.ndarray:
        """Bounds of ‖x - x*‖, with x* the exact solution: residual / (smallest + λ).

        `smallest` is a lower bound of the eigenvalues of A; the default holds where A is positive
        semidefinite, as G of a convex loss is.

        Raises InputError where smallest + λ is not positive.

        >>> bool(solve(np.eye(2), np.ones(2), damping=1.0).error_bounds() < 1e-12)
        True
        """
        least = smallest + self.damping
        if not least > 0:
            raise InputError(
                f"a smallest eigenvalue above {-self.damping:g}", smallest, "raise damping"
            )
        return self.residuals / least

    def rows(self) -> list[dict[str, float]]:
        """A dict for each column of b, as `pandas.DataFrame` takes them.

        `residual` is ‖b - (A + λI)x‖ and `length` is ‖b‖; `damping` and `num_products` are those
        of all columns.

        >>> solve(np.eye(2), np.zeros((2, 1)), damping=1.0).rows()  # doctest: +NORMALIZE_WHITESPACE
        [{'column': 0, 'residual': 0.0, 'length': 0.0, 'damping': 1.0, 'num_products': 0}]
        """
        pairs = zip(np.atleast_1d(self.residuals), np.atleast_1d(self.lengths), strict=True)
        return [
            {
                "column": column,
                "residual": float(residual),
                "length": float(length),
                "damping": self.damping,
                "num_products": self.num_products,
            }
            for column, (residual, length) in enumerate(pairs)
        ]

    def _table(self) -> Table:
        relative = np.atleast_1d(self.residuals / np.where(self.lengths, self.lengths, 1.0))
        rows = [
            ("damping λ", f"{self.damping:.6g}"),
            ("columns", f"{len(relative):,}"),
            ("largest ‖b - (A + λI)x‖ / ‖b‖", f"{relative.max(initial=0.0):.1e}"),
            ("products", f"{self.num_products:,}"),
        ]
        rows += [("columns above tol", f"{self.num_missing:,}")] * bool(self.num_missing)
        return Table(f"Solution of {len(self.x):,} equations", (), rows)


def solve(
    A: Operator,
    b: np.ndarray,
    *,
    damping: float,
    method: str = "cg",
    preconditioner: LowRank | LinearOperator | None = None,
    tol: float | None = None,
    max_products: int = 10_000,
    partial: bool = False,
    progress: ProgressHook | None = None,
) -> Solution:
    """The solution x of (A + λI)x = b for a symmetric A.

    Conjugate gradients minimise the error over Krylov spaces where A + λI is positive definite;
    MINRES minimises the residual and takes an indefinite A + λI too. Each column of b is solved by
    itself. The residual is that of a product made at the end.

    Args:
        A: a SciPy LinearOperator, sparse or dense matrix of shape (P, P), real and symmetric.
        b: (P,) or a block (P, K).
        damping: λ, in units of the eigenvalues of A.
        method: "cg" or "minres".
        preconditioner: a `LowRank` of A, or a SciPy operator that approximates (A + λI)⁻¹ and is
            positive definite.
        tol: of the residual, relative to ‖b‖; None is the square root of the precision of A.
        max_products: most products with A, about.
        partial: return what there is, instead of an error, where `max_products` is not enough.
        progress: called with the number of products so far, a `hvp.Progress`.

    Raises:
        InputError: A is no symmetric operator, b or the preconditioner has another shape, or A + λI
            is found indefinite by "cg": the message has the most negative curvature that was met,
            and the damping that suffices.
        ConvergenceError: the true residual is above `tol`.

    Source: Hestenes and Stiefel 1952; Paige and Saunders 1975.

    >>> A = np.diag([4.0, 2.0, 1.0])
    >>> solve(A, np.array([5.0, 3.0, 2.0]), damping=1.0).x.round(9).tolist()
    [1.0, 1.0, 1.0]
    """
    counted = CountedOperator(A, progress)
    columns = _columns(b, counted)
    tol = float(np.sqrt(np.finfo(counted.dtype).eps)) if tol is None else tol
    _check(counted, damping, method, tol, max_products)
    inverse = _inverse(preconditioner, damping, counted)
    shifted = _Shifted(counted, damping)
    found = np.empty_like(columns)
    residuals, lengths = np.empty((2, len(columns)))
    for i, column in enumerate(columns):
        budget = max_products * (i + 1) // len(columns)
        found[i], residuals[i], lengths[i] = _solved(shifted, column, method, inverse, tol, budget)
    is_missing = residuals > tol * lengths
    if is_missing.any() and not partial:
        worst = float((residuals / np.where(lengths, lengths, 1.0)).max())
        raise ConvergenceError(
            f"expected a residual of at most {tol:.1e} of ‖b‖, got {worst:.1e} after "
            f"{counted.count:,} products; raise damping, tol or max_products, or give a "
            "preconditioner such as hvp.low_rank(A, rank)"
        )
    is_block = np.ndim(b) == 2
    return Solution(
        found.T if is_block else found[0],
        residuals if is_block else residuals[0],
        lengths if is_block else lengths[0],
        float(damping),
        counted.count,
        int(is_missing.sum()),
    )


class _Shifted(LinearOperator):
    """A + λI, which keeps the least curvature vᵀ(A + λI)v/vᵀv of the vectors that it multiplied."""

    def __init__(self, A: CountedOperator, damping: float):
        super().__init__(A.dtype, A.shape)
        self.A, self.damping = A, damping
        self.least = math.inf
        self.refuses_negative = False

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        v = v.reshape(-1)
        product = self.A.matvec(v) + v.dtype.type(self.damping) * v
        square = dot(v, v, CHUNK_ENTRIES)
        if square:
            self.least = min(self.least, dot(v, product, CHUNK_ENTRIES) / square)
        if self.refuses_negative and self.least <= 0 < square:
            raise _IndefiniteError
        return product

    def _adjoint(self) -> _Shifted:
        return self


class _IndefiniteError(Exception):
    """Conjugate gradients met a direction of no or negative curvature."""


def _solved(
    A: _Shifted,
    b: np.ndarray,
    method: str,
    inverse: LinearOperator | None,
    tol: float,
    budget: int,
) -> tuple[np.ndarray, float, float]:
    """x, its true residual and ‖b‖ of a column."""
    length = _length(b)
    x, residual = np.zeros_like(b), length
    for _ in range(MAX_STARTS):
        left = budget - A.A.count - 1
        if residual <= tol * length or left < 1:
            break
        remainder = (b - A.matvec(x)) if x.any() else b
        change = _iterated(A, remainder, method, inverse, tol * length / residual / 2, left)
        new = x + change
        new_residual = _length(b - A.matvec(new))
        if not new_residual < residual:
            break
        is_stuck = new_residual > PROGRESS * residual
        x, residual = new, new_residual
        if is_stuck:
            break
    return x, residual, length


def _iterated(
    A: _Shifted,
    b: np.ndarray,
    method: str,
    inverse: LinearOperator | None,
    tol: float,
    max_steps: int,
) -> np.ndarray:
    """What SciPy's iteration gives from zero."""
    A.refuses_negative = method == "cg"
    try:
        if method == "cg":
            x, _ = scipy.sparse.linalg.cg(A, b, rtol=tol, atol=0.0, maxiter=max_steps, M=inverse)
        else:
            least = float(np.finfo(b.dtype).eps)
            rtol = max(tol * MINRES_SHARE, least)
            x, _ = scipy.sparse.linalg.minres(A, b, rtol=rtol, maxiter=max_steps, M=inverse)
    except _IndefiniteError:
        raise _indefinite(A) from None
    finally:
        A.refuses_negative = False
    return x.astype(b.dtype, copy=False)


def _indefinite(A: _Shifted) -> InputError:
    """The error for a direction of negative curvature, with the damping that suffices."""
    met = A.least
    try:
        lowest = eigsh(A.A, 1, which="SA")
        smallest = min(float(lowest.values[0] - lowest.errors[0]), met - A.damping)
        enough = f"above {-smallest:.3g}"
    except (ConvergenceError, InputError):
        enough = f"well above {A.damping - met:.3g}"
    return InputError(
        "a positive definite A + damping * I, as conjugate gradients need it",
        f"the curvature {met:.3g} along a direction with damping {A.damping:g}",
        f"take a damping {enough}, or method='minres'",
    )


def _columns(b: np.ndarray, A: CountedOperator) -> np.ndarray:
    """(K, P) the columns of b. Raises InputError for what is none."""
    array = np.asarray(b)
    size = A.shape[0]
    if array.ndim not in (1, 2) or len(array) != size or array.dtype.kind not in "fiu":
        got = f"{array.dtype} of shape {array.shape}"
        raise InputError(f"a b of real numbers, ({size},) or ({size}, K)", got, "check its length")
    if not np.isfinite(array).all():
        raise InputError("a finite b", "NaN or infinity", "check where it comes from")
    return np.atleast_2d(array.T).astype(A.dtype)


def _check(A: CountedOperator, damping: float, method: str, tol: float, max_products: int) -> None:
    if method not in METHODS:
        raise InputError(f"method among {', '.join(METHODS)}", shown(method), "choose one")
    if not isinstance(damping, int | float | np.number) or not 0 <= damping < math.inf:
        raise InputError("a finite damping from 0", shown(damping), "give it in units of A")
    least = float(np.finfo(A.dtype).eps)
    if not least <= tol < 1:
        raise InputError(f"a tol from {least:.1e} to 1", shown(tol), "leave it out")
    if max_products < 1:
        raise InputError("max_products of at least 1", max_products, "leave it out")


def _inverse(
    preconditioner: LowRank | LinearOperator | None, damping: float, A: CountedOperator
) -> LinearOperator | None:
    if preconditioner is None:
        return None
    if getattr(preconditioner, "shape", None) != A.shape:
        got = f"shape {getattr(preconditioner, 'shape', None)}"
        raise InputError(f"a preconditioner of shape {A.shape}", got, "make it from A")
    if isinstance(preconditioner, LowRank):
        return preconditioner.preconditioner(damping)
    return scipy.sparse.linalg.aslinearoperator(preconditioner)


def _length(v: np.ndarray) -> float:
    return math.sqrt(float64_sum(lambda u: np.dot(u, u), v, chunk=CHUNK_ENTRIES))

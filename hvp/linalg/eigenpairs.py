"""Eigenvalues with their vectors and errors, as rows and as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hvp.errors import report_packages
from hvp.tables import ShownAsTable, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What a second start found, by `Eigenpairs.unseen`.
SECOND_START = {None: "not made", False: "nothing missing", True: "one is missing"}


@dataclass(frozen=True, eq=False, repr=False)
class Eigenpairs(ShownAsTable):
    """Eigenvalues in ascending order with their vectors, their errors and the products they took.

    The i-th smallest value found is never below the i-th smallest eigenvalue, nor the i-th largest
    above the i-th largest eigenvalue (Courant and Fischer). It is that eigenvalue, within its
    error, unless Lanczos missed one beyond it: a single starting vector finds a single copy of a
    multiple eigenvalue.

    Attributes:
        values: (k,) Rayleigh quotients vᵀAv.
        vectors: (P, k) orthonormal columns.
        errors: (k,) ‖Av - λv‖, from products made after the iteration. An eigenvalue of A lies
            within this distance of λ (Parlett 1998, theorem 4.5.1).
        num_products: products with A, all of them.
        unseen: whether a second start found an eigenvalue that these should include but do not;
            None without a second start.
        num_missing: how many of the pairs asked for did not converge and are left out, with
            ``partial=True``. The others are then eigenpairs, but of any rank.
        ranks: (k,) of the values as asked for: 1 for the largest (with "LM" in magnitude), 2 for
            the next; -1 for the smallest, -2 for the next. None where they are not known.
        scale: the norm that `tol` was relative to; None where it is not known.

    >>> from hvp import eigsh
    >>> pairs = eigsh(np.diag([1.0, 2.0, 2.0, 5.0]), 2)
    >>> pairs.vectors.shape, pairs.num_products, pairs.separate.tolist()
    ((4, 2), 6, [True, True])
    >>> eigsh(np.diag([1.0, 2.0, 2.0]), 2)
    2 eigenpairs of 3, 5 products
    rank  value    error   kind
    2         2  0.0e+00  bound
    1         2  0.0e+00  bound
    rank: 1 is the largest, -1 the smallest.
    bound: it meets another value within their errors, and may be an eigenvalue of another rank.
    """

    values: np.ndarray
    vectors: np.ndarray
    errors: np.ndarray
    num_products: int
    unseen: bool | None = None
    num_missing: int = 0
    ranks: np.ndarray | None = None
    scale: float | None = None

    def rows(self) -> list[dict[str, float | str]]:
        """A dict for each value, as `pandas.DataFrame` takes them.

        `rank` is NaN where it is not known. `kind` is "separate" or "bound": a bound meets another
        value within their errors, and may be an eigenvalue of another rank, after a second start
        too. `second_start` says what a second start found: see `unseen`.

        >>> from hvp import eigsh
        >>> eigsh(np.diag([1.0, 2.0, 5.0]), 1).rows()  # doctest: +NORMALIZE_WHITESPACE
        [{'rank': 1, 'value': 5.0, 'error': 0.0, 'kind': 'separate', 'second_start': 'not made'}]
        """
        ranks = [math.nan] * len(self.values) if self.ranks is None else self.ranks.tolist()
        kinds = ["separate" if separate else "bound" for separate in self.separate]
        return [
            {
                "rank": rank,
                "value": float(value),
                "error": float(error),
                "kind": kind,
                "second_start": SECOND_START[self.unseen],
            }
            for rank, value, error, kind in zip(ranks, self.values, self.errors, kinds, strict=True)
        ]

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the values in descending order with their errors as bars; triangles are bounds.

        Args:
            axes: of matplotlib, to draw in; None for those of a new figure of pyplot.

        Returns:
            The axes.

        Raises:
            InputError: the packages of the extra "report" are not installed.
        """
        with report_packages():
            from hvp.report.plots import plot_eigenpairs
        return plot_eigenpairs(self, axes)

    def _table(self) -> Table:
        size, k = self.vectors.shape
        pairs = "1 eigenpair" if k == 1 else f"{k:,} eigenpairs"
        title = f"{pairs} of {size:,}, {self.num_products:,} products"
        if self.unseen is not None:
            title += f", second start: {SECOND_START[self.unseen]}"
        rows = [
            (
                "" if self.ranks is None else str(row["rank"]),
                f"{row['value']:.7g}",
                f"{row['error']:.1e}",
                str(row["kind"]),
            )
            for row in self.rows()
        ]
        return Table(title, ("rank", "value", "error", "kind"), rows, self._notes())

    def _notes(self) -> list[str]:
        """What the table does not say by itself."""
        notes = []
        if self.num_missing:
            notes.append(f"{self.num_missing:,} more did not converge: these are of any rank.")
        elif self.ranks is not None and len(self.ranks):
            notes.append("rank: 1 is the largest, -1 the smallest.")
        if self.unseen:
            notes.append("A second start found an eigenvalue that is missing: ranks may be wrong.")
        if not self.separate.all():
            also = "" if self.unseen is None else ", after a second start too"
            notes.append(
                "bound: it meets another value within their errors, and may be an eigenvalue of "
                f"another rank{also}."
            )
        return notes

    @property
    def enclosures(self) -> np.ndarray:
        """(k, 2) the interval λ ± error around each value, in which an eigenvalue lies."""
        return np.stack([self.values - self.errors, self.values + self.errors], axis=1)

    def __getitem__(self, chosen: slice | np.ndarray) -> Eigenpairs:
        """Some of the pairs, in this order; `num_products` is that of all."""
        return Eigenpairs(
            self.values[chosen],
            self.vectors[:, chosen],
            self.errors[chosen],
            self.num_products,
            self.unseen,
            self.num_missing,
            None if self.ranks is None else self.ranks[chosen],
            self.scale,
        )

    @property
    def separate(self) -> np.ndarray:
        """(k,) whether the interval λ ± error meets no other such interval.

        Where it does, `tol` does not resolve a cluster, such as the null space of G, and the value
        is a bound rather than the eigenvalue of that rank. True does not exclude that the iteration
        has missed copies of a multiple eigenvalue.
        """
        if len(self.values) == 0:
            return np.zeros(0, bool)
        is_gap = np.diff(self.values) > self.errors[1:] + self.errors[:-1]
        return np.r_[True, is_gap] & np.r_[is_gap, True]

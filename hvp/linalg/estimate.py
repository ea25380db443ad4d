"""An estimated number, or an array of them, with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from scipy.special import ndtri, stdtrit

from hvp.tables import Table

# Values of `Estimate.method`.
UNIT_VECTORS, HUTCHINSON, XTRACE = "unit vectors", "Hutchinson", "XTrace"
DEFLATED = "Hutchinson beside a basis"

# The quantile of a two-sided interval of 95 %.
COVERED = 0.975

Value = TypeVar("Value", float, np.ndarray)


@dataclass(frozen=True, repr=False)
class Estimate(Generic[Value]):
    """An estimate with its standard error over the random probes.

    Attributes:
        value: the estimate, a number or an array.
        stderr: its standard error over the probes, of the same shape; zero where nothing is random,
            NaN where it is unknown, as it is for a single probe. It is widened by `student_factor`:
            ± stderr covers 0.68 and ± 2 stderr 0.95, or more, from few probes too.
        num_products: products with the operator that it took.
        depth: an estimate of the error of stopping Lanczos early; zero where no Krylov space is
            used or where it is complete, NaN where it is unknown.
        method: how the estimate was made, where there are several methods.
        sampling: its sampling error, the standard error over the choice of examples; NaN where it
            was not estimated.

    >>> print(Estimate(2.0, 0.25, 10))
    2 ± 0.25
    >>> print(Estimate(2.0, 0.25, 10, depth=1.5))
    2 ± 0.25, ± 1.5 for depth
    >>> print(Estimate(np.array([1.0, 4.0]), np.array([0.1, 0.2]), 10))
    2 values from 1 to 4, ± 0.2 at most
    >>> Estimate(2.0, 0.25, 10, method="Hutchinson", sampling=0.5)
    Estimate(2 ± 0.25, 10 products, Hutchinson, sampling error 0.5)
    """

    value: Value
    stderr: Value
    num_products: int = 0
    depth: float = 0.0
    method: str = ""
    sampling: float = math.nan

    def __repr__(self) -> str:
        words = [str(self), f"{self.num_products:,} products"]
        words += [self.method] * bool(self.method)
        if not math.isnan(self.sampling):
            words.append(f"sampling error {self.sampling:.2g}")
        return f"Estimate({', '.join(words)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each of its numbers."""
        value, _, error = str(self).partition(", ± " if np.ndim(self.value) else " ± ")
        rows = [("estimate", value), ("standard error of the probes", error.partition(",")[0])]
        if self.depth:
            rows.append(("change with more Lanczos steps", f"{self.depth:.2g}"))
        if not math.isnan(self.sampling):
            rows.append(("sampling error", f"{self.sampling:.2g}"))
        title = f"Estimate by {self.num_products:,} products"
        return Table(f"{title}, {self.method}" if self.method else title, (), rows).html()

    def rows(self) -> list[dict[str, float | str]]:
        """A dict for each number, as `pandas.DataFrame` takes them; an array is read row by row.

        >>> Estimate(2.0, 0.25, 10).rows()  # doctest: +NORMALIZE_WHITESPACE
        [{'entry': 0, 'value': 2.0, 'stderr': 0.25, 'depth': 0.0, 'sampling': nan, 'method': '',
          'num_products': 10}]
        """
        return [
            {
                "entry": entry,
                "value": float(value),
                "stderr": float(stderr),
                "depth": float(self.depth),
                "sampling": float(self.sampling),
                "method": self.method,
                "num_products": self.num_products,
            }
            for entry, (value, stderr) in enumerate(
                zip(np.ravel(self.value), np.ravel(self.stderr), strict=True)
            )
        ]

    def __str__(self) -> str:
        if isinstance(self.value, np.ndarray):
            low, high, most = np.min(self.value), np.max(self.value), np.max(self.stderr)
            return f"{self.value.size} values from {low:.6g} to {high:.6g}, ± {most:.2g} at most"
        # The error of stopping Lanczos early is shown where it is the larger one.
        depth = f", ± {self.depth:.2g} for depth" if self.depth > self.stderr else ""
        return f"{self.value:.6g} ± {self.stderr:.2g}{depth}"


def student_factor(degrees_of_freedom: int) -> float:
    """Student's t at 0.975 over that of a normal variable: 2.2 for 2 degrees, 1.15 for 9.

    A standard error times this covers as that of a known variance does within ± 2, and more often
    within ± 1.

    >>> [round(student_factor(n), 2) for n in (1, 2, 9, 99)]
    [6.48, 2.2, 1.15, 1.01]
    """
    return float(stdtrit(degrees_of_freedom, COVERED) / ndtri(COVERED))


def standard_error_of_mean(samples: np.ndarray) -> np.ndarray:
    """The standard errors of the mean over the first axis of independent samples (s, …).

    They are widened by `student_factor`. NaN for a single sample, zero for none, as where nothing
    is random.

    >>> standard_error_of_mean(np.array([1.0, 3.0, 2.0])).round(3).tolist()
    1.267
    """
    count = len(samples)
    if count < 2:
        return np.full(samples.shape[1:], np.nan if count else 0.0)
    return student_factor(count - 1) * samples.std(axis=0, ddof=1) / np.sqrt(count)

"""A number, or an array of them, that was estimated, with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

Value = TypeVar("Value", float, np.ndarray)


@dataclass(frozen=True)
class Estimate(Generic[Value]):
    """An estimate, its standard error, which is that of the random probes alone, and its depth.

    Attributes:
        value: the estimate, a number or an array.
        stderr: its standard error, of the same shape; zero where nothing is random, NaN where it
            cannot be told.
        num_products: products with the operator that it took.
        depth: what stopping the Krylov spaces where they stopped may have changed; zero where no
            Krylov space is used or it is complete, NaN where it cannot be told.
        method: how it was made, where there are several ways.
        sampling: its standard error, had other examples been drawn; NaN where that was not told.

    >>> print(Estimate(2.0, 0.25, 10))
    2 ± 0.25
    >>> print(Estimate(2.0, 0.25, 10, depth=1.5))
    2 ± 0.25, ± 1.5 for depth
    >>> print(Estimate(np.array([1.0, 4.0]), np.array([0.1, 0.2]), 10))
    2 values from 1 to 4, ± 0.2 at most
    """

    value: Value
    stderr: Value
    num_products: int = 0
    depth: float = 0.0
    method: str = ""
    sampling: float = math.nan

    def __str__(self) -> str:
        if isinstance(self.value, np.ndarray):
            low, high, most = np.min(self.value), np.max(self.value), np.max(self.stderr)
            return f"{self.value.size} values from {low:.6g} to {high:.6g}, ± {most:.2g} at most"
        # What deeper Krylov spaces would change is told where it is the larger error.
        depth = f", ± {self.depth:.2g} for depth" if self.depth > self.stderr else ""
        return f"{self.value:.6g} ± {self.stderr:.2g}{depth}"

"""A number that was estimated, with its standard error."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """An estimate, its standard error, which is that of the random probes alone, and its depth.

    Attributes:
        value: the estimate.
        stderr: its standard error; zero where nothing is random, NaN where it cannot be told.
        num_products: products with the operator that it took.
        depth: what stopping the Krylov spaces where they stopped may have changed; zero where no
            Krylov space is used or it is complete, NaN where it cannot be told.

    >>> print(Estimate(2.0, 0.25, 10))
    2 ± 0.25
    """

    value: float
    stderr: float
    num_products: int = 0
    depth: float = 0.0

    def __str__(self) -> str:
        return f"{self.value:.6g} ± {self.stderr:.2g}"

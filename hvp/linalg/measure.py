"""A spectrum as a measure: nodes with weights from random probes, and exact eigenvalues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hvp.linalg.estimate import standard_error_of_mean
from hvp.linalg.lanczos import ROUNDINGS


@dataclass(frozen=True, eq=False)
class BatchJackknife:
    """Nodes and weights of a density without each of B batches, or groups of neighbouring ones.

    Attributes:
        nodes, weights: (B, S, m) as those of a `Density`, for its first S probes, each in its own
            Krylov space.
        outliers: (B, k).
        examples: (B,) the number of examples in each batch.
    """

    nodes: np.ndarray
    weights: np.ndarray
    outliers: np.ndarray
    examples: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class SpectralMeasure:
    """The results of Lanczos from S probes; `Density` describes them."""

    nodes: np.ndarray
    weights: np.ndarray
    errors: np.ndarray
    half_nodes: np.ndarray
    half_weights: np.ndarray
    steps: np.ndarray
    outliers: np.ndarray
    size: int
    precision: float
    seed: int
    notes: tuple[str, ...]
    num_products: int
    left_out: BatchJackknife | None = None

    @property
    def floor(self) -> float:
        """32 roundings of the largest eigenvalue in magnitude: smaller eigenvalues may be zero."""
        largest = max(np.abs(self.nodes).max(), np.abs(self.outliers).max(initial=0.0))
        return float(ROUNDINGS * self.precision * largest)


def bulk_share(measure: SpectralMeasure) -> float:
    """(P - k)/P, the mass of the nodes."""
    return 1 - len(measure.outliers) / measure.size


def mean_over_probes(
    measure: SpectralMeasure, rows: np.ndarray, outliers: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of rows (S, …) of the bulk plus the outliers' part, and its standard error."""
    share = bulk_share(measure)
    return share * rows.mean(axis=0) + outliers, share * standard_error_of_mean(rows)

"""What the peers add to the interface of `hvp.benchmark`: eigenvalues and densities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.measurements.problems import Problem
from hvp.benchmark import implementation
from hvp.benchmark.implementation import BLOCKS, COLUMNS, PRODUCTS, Call, Forms

__all__ = [
    "BLOCKS", "COLUMNS", "FIGURES", "LARGEST", "POINTS", "PROBES", "PRODUCTS", "SEED", "STEPS",
    "TOLERANCE", "Call", "Density", "DiscreteDensity", "Forms", "Implementation", "curve",
]  # fmt: skip
FIGURES = (*PRODUCTS, *BLOCKS, "gradient", "empty", "matmul", "eigsh")
# The largest allowed true error of an eigenpair over the norm of the operator.
TOLERANCE = 1e-3
LARGEST = 10
# The settings of a density: the defaults of hvp and hessian-eigenthings.
PROBES = 10
STEPS = 80
SEED = 0
# The number of points of the curve of a density.
POINTS = 1001


@dataclass(frozen=True)
class DiscreteDensity:
    """A spectral density as weighted points; the weights sum to one.

    Attributes:
        points: (n,) nodes of the quadrature, or the points of a curve.
        weights: (n,) weights of the nodes, or the area of the curve around each point.
        width: standard deviation of the Gaussians that smooth the curve; zero for nodes.
    """

    points: np.ndarray
    weights: np.ndarray
    width: float = 0.0


# Computes a density of the loaded problem.
Density = Callable[[], DiscreteDensity]


class Implementation(implementation.Implementation):
    """A problem with its weights and data in one framework."""

    def __init__(self, problem: Problem):
        self.size, self.num_examples = problem.size, problem.batch

    def largest(self, figure: str, steps: int | None) -> np.ndarray:
        """The vectors (P, 10) of the largest eigenvalues of H ("hvp") or G ("gnvp").

        `steps` is the number of Lanczos steps, for methods that need it.
        """
        raise NotImplementedError

    def densities(self) -> dict[str, Callable[[], Density]]:
        """Description of a method for the density of H -> the function that builds it.

        The first that works counts. It uses PROBES probes with STEPS Lanczos steps each, and gives
        a curve of POINTS points if it can.
        """
        return {}

    def probes(self) -> np.ndarray:
        """The probes (P, PROBES) of its density, in the layout of the framework."""
        raise NotImplementedError


def curve(x: np.ndarray, values: np.ndarray, width: float) -> DiscreteDensity:
    """The density of a curve on an evenly spaced grid; it must be zero at both ends."""
    x, values = x.astype(np.float64), values.astype(np.float64)
    return DiscreteDensity(x, values * np.gradient(x), width)

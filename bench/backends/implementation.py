"""The interface of an implementation: it loads a problem and computes figures in several forms.

A figure is a product or another quantity that is timed. A form is one of the implementation's ways
to compute it, such as "graph" or "XLA".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.measurements.problems import Problem

Call = Callable[[np.ndarray], np.ndarray]
# Form -> the function that builds it. Building counts in the time to the first product.
Forms = dict[str, Callable[[], Call]]

PRODUCTS = ("hvp", "gnvp")
BLOCKS = ("hvp_block", "gnvp_block")
COLUMNS = 16
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


class Implementation(ABC):
    """A problem with its weights and data in one framework.

    A call maps a NumPy vector to a NumPy vector, both in the layout of the framework. `to_own` and
    `to_shared` convert between this layout and Keras's; they are not timed.
    """

    @abstractmethod
    def __init__(self, problem: Problem): ...

    @abstractmethod
    def forms(self, figure: str) -> Forms:
        """The forms of a figure; the fastest counts. Empty where the figure is not available.

        The call of a gradient ignores its vector.
        """

    def work(self, form: str) -> float:
        """The multiply-adds of a form if forms differ in them, else 1.

        The fastest form is the one with the most multiply-adds per second.
        """
        return 1.0

    def to_own(self, v: np.ndarray) -> np.ndarray:
        """A vector (P,) or block (P, K) from Keras's layout to that of the framework."""
        return v

    def to_shared(self, v: np.ndarray) -> np.ndarray:
        """A vector (P,) or block (P, K) from the layout of the framework to Keras's."""
        return v

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

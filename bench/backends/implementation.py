"""What an implementation is to the benchmark: a problem loaded, and figures in some forms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.measurements.problems import Problem

Call = Callable[[np.ndarray], np.ndarray]
# Name of a form -> what builds it. Building is a part of the time to the first product.
Forms = dict[str, Callable[[], Call]]

PRODUCTS = ("hvp", "gnvp")
BLOCKS = ("hvp_block", "gnvp_block")
COLUMNS = 16
FIGURES = (*PRODUCTS, *BLOCKS, "gradient", "empty", "matmul", "eigsh")
# A pair's true error over the norm of the operator, which all have to reach.
TOLERANCE = 1e-3
LARGEST = 10
# Of a density: what hvp and hessian-eigenthings take by default.
PROBES = 10
STEPS = 80
SEED = 0
# Of its curve.
POINTS = 1001


@dataclass(frozen=True)
class Seen:
    """A spectrum as probes see it: masses, of sum one, at places.

    Attributes:
        places: (n,) nodes, or the points of a curve.
        masses: (n,) weights, or the area of the curve around each point.
        width: standard width of the bells that make the curve; zero for nodes.
    """

    places: np.ndarray
    masses: np.ndarray
    width: float = 0.0


# Takes a density at the problem that is loaded.
Density = Callable[[], Seen]


class Implementation(ABC):
    """A problem with its weights and data in one framework.

    A call takes a vector of its own layout and returns one, NumPy in and out; `to_own` and
    `to_shared` change layouts outside of what is timed.
    """

    @abstractmethod
    def __init__(self, problem: Problem): ...

    @abstractmethod
    def forms(self, figure: str) -> Forms:
        """The forms of a figure, of which the fastest counts; none where there is no such figure.

        A gradient takes a vector and does not look at it.
        """

    def work(self, form: str) -> float:
        """Multiply-adds of a form where forms do different amounts; the fastest does most of
        them a second."""
        return 1.0

    def to_own(self, v: np.ndarray) -> np.ndarray:
        return v

    def to_shared(self, v: np.ndarray) -> np.ndarray:
        return v

    def largest(self, figure: str, steps: int | None) -> np.ndarray:
        """The vectors (P, 10) of the largest eigenvalues of H ("hvp") or G ("gnvp").

        `steps` is for methods that need the number of Lanczos steps.
        """
        raise NotImplementedError

    def densities(self) -> dict[str, Callable[[], Density]]:
        """What is peculiar about its density of H -> what builds it; the first that works counts.

        PROBES probes with STEPS Lanczos steps each, and a curve of POINTS points where it has one.
        """
        return {}

    def starts(self) -> np.ndarray:
        """The probes (P, S) of its density, in its own layout."""
        raise NotImplementedError


def curve(x: np.ndarray, values: np.ndarray, width: float) -> Seen:
    """A curve on an even grid at whose ends it has gone."""
    x, values = x.astype(np.float64), values.astype(np.float64)
    return Seen(x, values * np.gradient(x), width)

"""hvp, called as its users call it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

import hvp
from bench.backends import keras_models
from bench.backends.implementation import (
    LARGEST,
    POINTS,
    PROBES,
    SEED,
    STEPS,
    TOLERANCE,
    Call,
    Density,
    DiscreteDensity,
    Forms,
    Implementation,
)
from bench.measurements.problems import Problem, data

# hvp imports its public names at their first use; imports must not be timed.
_ = hvp.linearize, hvp.eigsh, hvp.Hessian, hvp.density


class Ours(Implementation):
    """`hvp.linearize`, called once, and its products."""

    def __init__(self, problem: Problem):
        self._model = keras_models.build(problem)
        self._data = data(problem)

    @functools.cached_property
    def _lin(self) -> hvp.Linearization:
        return hvp.linearize(self._model, self._data, keras_models.loss())

    def forms(self, figure: str) -> Forms:
        match figure:
            case "hvp" | "hvp_block":
                return {"linearize": lambda: self._lin.hvp}
            case "gnvp" | "gnvp_block":
                return {"linearize": lambda: self._lin.gnvp}
            case "eigsh":
                return {"eigsh": self._eigsh}
            case "products":
                return {f"{STEPS} blocks of {PROBES}": self._products}
        return {}

    def _eigsh(self) -> Call:
        def largest(_: np.ndarray) -> np.ndarray:
            return hvp.eigsh(hvp.Hessian(self._lin), 1, ncv=20, tol=TOLERANCE).values

        return largest

    def _products(self) -> Call:
        """A call that computes only the products of a density."""
        operator = hvp.Hessian(self._lin)
        block = self.probes()

        def products(_: np.ndarray) -> np.ndarray:
            for _step in range(STEPS):
                product = operator.matmat(block)
            return product

        return products

    def densities(self) -> dict[str, Callable[[], Density]]:
        return {"Gaussian probes in one block, reorthogonalised": self._density}

    def _density(self) -> Density:
        operator = hvp.Hessian(self._lin)

        def density() -> DiscreteDensity:
            found = hvp.density(operator, num_probes=PROBES, num_steps=STEPS, seed=SEED)
            found.curve(found.grid(POINTS))  # part of what is timed
            return DiscreteDensity(found.nodes.ravel(), found.weights.ravel() / PROBES)

        return density

    def probes(self) -> np.ndarray:
        rng = np.random.default_rng(SEED)
        return rng.standard_normal((PROBES, self._lin.size), dtype=np.float32).T

    def largest(self, figure: str, steps: int | None) -> np.ndarray:
        operator = hvp.Hessian if figure == "hvp" else hvp.GaussNewton
        # The tolerance of eigsh is relative to the eigenvalues of A/‖A‖ + 2, which reach three.
        return hvp.eigsh(operator(self._lin), LARGEST, tol=TOLERANCE / 3).vectors

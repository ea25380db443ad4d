"""hvp, called as its users call it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import hvp
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
)
from hvp.benchmark import keras_products


class Ours(keras_products.Ours):
    """`hvp.linearize`, its products, and the spectra of H and G."""

    def forms(self, figure: str) -> Forms:
        match figure:
            case "eigsh":
                return {"eigsh": self._eigsh}
            case "products":
                return {f"{STEPS} blocks of {PROBES}": self._products}
        return super().forms(figure)

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

"""The quantities that `Curvature` can measure, each from a linearization at the present weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
from scipy.sparse.linalg import LinearOperator

from hvp.callbacks.stability_edge import stability_edge
from hvp.errors import ConvergenceError
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.eigsh import eigsh
from hvp.linalg.trace import trace
from hvp.linearization.linearization import Linearization
from hvp.operators import GaussNewton, Hessian

TRACE_PRODUCTS = 32
# Name of a number -> its error, of which there is none for the others.
Numbers = dict[str, float]


class Measurements:
    """Measures quantities at one point after the other; eigenvalues start from those before.

    Attributes:
        num_unconverged: eigenvalues that were not found to the tolerance.
    """

    def __init__(self, model: keras.Model, quantities: Sequence[str], tol: float, seed: int):
        self._model, self._quantities, self._tol, self._seed = model, quantities, tol, seed
        self._pairs: dict[str, Eigenpairs] = {}
        self.num_unconverged = 0

    def at(self, there: Linearization, step: np.ndarray | None) -> Numbers:
        """The numbers at a point that the training has reached by `step`, (P,)."""
        found: Numbers = {}
        for quantity in self._quantities:
            if quantity == "step_curvature":
                found |= step_curvature(there, step)
            else:
                found |= MEASURES[quantity](self, there)
        return found

    def sharpness(self, there: Linearization) -> Numbers:
        return self._largest("sharpness", Hessian(there))

    def gauss_newton_sharpness(self, there: Linearization) -> Numbers:
        return self._largest("gauss_newton_sharpness", GaussNewton(there))

    def trace(self, there: Linearization) -> Numbers:
        found = trace(Hessian(there), num_products=TRACE_PRODUCTS, seed=self._seed)
        return {"trace": float(found.value), "trace_error": float(found.stderr)}

    def batch_sharpness(self, there: Linearization) -> Numbers:
        quotients = there.batch_sharpness()
        count = len(quotients)
        error = np.std(quotients, ddof=1) / np.sqrt(count) if count > 1 else math.nan
        return {"batch_sharpness": float(quotients.mean()), "batch_sharpness_error": float(error)}

    def edge(self, there: Linearization) -> Numbers:
        optimizer = self._model.optimizer
        if int(optimizer.iterations) == 0:  # it has only accumulated gradients
            return {"edge": math.nan}
        edge = stability_edge(optimizer, self._model.trainable_variables)
        if edge.preconditioner is None:
            return {"edge": edge.value}
        matrix = Preconditioned(Hessian(there), edge.preconditioner)
        return self._largest("preconditioned_sharpness", matrix) | {"edge": edge.value}

    def _largest(self, name: str, matrix: LinearOperator) -> Numbers:
        """The largest eigenvalue and its error; NaN where it did not converge."""
        try:
            pairs = eigsh(matrix, 1, tol=self._tol, start=self._pairs.get(name), seed=self._seed)
        except ConvergenceError:
            self.num_unconverged += 1
            return {name: math.nan, f"{name}_error": math.nan}
        self._pairs[name] = pairs
        return {name: float(pairs.values[0]), f"{name}_error": float(pairs.errors[0])}


MEASURES: dict[str, Callable[[Measurements, Linearization], Numbers]] = {
    "sharpness": Measurements.sharpness,
    "gauss_newton_sharpness": Measurements.gauss_newton_sharpness,
    "trace": Measurements.trace,
    "batch_sharpness": Measurements.batch_sharpness,
    "edge": Measurements.edge,
}
QUANTITIES = (*MEASURES, "step_curvature")


def step_curvature(there: Linearization, step: np.ndarray | None) -> Numbers:
    """dᵀHd / ‖d‖² along a step d; NaN for none and for a step of length zero."""
    length = 0.0 if step is None else float(np.linalg.norm(step))
    if step is None or length == 0:
        return {"step_curvature": math.nan}
    unit = (step / length).astype(there.dtype)
    return {"step_curvature": float(np.vdot(unit, there.hvp(unit)))}


class Preconditioned(LinearOperator):
    """P⁻¹ᐟ² A P⁻¹ᐟ² of a symmetric operator A, with a diagonal P > 0, (P,)."""

    def __init__(self, matrix: LinearOperator, diagonal: np.ndarray):
        super().__init__(matrix.dtype, matrix.shape)
        self._matrix, self._scale = matrix, (diagonal**-0.5).astype(matrix.dtype)

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self._scale * (self._matrix @ (self._scale * np.ravel(v)))

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self._scale[:, np.newaxis] * (self._matrix @ (self._scale[:, np.newaxis] * V))

    def _adjoint(self) -> LinearOperator:
        return self

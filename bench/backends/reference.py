"""Hv and Gv of dense nets in float64 NumPy, independent of automatic differentiation.

Pearlmutter 1994: a are the activations, and δ the gradients of the loss in the inputs of the
activation functions. The tangents ȧ are computed forward, and δ̇ backward.
"""

from __future__ import annotations

import numpy as np

from bench.measurements.problems import Dense, Problem, data, values
from hvp.benchmark.implementation import BLOCKS, COLUMNS, vectors

# With more parameters, the float64 product in NumPy takes longer than all other measurements.
MAX_PARAMETERS = 20_000_000


def by_hand(problem: Problem, figure: str) -> np.ndarray | None:
    """The float64 product (P, 1), or first and last column (P, 2); None for other networks."""
    if not problem.is_dense or problem.size > MAX_PARAMETERS:
        return None
    net = DenseNet(problem)
    product = net.hvp if figure.startswith("hvp") else net.gnvp
    columns = COLUMNS if figure in BLOCKS else 1
    block = vectors(problem.size, columns).reshape(problem.size, -1)
    chosen = block[:, [0, -1]] if columns > 1 else block
    return np.stack([product(column) for column in chosen.T], axis=1)


class DenseNet:
    """A dense network at fixed weights; the constructor computes all that does not depend on v.

    Attributes:
        loss: the mean cross-entropy.
        gradient: of the loss, (P,).
    """

    def __init__(self, problem: Problem):
        self._layers = [layer for layer in problem.layers if isinstance(layer, Dense)]
        assert len(self._layers) == len(problem.layers)
        self._shapes = [weight.shape for weight in problem.weights]
        arrays = [array.astype(np.float64) for array in values(problem)]
        self._kernels, shifts = arrays[0::2], arrays[1::2]
        x, labels = data(problem)
        self._a, self._slopes, self._bends = [x.astype(np.float64)], [], []
        for layer, kernel, shift in zip(self._layers, self._kernels, shifts, strict=True):
            a, slope, bend = _activation(layer.activation, self._a[-1] @ kernel + shift)
            self._a.append(a)
            self._slopes.append(slope)
            self._bends.append(bend)
        logits = self._a[-1] - self._a[-1].max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        self._p = exponentials / exponentials.sum(axis=1, keepdims=True)
        rows = np.arange(len(labels))
        self.loss = float(-np.log(self._p[rows, labels]).mean())
        slope_of_loss = self._p.copy()
        slope_of_loss[rows, labels] -= 1
        self._backwards(slope_of_loss / len(labels))

    def _backwards(self, slope_of_loss: np.ndarray) -> None:
        """Compute δ and the gradient in each activation, last layer first."""
        self._above, self._deltas = [slope_of_loss], [slope_of_loss * self._slopes[-1]]
        for kernel, slope in zip(self._kernels[:0:-1], self._slopes[-2::-1], strict=True):
            self._above.insert(0, self._deltas[0] @ kernel.T)
            self._deltas.insert(0, self._above[0] * slope)
        parts = [
            part
            for a, delta in zip(self._a[:-1], self._deltas, strict=True)
            for part in (a.T @ delta, delta.sum(axis=0))
        ]
        self.gradient = _join(parts)

    def hvp(self, v: np.ndarray) -> np.ndarray:
        """Hv, (P,)."""
        kernels, shifts = self._split(v)
        tangents, entering = self._forwards(kernels, shifts)
        parts: list[np.ndarray] = []
        above = self._loss_hessian_product(tangents[-1])
        for i in reversed(range(len(self._layers))):
            delta = above * self._slopes[i] + self._above[i] * self._bends[i] * entering[i]
            kernel = self._a[i].T @ delta
            if i > 0:
                kernel = kernel + _not_none(tangents[i]).T @ self._deltas[i]
                above = delta @ self._kernels[i].T + self._deltas[i] @ kernels[i].T
            parts[:0] = [kernel, delta.sum(axis=0)]
        return _join(parts)

    def gnvp(self, v: np.ndarray) -> np.ndarray:
        """Gv, (P,)."""
        tangents, _ = self._forwards(*self._split(v))
        parts: list[np.ndarray] = []
        above = self._loss_hessian_product(tangents[-1])
        for i in reversed(range(len(self._layers))):
            delta = above * self._slopes[i]
            parts[:0] = [self._a[i].T @ delta, delta.sum(axis=0)]
            if i > 0:
                above = delta @ self._kernels[i].T
        return _join(parts)

    def _forwards(
        self, kernels: list[np.ndarray], shifts: list[np.ndarray]
    ) -> tuple[list[np.ndarray | None], list[np.ndarray]]:
        """The tangents of the activations (None for the inputs) and of their arguments."""
        tangents: list[np.ndarray | None] = [None]
        entering: list[np.ndarray] = []
        for i, (kernel, shift) in enumerate(zip(kernels, shifts, strict=True)):
            entering_tangent = self._a[i] @ kernel + shift
            before = tangents[-1]
            if before is not None:
                entering_tangent = entering_tangent + before @ self._kernels[i]
            entering.append(entering_tangent)
            tangents.append(self._slopes[i] * entering_tangent)
        return tangents, entering

    def _loss_hessian_product(self, tangent: np.ndarray | None) -> np.ndarray:
        """The Hessian of the loss in the logits, (diag(p) - p pᵀ) / N, times a tangent."""
        weighted = self._p * _not_none(tangent)
        return (weighted - self._p * weighted.sum(axis=1, keepdims=True)) / len(self._p)

    def _split(self, v: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        pieces = np.split(v.astype(np.float64), np.cumsum(sizes)[:-1])
        shaped = [piece.reshape(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        return shaped[0::2], shaped[1::2]


def _not_none(tangent: np.ndarray | None) -> np.ndarray:
    assert tangent is not None  # only the inputs have none
    return tangent


def _activation(name: str, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The activation, its first and its second derivative."""
    if name == "tanh":
        a = np.tanh(z)
        slope = 1 - a * a
        return a, slope, -2 * a * slope
    assert name == "linear"
    return z, np.ones_like(z), np.zeros_like(z)


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([part.ravel() for part in parts])

"""Matrices of chosen eigenvalues."""

import numpy as np
from scipy.sparse.linalg import LinearOperator

P = 60
SPECTRA = {
    "simple": np.linspace(1.0, 10.0, P),
    "clustered": np.r_[np.linspace(0.0, 1.0, P - 4), 5.0 + 1e-4 * np.arange(4)],
    "degenerate": np.r_[np.full(P - 5, 1.0), 3.0, 3.0, 3.0, 7.0, 7.0],
    "rank deficient": np.r_[np.zeros(P - 5), 1.0, 2.0, 3.0, 4.0, 5.0],
    "spiked": np.r_[np.linspace(0.0, 1.0, P - 3), 30.0, 40.0, 50.0],
    "zero": np.zeros(P),
    "identity": np.ones(P),
    "indefinite": np.r_[-np.geomspace(0.1, 8.0, P // 2), np.geomspace(0.1, 9.0, P // 2)],
    "negative": -np.geomspace(0.1, 10.0, P),
    "tiny": 1e-9 * np.linspace(1.0, 10.0, P),
    "huge": 1e9 * np.linspace(-1.0, 10.0, P),
}


def with_spectrum(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    matrix = (Q * values) @ Q.T
    return (matrix + matrix.T) / 2


class Counting(LinearOperator):
    """A matrix that counts the vectors it was multiplied with, and the columns of each block."""

    def __init__(self, matrix):
        super().__init__(matrix.dtype, matrix.shape)
        self.matrix, self.count, self.widths = matrix, 0, []

    def _matvec(self, v):
        self.count += 1
        return self.matrix @ v.reshape(-1)

    def _matmat(self, V):
        assert V.dtype == self.dtype
        self.count += V.shape[1]
        self.widths.append(V.shape[1])
        return self.matrix @ V

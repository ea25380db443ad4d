"""Operators that count, and die: what journals are tested with."""

import numpy as np
from scipy.sparse.linalg import LinearOperator

SIZE = 600  # beyond the size up to which hvp.eigsh forms the matrix


class KilledError(Exception):
    """The end of a process, as far as a solver sees it."""


class Counting(LinearOperator):
    """A symmetric matrix that counts its calls, and fails at one of them."""

    def __init__(self, matrix, dies_at=None):
        super().__init__(matrix.dtype, matrix.shape)
        self.matrix, self.dies_at, self.calls = matrix, dies_at, 0

    def _matvec(self, v):
        return self._matmat(v)

    def _matmat(self, V):
        if self.calls == self.dies_at:
            raise KilledError
        self.calls += 1
        return self.matrix @ V

    def _adjoint(self):
        return self


def matrix(dtype=np.float64):
    """Symmetric and positive definite, with eigenvalues from 1 to 600."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0]
    return ((basis * np.arange(1.0, SIZE + 1)) @ basis.T).astype(dtype)

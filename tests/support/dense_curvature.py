"""A backend in plain NumPy that implements the protocol `hvp.operators.Curvature`."""

import itertools
from dataclasses import dataclass

import numpy as np

from hvp.errors import Finding
from hvp.sampling_error import BatchForms, BatchGrams


@dataclass(frozen=True)
class DenseLayout:
    """One matrix-shaped tensor a layer, one layer after the other."""

    layers: dict[str, tuple[int, ...]]
    slices: tuple[slice, ...]
    shapes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    channel_axes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, shapes: dict[str, tuple[int, ...]]) -> "DenseLayout":
        stops = np.cumsum([int(np.prod(shape)) for shape in shapes.values()]).tolist()
        return cls(
            {name: (i,) for i, name in enumerate(shapes)},
            tuple(itertools.starmap(slice, itertools.pairwise([0, *stops]))),
            tuple(shapes.values()),
            tuple(f"{name}/kernel" for name in shapes),
            tuple((len(shape) - 1,) for shape in shapes.values()),
        )


class DenseCurvature:
    """The products of matrices that are given, for a loss L(w) = wᵀHw/2 on B batches of data.

    `J` is (B, M/B, P) and `R` (B, P, P) symmetric, by batch; G = Σ_b JᵦᵀJᵦ and H = G + R.
    """

    accuracy = None
    data_digest = weights_digest = "0" * 64
    loss_name = "quadratic"
    findings: tuple[Finding, ...] = ()

    def __init__(self, J, R, theta, layout, *, is_whole=True):
        self.batch_shares = {"G": J.transpose(0, 2, 1) @ J, "R": R}
        self.batch_shares["H"] = self.batch_shares["G"] + R
        self.H, self.G, self.R = (self.batch_shares[letter].sum(axis=0) for letter in "HGR")
        self.J = J.reshape(-1, J.shape[2])
        self._arguments = J, R
        self.theta, self.layout, self.is_whole = theta, layout, is_whole
        self.size, self.dtype = len(theta), theta.dtype
        self.num_outputs, self.num_batches = len(self.J), len(J)
        self.num_examples = self.num_outputs

    @classmethod
    def random(cls, seed=0, num_batches=4, rows=5):
        layout = DenseLayout.of({"first": (3, 2), "second": (2, 4)})
        size = layout.slices[-1].stop
        rng = np.random.default_rng(seed)
        J, R = (rng.standard_normal((num_batches, n, size)) for n in (rows, size))
        return cls(J, (R + R.transpose(0, 2, 1)) / 4, rng.standard_normal(size), layout)

    def loss(self, theta=None):
        w = self.theta if theta is None else theta
        return float(w @ self.H @ w / 2)

    def gradient(self):
        return self.H @ self.theta

    def loss_and_gradient(self, theta):
        return float(theta @ self.H @ theta / 2), self.H @ theta

    def hvp(self, v):
        return self.H @ v

    def gnvp(self, v):
        return self.G @ v

    def residual_vp(self, v):
        return self.R @ v

    def products(self, v):
        return self.hvp(v), self.gnvp(v), self.residual_vp(v)

    def fisher_vp(self, v, num_samples=None, seed=0):
        return self.gnvp(v)

    def empirical_fisher_vp(self, v):
        gradient = self.gradient()
        return gradient * (gradient @ v) if np.ndim(v) == 1 else np.outer(gradient, gradient @ v)

    def jvp(self, v):
        return self.J @ v

    def vjp(self, u):
        return self.J.T @ u

    def batch_forms(self, v, matrix="H"):
        V = np.reshape(v, (self.size, -1))
        forms = np.einsum("pk,bpq,qk->bk", V, self.batch_shares[matrix], V)
        return BatchForms(forms, np.zeros(V.shape[1]), self._examples())

    def batch_grams(self, V, matrix="H"):
        grams = np.einsum("pk,bpq,ql->bkl", V, self.batch_shares[matrix], V)
        return BatchGrams(grams, np.zeros((V.shape[1],) * 2), self._examples())

    def source_of_nan(self, v):
        return ""

    def blocks(self):
        return {name: self._block(positions) for name, positions in self.layout.layers.items()}

    def in_float64(self):
        return self

    def _block(self, positions):
        (position,) = positions
        name = list(self.layout.layers)[position]
        own = self.layout.slices[position]
        J, R = self._arguments
        layout = DenseLayout.of({name: self.layout.shapes[position]})
        return DenseCurvature(J[:, :, own], R[:, own, own], self.theta[own], layout, is_whole=False)

    def _examples(self):
        return np.full(self.num_batches, self.num_examples // self.num_batches)

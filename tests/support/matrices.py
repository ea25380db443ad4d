"""A network without TensorFlow: H and G as dense matrices, batch by batch, for `hvp.compare`."""

import itertools
import types

import numpy as np

from hvp.sampling_error import BatchForms, BatchGrams


def rotated(values, seed):
    Q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))
    return (Q * values) @ Q.T


class Known:
    """What `compare` needs of a `Linearization`, from a stack H and G (B, P, P), a batch each.

    `sizes` are the layers' by name, in order; `coarse` rounds products as float32 does.
    """

    accuracy, loss_name, findings = 0.75, "squared_error", ()
    data_digest, weights_digest = 64 * "d", 64 * "e"

    def __init__(self, H, G, sizes, *, is_whole=True, coarse=False):
        self.stacks = {"H": H, "G": G, "R": H - G}
        self.sizes, self.is_whole = dict(sizes), is_whole
        self.dtype = np.dtype(np.float32 if coarse else np.float64)
        edges = np.r_[0, np.cumsum(list(self.sizes.values()))]
        self.size, self.num_outputs = int(edges[-1]), 40
        self.num_batches, self.num_examples = len(H), 10 * len(H)
        self.layout = types.SimpleNamespace(
            slices=tuple(slice(a, b) for a, b in itertools.pairwise(edges)),
            shapes=tuple((size, 1) for size in self.sizes.values()),
            layers={name: (i,) for i, name in enumerate(self.sizes)},
        )
        self.theta = np.linspace(-1.0, 1.0, self.size).astype(self.dtype)

    def dense(self, letter):
        return self.stacks[letter].sum(axis=0)

    def _times(self, letter, v):
        return (self.dense(letter).astype(self.dtype) @ v.astype(self.dtype)).astype(self.dtype)

    def hvp(self, v):
        return self._times("H", v)

    def gnvp(self, v):
        return self._times("G", v)

    def residual_vp(self, v):
        return self._times("R", v)

    def products(self, v):
        return self.hvp(v), self.gnvp(v), self.residual_vp(v)

    def loss(self, theta=None):
        step = np.zeros(self.size) if theta is None else theta.astype(float) - self.theta
        return float(0.5 + self.gradient() @ step + step @ self.dense("H") @ step / 2)

    def gradient(self):
        return np.full(self.size, 0.25)

    def source_of_nan(self, v):
        return "nowhere"

    def in_float64(self):
        return Known(self.stacks["H"], self.stacks["G"], self.sizes)

    def batch_forms(self, v, matrix):
        V = np.atleast_2d(v.T).T
        shares = np.einsum("pk,bpq,qk->bk", V, self.stacks[matrix], V)
        return BatchForms(shares, np.zeros(V.shape[1]), np.full(self.num_batches, 10))

    def batch_grams(self, V, matrix):
        shares = V.T @ self.stacks[matrix] @ V
        empty = np.zeros((V.shape[1], V.shape[1]))
        return BatchGrams(shares, empty, np.full(self.num_batches, 10))

    def blocks(self):
        found = {}
        for name, (i,) in self.layout.layers.items():
            rows = self.layout.slices[i]
            H, G = (self.stacks[letter][:, rows, rows] for letter in "HG")
            coarse = self.dtype == np.float32
            found[name] = Known(H, G, {name: self.sizes[name]}, is_whole=False, coarse=coarse)
        return found


def network(sizes=(("first", 40), ("last", 30)), batches=4, spread=0.1, **options):
    """An indefinite H over a positive semidefinite G; R vanishes on the last layer's block."""
    sizes = dict(sizes)
    P, last = sum(sizes.values()), list(sizes.values())[-1]
    G = rotated(np.r_[np.zeros(P - 30), np.geomspace(0.01, 4.0, 30)], 0)
    R = rotated(np.linspace(-0.4, 0.6, P), 1)
    R[P - last :, P - last :] = 0.0
    rng = np.random.default_rng(2)
    shares = 1 / batches + spread * rng.standard_normal(batches) / batches
    shares /= shares.sum()
    weights = shares[:, None, None]
    return Known(weights * (G + R), weights * G, sizes, **options)

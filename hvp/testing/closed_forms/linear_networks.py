"""Deep linear networks, z = W_L ⋯ W_1 x: the simplest networks whose residual R is not zero."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from hvp.errors import InputError
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, generator_of
from hvp.testing.closed_forms.problem import ClosedForm, of_function


def deep_linear(
    num_examples: int = 20, size: int = 3, *, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN
) -> ClosedForm:
    """L = ‖XAB - Y‖²/N with A and B (D, D), a network whose residual H - G is not zero.

    Let S = XᵀX/N and E = Xᵀ(XAB - Y)/N. The gradient is (2EBᵀ, 2AᵀE). Its derivative along (dA, dB)
    is (2S(dA·B + A·dB)Bᵀ + 2E·dBᵀ, 2Aᵀ·S(dA·B + A·dB) + 2dAᵀ·E). The terms without E are Gv.
    """
    rng = generator_of(seed, rng)
    X, Y = rng.standard_normal((2, num_examples, size))
    A, B = rng.standard_normal((2, size, size))
    S, E = X.T @ X / num_examples, X.T @ (X @ A @ B - Y) / num_examples

    def product(v: np.ndarray, residual: float) -> np.ndarray:
        dA, dB = v.reshape(2, size, size)
        inner = S @ (dA @ B + A @ dB)
        rows = inner @ B.T + residual * E @ dB.T, A.T @ inner + residual * dA.T @ E
        return 2 * np.stack(rows).ravel()

    H, G = (
        np.stack([product(unit, residual) for unit in np.eye(2 * size * size)], axis=1)
        for residual in (1.0, 0.0)
    )
    return of_function(
        ClosedForm,
        _squares,
        lambda p, batch: batch[0] @ p[0] @ p[1],
        [A, B],
        (X, Y),
        H=H,
        G=G,
        gradient=2 * np.stack([E @ B.T, A.T @ E]).ravel(),
    )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DeepLinear(ClosedForm):
    """A deep linear network with random weights.

    Attributes:
        rank_H, rank_G, rank_R: the exact ranks.
    """

    rank_H: int
    rank_G: int
    rank_R: int


def deep_linear_network(
    sizes: Sequence[int] = (6, 4, 3),
    num_examples: int = 40,
    *,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
) -> DeepLinear:
    """L = Σ‖W_L ⋯ W_1 x - y‖²/N with W_l (M_l, M_{l-1}) of these sizes, at random weights.

    With d = M_0 inputs, K = M_L outputs, M hidden units together and q = min(d, K)::

        rank G = q(d + K - q)
        rank R = 2qM - (L - 2)q²
        rank H = 2qM + q(d + K) - Lq²

    (Singh, Bachmann and Hofmann 2021, "Analytic insights into structure and rank of neural network
    Hessian maps", theorems 3 to 5). H is not of full rank, however many examples there are.

    Args:
        sizes: d, the hidden layers and K; no hidden layer is narrower than q.
        num_examples: at least d.
        seed: of the weights and the data.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).

    Raises:
        InputError: there is no hidden layer, or one is too narrow, or there are too few examples.

    >>> problem = deep_linear_network((6, 4, 5, 3))
    >>> problem.rank_H, problem.rank_G, problem.rank_R
    (54, 18, 45)
    """
    sizes = tuple(sizes)
    rank = min(sizes[0], sizes[-1]) if len(sizes) > 2 else 0
    if not rank or min(sizes) < rank or num_examples < sizes[0]:
        raise InputError(
            "a hidden layer or more, none narrower than inputs and outputs, and no fewer examples "
            "than inputs",
            f"{'-'.join(map(str, sizes))} with {num_examples} examples",
            "such as (6, 4, 3)",
        )
    rng = generator_of(seed, rng)
    weights = [rng.standard_normal((m, n)) for n, m in itertools.pairwise(sizes)]
    X = rng.standard_normal((num_examples, sizes[0]))
    Y = rng.standard_normal((num_examples, sizes[-1]))
    H, G, gradient = _derivatives(weights, X, Y)
    depth, hidden, ends = len(weights), sum(sizes[1:-1]), sizes[0] + sizes[-1]
    return of_function(
        DeepLinear,
        _squares,
        _network,
        weights,
        (X, Y),
        H=H,
        G=G,
        gradient=gradient,
        rank_H=2 * rank * hidden + rank * ends - depth * rank**2,
        rank_G=rank * (ends - rank),
        rank_R=2 * rank * hidden - (depth - 2) * rank**2,
    )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DepthGap(ClosedForm):
    """A balanced deep linear network at a minimum.

    Attributes:
        eigenvalues: of H = G, (P,), in ascending order.
    """

    eigenvalues: np.ndarray


def depth_gap(
    depth: int = 3, size: int = 4, rank: int = 2, *, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN
) -> DepthGap:
    """A balanced deep linear network at a minimum, on whitened data: λ is the depth L, 1 or 0.

    L = Σ‖W_L ⋯ W_1 x - y‖²/2N with XᵀX/N = I, square W_l (D, D) and a target map of which
    r singular values are 1 and the others 0. Each W_l has these singular values too, and
    W_{l+1}ᵀW_{l+1} = W_l W_lᵀ (balanced: Arora, Cohen and Hazan 2018). The residuals are zero, so
    H = G. Its block (l, m) is B_lᵀB_m ⊗ A_l A_mᵀ, with A_l = W_{l-1} ⋯ W_1 and B_l = W_L ⋯ W_{l+1}.
    In singular vectors all blocks are diagonal: λ = L for each of r² pairs of singular vectors, to
    which all layers contribute; λ = 1 for 2r(D - r) pairs, to which the first or the last layer
    does; and all others are 0.

    Raises:
        InputError: a depth below two, or a rank that is not from 1 to D.

    >>> np.unique(depth_gap(depth=3).eigenvalues, return_counts=True)
    (array([0., 1., 3.]), array([36,  8,  4]))
    """
    if depth < 2 or not 1 <= rank <= size:
        raise InputError(
            "a depth of at least 2 and a rank from 1 to the size",
            f"depth {depth}, rank {rank}, size {size}",
            "such as depth=3, size=4, rank=2",
        )
    rng = generator_of(seed, rng)
    bases = [np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(depth + 1)]
    shape = np.diag(np.arange(size) < rank).astype(np.float64)
    weights = [u @ shape @ v.T for v, u in itertools.pairwise(bases)]
    X = np.sqrt(2 * size) * np.linalg.qr(rng.standard_normal((2 * size, size)))[0]
    Y = X @ (bases[-1] @ shape @ bases[0].T).T
    doubled, _, gradient = _derivatives(weights, X, Y)
    counts = rank**2, 2 * rank * (size - rank)
    eigenvalues = np.zeros(depth * size**2)
    eigenvalues[-sum(counts) :] = 1
    eigenvalues[-counts[0] :] = depth
    return of_function(
        DepthGap,
        lambda z, batch: _squares(z, batch) / 2,
        _network,
        weights,
        (X, Y),
        H=doubled / 2,
        G=doubled / 2,
        gradient=gradient / 2,
        eigenvalues=eigenvalues,
    )


def _network(weights: Sequence[tf.Tensor], batch: tuple[tf.Tensor, ...]) -> tf.Tensor:
    z = batch[0]
    for W in weights:
        z = tf.matmul(z, W, transpose_b=True)
    return z


def _squares(z: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tf.Tensor:
    return tf.reduce_mean(tf.reduce_sum((z - batch[1]) ** 2, axis=1))


def _derivatives(
    weights: Sequence[np.ndarray], X: np.ndarray, Y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """H, G (P, P) and ∇L (P,) of L = Σ‖W_L ⋯ W_1 x - y‖²/N.

    With S = XᵀX/N, Ω = Σ(z - y)xᵀ/N and C = W_{m-1} ⋯ W_{l+1}, the blocks of layers l < m are
    G_ml = 2 B_mᵀB_l ⊗ A_m S A_lᵀ and, for dW_m[a, b] and dW_l[c, d],
    R_ml = 2 (B_mᵀΩA_lᵀ)[a, d] C[b, c].
    """
    depth = len(weights)

    def product(first: int, end: int) -> np.ndarray:
        """W_{end-1} ⋯ W_first."""
        result = np.eye(weights[first].shape[1] if first < depth else weights[-1].shape[0])
        for W in weights[first:end]:
            result = W @ result
        return result

    S = X.T @ X / len(X)
    omega = (X @ product(0, depth).T - Y).T @ X / len(X)
    before = [product(0, layer) for layer in range(depth)]
    after = [product(layer + 1, depth) for layer in range(depth)]
    G = np.block([
        [2 * np.kron(after[m].T @ after[k], before[m] @ S @ before[k].T) for k in range(depth)]
        for m in range(depth)
    ])  # fmt: skip
    R, starts = np.zeros_like(G), np.cumsum([0, *(W.size for W in weights)])
    for m in range(depth):
        for k in range(m):
            outer, inner = after[m].T @ omega @ before[k].T, product(k + 1, m)
            block = 2 * np.einsum("ad,bc->abcd", outer, inner)
            block = block.reshape(weights[m].size, weights[k].size)
            rows, columns = (slice(starts[i], starts[i + 1]) for i in (m, k))
            R[rows, columns], R[columns, rows] = block, block.T
    slopes = [2 * after[i].T @ omega @ before[i].T for i in range(depth)]
    return G + R, G, np.concatenate([slope.ravel() for slope in slopes])

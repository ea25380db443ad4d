"""Problems whose H and G are known in closed form, for test suites."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from hvp.linearization.linearization import Linearization
from hvp.linearization.linearize import linearize_function


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """A problem and its solution in float64.

    Attributes:
        lin: the linearization.
        H, G: its dense matrices (P, P).
        gradient: ∇L (P,).

    >>> problem = linear_regression()
    >>> bool(np.allclose(problem.lin.hvp(np.eye(problem.lin.size)), problem.H))
    True
    """

    lin: Linearization
    H: np.ndarray
    G: np.ndarray
    gradient: np.ndarray


def quadratic(size: int = 6, *, seed: int = 0) -> ClosedForm:
    """L = wᵀAw/2 - bᵀw with a symmetric, indefinite A (P, P): H = G = A.

    The outputs are w itself, so that the residual H - G is zero.
    """
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((size, size))
    A, b, w = A + A.T, rng.standard_normal(size), rng.standard_normal(size)

    def loss(z: tf.Tensor) -> tf.Tensor:
        return tf.tensordot(z, tf.linalg.matvec(A, z) / 2 - b, 1)

    lin = linearize_function(loss, w, outputs=lambda w: 1.0 * w)
    return ClosedForm(lin, A, A, A @ w - b)


def linear_regression(num_examples: int = 20, size: int = 4, *, seed: int = 0) -> ClosedForm:
    """L = ‖Xw - y‖²/N: H = G = 2XᵀX/N."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((num_examples, size)), rng.standard_normal(num_examples)
    w = rng.standard_normal(size)
    lin = linearize_function(
        lambda z, batch: tf.reduce_mean((z - batch[1]) ** 2),
        w,
        (X, y),
        outputs=lambda w, batch: tf.linalg.matvec(batch[0], w),
        reduction="mean",
    )
    H = 2 * X.T @ X / num_examples
    return ClosedForm(lin, H, H, 2 * X.T @ (X @ w - y) / num_examples)


def softmax_regression(
    num_examples: int = 20, size: int = 4, num_classes: int = 3, *, seed: int = 0
) -> ClosedForm:
    """The cross-entropy of z = Wx, with W (C, D): H = G = Σ (diag p - ppᵀ) ⊗ xxᵀ / N.

    Bishop 2006, section 4.3.4.
    """
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((num_examples, size)), rng.integers(0, num_classes, num_examples)
    W = rng.standard_normal((num_classes, size))
    lin = linearize_function(
        lambda z, batch: tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(batch[1], z)
        ),
        W,
        (X, y),
        outputs=lambda W, batch: tf.matmul(batch[0], W, transpose_b=True),
        reduction="mean",
    )
    z = X @ W.T
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    curvature = np.einsum("nc,cd->ncd", p, np.eye(num_classes)) - np.einsum("nc,nd->ncd", p, p)
    H = np.einsum("ncd,ni,nj->cidj", curvature, X, X).reshape(W.size, W.size) / num_examples
    slope = (p - np.eye(num_classes)[y]).T @ X / num_examples
    return ClosedForm(lin, H, H, slope.ravel())


def deep_linear(num_examples: int = 20, size: int = 3, *, seed: int = 0) -> ClosedForm:
    """L = ‖XAB - Y‖²/N with A and B (D, D), a network whose residual H - G is not zero.

    Let S = XᵀX/N and E = Xᵀ(XAB - Y)/N. The gradient is (2EBᵀ, 2AᵀE). Its derivative along (dA, dB)
    is (2S(dA·B + A·dB)Bᵀ + 2E·dBᵀ, 2Aᵀ·S(dA·B + A·dB) + 2dAᵀ·E). The terms without E are Gv.
    """
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((2, num_examples, size))
    A, B = rng.standard_normal((2, size, size))
    lin = linearize_function(
        lambda z, batch: tf.reduce_mean(tf.reduce_sum((z - batch[1]) ** 2, axis=1)),
        [A, B],
        (X, Y),
        outputs=lambda p, batch: batch[0] @ p[0] @ p[1],
        reduction="mean",
    )
    S, E = X.T @ X / num_examples, X.T @ (X @ A @ B - Y) / num_examples

    def product(v: np.ndarray, residual: float) -> np.ndarray:
        dA, dB = v.reshape(2, size, size)
        inner = S @ (dA @ B + A @ dB)
        rows = inner @ B.T + residual * E @ dB.T, A.T @ inner + residual * dA.T @ E
        return 2 * np.stack(rows).ravel()

    H, G = (
        np.stack([product(unit, residual) for unit in np.eye(lin.size)], axis=1)
        for residual in (1.0, 0.0)
    )
    return ClosedForm(lin, H, G, 2 * np.stack([E @ B.T, A.T @ E]).ravel())

"""Models that are linear in their weights: H = G, and R is zero."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from hvp.linearization.linearize import linearize
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, generator_of
from hvp.testing.closed_forms.problem import ClosedForm, of_function


def quadratic(size: int = 6, *, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN) -> ClosedForm:
    """L = wᵀAw/2 - bᵀw with a symmetric, indefinite A (P, P): H = G = A.

    The outputs are w itself, so that the residual H - G is zero.
    """
    rng = generator_of(seed, rng)
    A = rng.standard_normal((size, size))
    A, b, w = A + A.T, rng.standard_normal(size), rng.standard_normal(size)

    def loss(z: tf.Tensor) -> tf.Tensor:
        return tf.tensordot(z, tf.linalg.matvec(A, z) / 2 - b, 1)

    return of_function(ClosedForm, loss, lambda w: 1.0 * w, w, H=A, G=A, gradient=A @ w - b)


def linear_regression(
    num_examples: int = 20, size: int = 4, *, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN
) -> ClosedForm:
    """L = ‖Xw - y‖²/N: H = G = 2XᵀX/N."""
    rng = generator_of(seed, rng)
    X, y = rng.standard_normal((num_examples, size)), rng.standard_normal(num_examples)
    w = rng.standard_normal(size)
    H = 2 * X.T @ X / num_examples
    return of_function(
        ClosedForm,
        lambda z, batch: tf.reduce_mean((z - batch[1]) ** 2),
        _linear,
        w,
        (X, y),
        H=H,
        G=H,
        gradient=2 * X.T @ (X @ w - y) / num_examples,
    )


def softmax_regression(
    num_examples: int = 20,
    size: int = 4,
    num_classes: int = 3,
    *,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
) -> ClosedForm:
    """The cross-entropy of z = Wx, with W (C, D): H = G = Σ (diag p - ppᵀ) ⊗ xxᵀ / N.

    Bishop 2006, section 4.3.4.
    """
    rng = generator_of(seed, rng)
    X, y = rng.standard_normal((num_examples, size)), rng.integers(0, num_classes, num_examples)
    W = rng.standard_normal((num_classes, size))
    H, gradient = _softmax_derivatives(X, y, W)
    return of_function(
        ClosedForm, _cross_entropy, _class_scores, W, (X, y), H=H, G=H, gradient=gradient
    )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ClassBlocks(ClosedForm):
    """Softmax regression at zero.

    Attributes:
        num_classes: C; the block of classes c and d is ``H.reshape(C, D, C, D)[c, :, d]``.
        ratio: ‖H_cd‖/‖H_cc‖ for c ≠ d, 1/(C - 1).
    """

    num_classes: int
    ratio: float


def softmax_at_zero(
    num_examples: int = 20,
    size: int = 4,
    num_classes: int = 5,
    *,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
) -> ClassBlocks:
    """The cross-entropy of z = Wx at W = 0: H = G = (I - 11ᵀ/C)/C ⊗ XᵀX/N, whatever the labels.

    A block off the diagonal is -1/(C - 1) times one on it: with many classes H is nearly block
    diagonal (Dong et al. 2025, "Towards quantifying the Hessian structure of neural networks").

    >>> problem = softmax_at_zero(num_classes=5)
    >>> blocks = problem.H.reshape(5, 4, 5, 4)
    >>> bool(np.allclose(blocks[0, :, 1], -problem.ratio * blocks[0, :, 0])), problem.ratio
    (True, 0.25)
    """
    rng = generator_of(seed, rng)
    X, y = rng.standard_normal((num_examples, size)), rng.integers(0, num_classes, num_examples)
    centred = np.eye(num_classes) - 1 / num_classes
    H = np.kron(centred / num_classes, X.T @ X / num_examples)
    gradient = (1 / num_classes - np.eye(num_classes)[y]).T @ X / num_examples
    return of_function(
        ClassBlocks,
        _cross_entropy,
        _class_scores,
        np.zeros((num_classes, size)),
        (X, y),
        H=H,
        G=H,
        gradient=gradient.ravel(),
        num_classes=num_classes,
        ratio=1 / (num_classes - 1),
    )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RandomLinear(ClosedForm):
    """A linear model of random inputs.

    Attributes:
        edges: (1 ∓ √(P/N))², the limits of λmin and λmax as N and P grow.
    """

    edges: tuple[float, float]


def random_linear(
    num_examples: int = 800, size: int = 200, *, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN
) -> RandomLinear:
    """L = ‖Xw - y‖²/2N with independent standard normal X: H = G = XᵀX/N, a Wishart matrix.

    Its spectrum fills the interval between (1 - √(P/N))² and (1 + √(P/N))² for P ≤ N (Marchenko and
    Pastur 1967). λmax differs from its edge by the order of N^(-2/3) (Johnstone 2001).

    >>> problem = random_linear()
    >>> problem.edges, np.linalg.eigvalsh(problem.H)[[0, -1]].round(2).tolist()
    ((0.25, 2.25), [0.24, 2.2])
    """
    rng = generator_of(seed, rng)
    X, y = rng.standard_normal((num_examples, size)), rng.standard_normal(num_examples)
    w = rng.standard_normal(size)
    H, root = X.T @ X / num_examples, np.sqrt(size / num_examples)
    return of_function(
        RandomLinear,
        lambda z, batch: tf.reduce_mean((z - batch[1]) ** 2) / 2,
        _linear,
        w,
        (X, y),
        H=H,
        G=H,
        gradient=X.T @ (X @ w - y) / num_examples,
        edges=(float((1 - root) ** 2), float((1 + root) ** 2)),
    )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class EqualResiduals(ClosedForm):
    """Least squares where all residuals are ±σ.

    Attributes:
        F, E: the Fisher matrix and the empirical one, dense (P, P).
        ratio: of E to F.
    """

    F: np.ndarray
    E: np.ndarray
    ratio: float


def equal_residuals(
    num_examples: int = 20,
    size: int = 4,
    *,
    sigma: float = 0.3,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
) -> EqualResiduals:
    """Keras's mean squared error of a linear model whose residuals are all ±σ: E = 2σ²F.

    F = H = G = 2XᵀX/N and E = 4Σr²xxᵀ/N. The empirical Fisher matrix follows the size of the
    residuals and the Fisher matrix does not: E = (σ²/s²)F, where s² is the variance that the loss
    states (Kunstner, Hennig and Balles 2019, section 3, who have s = 1; for r² it is s² = 1/2).

    >>> problem = equal_residuals(sigma=0.3)
    >>> bool(np.allclose(problem.E, problem.ratio * problem.F)), problem.ratio
    (True, 0.18)
    """
    rng = generator_of(seed, rng)
    X, signs = rng.standard_normal((num_examples, size)), rng.choice([-1.0, 1.0], num_examples)
    w = rng.standard_normal(size)
    y = (X @ w + sigma * signs)[:, None]
    layer = keras.layers.Dense(1, use_bias=False, dtype="float64")
    model = keras.Sequential([keras.Input((size,), dtype="float64"), layer])
    layer.set_weights([w[:, None]])
    F = 2 * X.T @ X / num_examples
    E = 4 * sigma**2 * X.T @ X / num_examples
    gradient = -2 * sigma * X.T @ signs / num_examples
    lin = linearize(model, (X, y), "mse")
    return EqualResiduals(
        lin, F, F, gradient, data=(X, y), model=model, F=F, E=E, ratio=2 * sigma**2
    )


def _linear(w: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tf.Tensor:
    return tf.linalg.matvec(batch[0], w)


def _class_scores(W: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tf.Tensor:
    return tf.matmul(batch[0], W, transpose_b=True)


def _cross_entropy(z: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(batch[1], z))


def _softmax_derivatives(
    X: np.ndarray, y: np.ndarray, W: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """H (P, P) and ∇L (P,) of softmax regression."""
    (num_classes, _), num_examples = W.shape, len(X)
    z = X @ W.T
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    curvature = np.einsum("nc,cd->ncd", p, np.eye(num_classes)) - np.einsum("nc,nd->ncd", p, p)
    H = np.einsum("ncd,ni,nj->cidj", curvature, X, X).reshape(W.size, W.size) / num_examples
    slope = (p - np.eye(num_classes)[y]).T @ X / num_examples
    return H, slope.ravel()

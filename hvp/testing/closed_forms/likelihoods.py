"""Likelihoods besides those of squares and classes: counts, and a Gaussian process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, generator_of
from hvp.testing.closed_forms.problem import ClosedForm, of_function


def poisson_regression(
    num_examples: int = 20, size: int = 4, *, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN
) -> ClosedForm:
    """L = Σ(eᶻ - yz)/N with z = Xw: H = G = Xᵀ diag(eᶻ) X/N, the Fisher matrix.

    McCullagh and Nelder 1989, section 2.5: with the canonical link H does not depend on y.

    >>> problem = poisson_regression()
    >>> bool(np.linalg.eigvalsh(problem.H)[0] > 0)
    True
    """
    rng = generator_of(seed, rng)
    X, w = rng.standard_normal((num_examples, size)), 0.5 * rng.standard_normal(size)
    rates = np.exp(X @ w)
    y = rng.poisson(rates).astype(np.float64)
    H = (X.T * rates) @ X / num_examples
    return of_function(
        ClosedForm,
        lambda z, batch: tf.reduce_mean(tf.exp(z) - batch[1] * z),
        lambda w, batch: tf.linalg.matvec(batch[0], w),
        w,
        (X, y),
        H=H,
        G=H,
        gradient=X.T @ (rates - y) / num_examples,
    )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GaussianPosterior(ClosedForm):
    """A posterior that is Gaussian, so that its covariance is H⁻¹.

    Attributes:
        covariance: (P, P), by a formula that inverts neither H nor K.
        mean: (P,), where the gradient is zero.
    """

    covariance: np.ndarray
    mean: np.ndarray


def gaussian_process(
    size: int = 12,
    *,
    noise: float = 0.5,
    length: float = 0.3,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
) -> GaussianPosterior:
    """L(f) = ‖f - y‖²/2σ² + fᵀK⁻¹f/2, the negative log posterior of a Gaussian process at P points.

    H = G = I/σ² + K⁻¹, and its inverse is the posterior covariance K - K(K + σ²I)⁻¹K; the mean is
    K(K + σ²I)⁻¹y (Rasmussen and Williams 2006, equations 2.23 and 2.24). K is the exponential
    kernel exp(-|s - t|/length) at P points from 0 to 1; f is drawn at random.

    >>> problem = gaussian_process()
    >>> bool(np.allclose(np.linalg.inv(problem.H), problem.covariance))
    True
    """
    rng = generator_of(seed, rng)
    t = np.linspace(0, 1, size)
    K = np.exp(-np.abs(t[:, None] - t) / length)
    y, f = rng.standard_normal((2, size))
    precision = np.linalg.inv(K)
    gain = np.linalg.solve(K + noise**2 * np.eye(size), K).T
    H = np.eye(size) / noise**2 + precision

    def loss(z: tf.Tensor) -> tf.Tensor:
        prior = tf.tensordot(z, tf.linalg.matvec(precision, z), 1)
        return tf.reduce_sum((z - y) ** 2) / (2 * noise**2) + prior / 2

    return of_function(
        GaussianPosterior,
        loss,
        lambda f: 1.0 * f,
        f,
        H=H,
        G=H,
        gradient=(f - y) / noise**2 + precision @ f,
        covariance=K - gain @ K,
        mean=gain @ y,
    )

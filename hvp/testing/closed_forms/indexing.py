"""Operations whose second derivatives are easily wrong: products at zero, repeated indices."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, generator_of
from hvp.testing.closed_forms.problem import ClosedForm, of_function


def products_at_zero(
    size: int = 4, *, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN
) -> ClosedForm:
    """L = Σ(zᵣ - yᵣ)²/2 with zᵣ = Πᵢ w[r, i], where row r of w has r zeros, r = 0 to `size`.

    The derivative of a product is the product of the others, and its second derivative that of all
    but two; z/wᵢ, which gradients are often computed from, is 0/0. With two zeros in a row G has
    only zeros there and R one pair of entries, so that H is indefinite; with three all is zero.

    >>> problem = products_at_zero(2)
    >>> problem.params[2].tolist(), problem.G[4:, 4:].tolist(), np.diag(problem.H)[4:].tolist()
    ([0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0])
    """
    rng = generator_of(seed, rng)
    w = rng.uniform(0.5, 1.5, (size + 1, size)) * rng.choice([-1.0, 1.0], (size + 1, size))
    y = rng.standard_normal(size + 1)
    for row in range(size + 1):
        w[row, rng.permutation(size)[:row]] = 0
    H, G = np.zeros((2, w.size, w.size))
    gradient = np.zeros_like(w)
    for row, values in enumerate(w):
        inside = slice(row * size, (row + 1) * size)
        residual = np.prod(values) - y[row]
        slope = np.array([np.prod(np.delete(values, i)) for i in range(size)])
        second = np.array([
            [0.0 if i == j else np.prod(np.delete(values, [i, j])) for j in range(size)]
            for i in range(size)
        ])  # fmt: skip
        G[inside, inside] = np.outer(slope, slope)
        H[inside, inside] = G[inside, inside] + residual * second
        gradient[row] = residual * slope
    return of_function(
        ClosedForm,
        lambda z: tf.reduce_sum((z - y) ** 2) / 2,
        lambda w: tf.reduce_prod(w, axis=1),
        w,
        H=H,
        G=G,
        gradient=gradient.ravel(),
    )


def gather_with_repeats(
    size: int = 5, num_rows: int = 12, *, seed: int = DEFAULT_SEED, rng: RNG = NOT_GIVEN
) -> ClosedForm:
    """L = zᵀAz/2 with zᵢ = (w[indexᵢ])² and indices that repeat, as in an embedding.

    With the matrix S of zeros and ones, z = S w² and J = 2S diag(w): G = JᵀAJ, and
    R = 2 diag(SᵀAz). The entries of all rows that read a parameter add up; a parameter that no row
    reads has zeros in H.

    >>> problem = gather_with_repeats()
    >>> problem.data is None, problem.H.shape
    (True, (5, 5))
    """
    rng = generator_of(seed, rng)
    index = rng.integers(0, max(size - 1, 1), num_rows)
    A, w = rng.standard_normal((num_rows, num_rows)), rng.standard_normal(size)
    A = A + A.T
    S = np.eye(size)[index]
    z, J = S @ w**2, 2 * S * w
    G = J.T @ A @ J
    return of_function(
        ClosedForm,
        lambda z: tf.tensordot(z, tf.linalg.matvec(A, z), 1) / 2,
        lambda w: tf.gather(w, index) ** 2,
        w,
        H=G + 2 * np.diag(S.T @ A @ z),
        G=G,
        gradient=J.T @ A @ z,
    )

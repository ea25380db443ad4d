"""The noise floor: the error of the products themselves, measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvp.errors import InputError
from hvp.linalg.blocks import chunks, columns_within, gram, squared_lengths
from hvp.linalg.counted_operator import CountedOperator, Operator
from hvp.progress import ProgressHook
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of

# Products in float64 are made with blocks of at most this.
MAX_BLOCK_BYTES = 256 << 20


@dataclass(frozen=True)
class Noise:
    """The errors of products with unit vectors, in units of λ.

    Attributes:
        asymmetry: the largest |uᵀAv - vᵀAu| of unit vectors u and v.
        repeatability: the largest ‖Av - (Av)'‖ of two products with the same vector.
        shadow: the largest ‖Av - A₆₄v‖, with A₆₄v the product in float64; NaN if there is none.
        num_products: products with A.

    >>> Noise(asymmetry=1e-7, repeatability=0.0, shadow=3e-7, num_products=6).floor
    3e-07
    """

    asymmetry: float
    repeatability: float
    shadow: float
    num_products: int

    @property
    def floor(self) -> float:
        """The largest of the three: an eigenvalue may be wrong by as much (Weyl's inequality)."""
        return float(np.nanmax([self.asymmetry, self.repeatability, self.shadow]))

    def rows(self) -> list[dict[str, float]]:
        """One dict, as `pandas.DataFrame` takes it, with the `floor` besides.

        >>> Noise(asymmetry=1.0, repeatability=0.0, shadow=3.0, num_products=6).rows()
        [{'asymmetry': 1.0, 'repeatability': 0.0, 'shadow': 3.0, 'floor': 3.0, 'num_products': 6}]
        """
        return [
            {
                "asymmetry": self.asymmetry,
                "repeatability": self.repeatability,
                "shadow": float(self.shadow),
                "floor": self.floor,
                "num_products": self.num_products,
            }
        ]


def noise_floor(
    A: Operator,
    exact: Operator | None = None,
    *,
    vectors: np.ndarray | None = None,
    num_directions: int = 3,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
    progress: ProgressHook | None = None,
) -> Noise:
    """The errors of products with a symmetric operator, along random and given directions.

    Rounding grows with ‖Av‖: the result holds for large eigenvalues only if their eigenvectors are
    among the directions.

    Args:
        A: a SciPy LinearOperator or a matrix, (P, P).
        exact: the same operator in float64, such as ``Hessian(lin.in_float64())``; None for no
            `shadow`.
        vectors: (P, K) further directions, such as the top eigenvectors.
        num_directions: the number of random directions, at least two.
        seed: of the random directions.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).
        progress: called with the number of products so far, a `hvp.Progress`.

    Raises:
        InputError: A is no square operator, there are fewer than two directions, or `exact` has
            another shape.

    >>> noise = noise_floor(np.diag([1.0, 2.0]), np.diag([1.0, 2.5]), vectors=np.eye(2))
    >>> noise.asymmetry, noise.repeatability, noise.shadow
    (0.0, 0.0, 0.5)
    """
    seed = seed_of(seed, rng)
    counted = CountedOperator(A, progress)
    size = counted.shape[0]
    if num_directions < 2:
        raise InputError("at least two directions", num_directions, "leave it out for three")
    if exact is not None and exact.shape != counted.shape:
        raise InputError(f"exact= of shape {counted.shape}", exact.shape, "build it from A's model")
    V = _directions(size, num_directions, vectors, np.random.default_rng(seed), counted.dtype)
    counted.total = 2 * V.shape[1]
    AV, repeatability, shadow = np.empty_like(V), 0.0, np.nan if exact is None else 0.0
    for some in chunks(V.shape[1], columns_at_once(size)):
        AV[:, some] = counted.matmat(V[:, some])
        repeatability = max(repeatability, _largest(AV[:, some] - counted.matmat(V[:, some])))
        if exact is not None:
            exactly = exact @ V[:, some].astype(np.float64)
            shadow = max(shadow, _largest(np.subtract(AV[:, some], exactly, out=exactly)))
    inner = gram(V, AV)
    return Noise(
        asymmetry=float(np.abs(inner - inner.T).max()),
        repeatability=repeatability,
        shadow=shadow,
        num_products=counted.count,
    )


def columns_at_once(size: int) -> int:
    """How many products in float64 are made at once, with vectors of so many entries."""
    return columns_within(MAX_BLOCK_BYTES, size, 8)


def _directions(
    size: int,
    count: int,
    vectors: np.ndarray | None,
    rng: np.random.Generator,
    dtype: np.dtype,
) -> np.ndarray:
    """(P, n) unit vectors: so many random ones, and those given."""
    given = np.zeros((size, 0)) if vectors is None else vectors
    V = np.empty((size, count + given.shape[1]), dtype)
    for rows in chunks(size):
        V[rows, :count] = rng.standard_normal((len(V[rows]), count))
        V[rows, count:] = given[rows]
    V /= np.sqrt(squared_lengths(V)).astype(dtype)
    return V


def _largest(differences: np.ndarray) -> float:
    """The length of the longest column."""
    return float(np.sqrt(squared_lengths(differences).max()))

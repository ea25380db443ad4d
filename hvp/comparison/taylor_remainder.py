"""How a function along a line parts from its parabola: second derivatives and orders.

The lines are rows: each is known at an odd number of points, evenly spaced, with t = 0 in the
middle.
"""

from __future__ import annotations

import numpy as np

# A remainder of this many roundings is known to a digit.
KNOWN = 10.0


def second_derivatives(
    steps: np.ndarray, values: np.ndarray, rounding: float
) -> tuple[np.ndarray, np.ndarray]:
    """The second derivative at t = 0 of each line, (K,), and its error, (K,).

    With c(h) = (f(h) + f(-h) - 2f(0))/h² it is (4c(h) - c(2h))/3, of fourth order (Richardson). Its
    error is its change from h to 2h, and the rounding of the values. Of all h whose fourfold is
    among the steps, the one with the least error is taken. NaN where f is not finite.

    Args:
        steps, values: (K, n) t and f(t).
        rounding: the error of a value.
    """
    half = steps.shape[1] // 2
    h = steps[:, half + 1 :]
    center = values[:, half, None]
    quotients = (values[:, half + 1 :] + values[:, half - 1 :: -1] - 2 * center) / h**2
    found = np.full((2, len(steps)), np.nan)
    for i in range(half // 4):
        once, twice, fourfold = (quotients[:, factor * (i + 1) - 1] for factor in (1, 2, 4))
        value, coarse = (4 * once - twice) / 3, (4 * twice - fourfold) / 3
        error = np.abs(value - coarse) + 6 * rounding / h[:, i] ** 2
        is_better = np.isfinite(error) & ~(error >= found[1])
        found[:, is_better] = np.stack([value, error])[:, is_better]
    return found[0], found[1]


def orders(remainders: np.ndarray, rounding: float) -> np.ndarray:
    """The power of t with which each line of remainders (K, n) grows near t = 0, (K,).

    It is log₂ r(2h)/r(h) for the smallest step h at which r, the larger of both sides, is known: it
    is above 10 roundings. NaN where there is none.
    """
    half = remainders.shape[1] // 2
    sizes = np.maximum(remainders[:, half + 1 :], remainders[:, half - 1 :: -1])
    found = np.full(len(remainders), np.nan)
    for line, size in enumerate(np.abs(sizes)):
        once, twice = size[: half // 2], size[1 : 2 * (half // 2) : 2]
        known = np.flatnonzero((once > KNOWN * rounding) & np.isfinite(twice) & (twice > 0))
        if len(known):
            found[line] = np.log2(twice[known[0]] / once[known[0]])
    return found

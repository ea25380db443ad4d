"""How a loss differs from its pieces around a point, as powers of the step along directions."""

from __future__ import annotations

import enum
from collections.abc import Callable

import numpy as np

# (step, number of a direction) -> the loss, and that of the pieces
Losses = Callable[[float, int], tuple[float, float]]
# Directions along which the loss and its pieces are compared.
NUM_DIRECTIONS = 3
# Steps along each, of which three in a row show how the difference grows.
NUM_STEPS = 5


class Difference(enum.Enum):
    """How a loss differs from its pieces around a point: not to second order, or how.

    INFINITE: the loss tends to infinity there, as 1/x where x is zero.
    """

    NONE = enum.auto()
    KINK = enum.auto()
    SMOOTH = enum.auto()
    INFINITE = enum.auto()


def differences(losses: Losses, epsilon: float) -> list[Difference]:
    """How they differ along each direction, in the precision of this epsilon."""
    return [_difference(losses, direction, epsilon) for direction in range(NUM_DIRECTIONS)]


def _difference(losses: Losses, direction: int, epsilon: float) -> Difference:
    """How the loss and its pieces differ along a direction, as powers of the step."""
    # The first step is far above rounding; for fast functions smaller ones have its order.
    steps = 2 * epsilon ** (1 / 6) * 2.0 ** -np.arange(NUM_STEPS)
    found = {}
    # A difference that grows above rounding somewhere is above it at one of these two steps.
    for some in ([0, 2], [1, 3, 4]):
        for i in some:
            found[i] = [losses(s * steps[i], direction) for s in (1, -1)]
        sides = np.array([found[i] for i in sorted(found)])
        if (~np.isfinite(sides[..., 0]) & np.isfinite(sides[..., 1])).any():
            return Difference.SMOOTH  # the loss ends at this point
        floor = epsilon**0.75 * np.abs(sides[..., 1]).max()
        with np.errstate(invalid="ignore"):  # what is infinite is refused with the products
            above, below = (sides[..., 0] - sides[..., 1]).T
            even, odd = np.abs(above + below) / 2, np.abs(above - below) / 2
            if (np.maximum(even, odd) <= floor).all():
                return Difference.NONE
    if _is_pole(np.maximum(even, odd)):
        return Difference.INFINITE
    for i in range(NUM_STEPS - 2):
        part = slice(i, i + 3)
        if even[i + 1] > max(floor, 0.1 * odd[i + 1]) and _grows(even[part], 1):
            return Difference.KINK
        # relu(x)² is another square on each side.
        is_bent = odd[i + 1] > max(floor, 0.01 * even[i + 1]) and _grows(odd[part], 2)
        if is_bent and even[i + 1] > floor and _grows(even[part], 2):
            return Difference.KINK
        is_first = odd[i + 1] > floor and _grows(odd[part], 1)
        if is_first or (even[i + 1] > floor and _grows(even[part], 2)):
            return Difference.SMOOTH
    return Difference.NONE


def near_step(epsilon: float) -> float:
    """A step at which a value that is not constant has changed."""
    return float(epsilon**0.5)


def _is_pole(differences: np.ndarray) -> bool:
    """Whether differences at halved steps are as one negative power of the step.

    Rounding may grow too, but not as one power.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        orders = np.log2(differences[:-1] / differences[1:])
    return bool(np.all(orders < -0.5) and np.ptp(orders) < 0.1)


def _grows(differences: np.ndarray, order: int) -> bool:
    """Whether differences at halved steps are as this power of the step."""
    with np.errstate(divide="ignore", invalid="ignore"):
        orders = np.log2(differences[:-1] / differences[1:])
    return bool(np.all(np.abs(orders - order) < 0.5))

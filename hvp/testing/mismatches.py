"""Arrays compared entry by entry; the error shows the entries that differ most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hvp.errors import InputError

NUM_SHOWN = 5


def check_close(
    found: np.ndarray,
    expected: np.ndarray,
    bound: np.ndarray | float,
    title: str,
    *,
    index: str = "entry",
) -> None:
    """Raise AssertionError where |found - expected| exceeds `bound`, or is NaN.

    Infinities are equal to themselves. The bound is broadcast to the shape of `found`.
    """
    with np.errstate(invalid="ignore"):
        difference = np.where(found == expected, 0.0, np.abs(found - expected))
    bound = np.broadcast_to(np.asarray(bound, np.float64), difference.shape)
    wrong = ~(difference <= bound)
    if not wrong.any():
        return
    # NaN first, then what exceeds its bound most.
    excess = np.where(wrong, np.nan_to_num(difference - bound, nan=np.inf, posinf=np.inf), -np.inf)
    worst = np.argsort(-excess, axis=None, kind="stable")[: min(NUM_SHOWN, int(wrong.sum()))]
    share = 100 * wrong.sum() / wrong.size
    rows = []
    for position in worst:
        place = np.unravel_index(position, wrong.shape)
        label = ", ".join(str(int(i)) for i in place)
        value, wanted, change, allowed = (
            float(array[place]) for array in (found, expected, difference, bound)
        )
        rows.append((label, value, wanted, change, allowed))
    count = f"{wrong.sum():,} of {wrong.size:,} differ ({share:.3g} %); the worst:"
    raise AssertionError("\n".join([title, f"{index} by {index}: {count}", *table(index, rows)]))


def table(
    index: str,
    rows: Sequence[tuple[str, float, float, float, float]],
    *,
    expected: str = "expected",
) -> list[str]:
    """Lines of label, found, expected, difference and allowed, below their names."""
    width = max(12, *(len(row[0]) for row in rows))
    names = f"{'found':>16} {expected:>16} {'difference':>11} {'allowed':>9}"
    return [f"{index:>{width}} {names}"] + [
        f"{label:>{width}} {found:>16.9g} {wanted:>16.9g} {difference:>11.2e} {bound:>9.1e}"
        for label, found, wanted, difference, bound in rows
    ]


def tolerance(
    rtol: float | None, atol: float | None, expected: np.ndarray, rounding: np.ndarray | float
) -> np.ndarray:
    """atol + rtol·|expected| as NumPy has it; `rounding` where neither is given.

    Raises InputError for what is no number of at least zero.
    """
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not (isinstance(value, int | float | np.number) and value >= 0):
            raise InputError(f"an {name} of at least 0", value, "leave it out for the rounding")
    if rtol is None and atol is None:
        return np.broadcast_to(np.asarray(rounding, np.float64), np.shape(expected))
    size = np.abs(expected) if rtol else np.zeros(np.shape(expected))
    return np.asarray((atol or 0.0) + (rtol or 0.0) * size)

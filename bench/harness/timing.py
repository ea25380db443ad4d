"""Turns, and the medians of the ratios of neighbouring turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Threads spin for some milliseconds after their last work, on a core that the next turn needs.
PAUSE_SECONDS = 0.02

# One turn: seconds a call.
Turn = Callable[[], float]


@dataclass(frozen=True)
class Interleaved:
    """Medians over the rounds.

    Attributes:
        ours: seconds.
        seconds: of each other.
        ratios: ours over each other, the median of the ratios of neighbours.
        rounds: how many.
        ours_best: seconds of our best turn.
        best: of each other's.
    """

    ours: float
    seconds: dict[str, float]
    ratios: dict[str, float]
    rounds: int
    ours_best: float
    best: dict[str, float]


def interleave(ours: Turn, others: Mapping[str, Turn], rounds: int) -> Interleaved:
    """A B A C A B A C ...: ours before each other, so that every ratio is of neighbours in time.

    A machine that slows down for a while slows both; the median drops the rounds where it did
    between the two.
    """

    def rested(turn: Turn) -> float:
        time.sleep(PAUSE_SECONDS)
        return turn()

    mine: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in others}
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for _ in range(rounds):
        if not others:
            mine.append(rested(ours))
        for name, turn in others.items():
            mine.append(rested(ours))
            theirs[name].append(rested(turn))
            ratios[name].append(mine[-1] / theirs[name][-1])
    return Interleaved(
        statistics.median(mine),
        {name: statistics.median(values) for name, values in theirs.items()},
        {name: statistics.median(values) for name, values in ratios.items()},
        rounds,
        min(mine),
        {name: min(values) for name, values in theirs.items()},
    )


def calls_in(turn: float, seconds: float) -> int:
    """How many calls of so many seconds make a turn."""
    return max(1, math.ceil(turn / max(seconds, 1e-9)))


def rounds_in(budget: float, seconds_of_a_round: float, most: int) -> int:
    """An odd number of rounds that fits, from 3 to the most."""
    fitting = min(most, int(budget / max(seconds_of_a_round, 1e-9)))
    return max(3, fitting - (fitting + 1) % 2)

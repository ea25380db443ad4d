"""Time implementations in turns, and take the medians of the ratios of neighbouring turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Idle threads spin for some milliseconds on cores that the next turn needs.
PAUSE_SECONDS = 0.02

# Runs one turn and returns seconds per call.
Turn = Callable[[], float]


@dataclass(frozen=True)
class Interleaved:
    """Medians over the rounds.

    Attributes:
        ours: seconds of hvp.
        seconds: name -> seconds of each other implementation.
        ratios: name -> the median of the ratios of neighbouring turns, hvp over the other.
        rounds: the number of rounds.
        ours_best: seconds of the best turn of hvp.
        best: name -> seconds of the best turn of each other.
    """

    ours: float
    seconds: dict[str, float]
    ratios: dict[str, float]
    rounds: int
    ours_best: float
    best: dict[str, float]


def interleave(ours: Turn, others: Mapping[str, Turn], rounds: int) -> Interleaved:
    """A B A C A B A C ...: `ours` before each other, so that each ratio is of neighbours in time.

    If the machine becomes slower for a while, both turns are slower. The median drops the rounds in
    which the speed changed between the two.
    """

    def after_pause(turn: Turn) -> float:
        time.sleep(PAUSE_SECONDS)
        return turn()

    ours_seconds: list[float] = []
    others_seconds: dict[str, list[float]] = {name: [] for name in others}
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for _ in range(rounds):
        if not others:
            ours_seconds.append(after_pause(ours))
        for name, turn in others.items():
            ours_seconds.append(after_pause(ours))
            others_seconds[name].append(after_pause(turn))
            ratios[name].append(ours_seconds[-1] / others_seconds[name][-1])
    return Interleaved(
        statistics.median(ours_seconds),
        {name: statistics.median(values) for name, values in others_seconds.items()},
        {name: statistics.median(values) for name, values in ratios.items()},
        rounds,
        min(ours_seconds),
        {name: min(values) for name, values in others_seconds.items()},
    )


def calls_in(turn: float, seconds: float) -> int:
    """The number of calls, each of `seconds`, in a turn of `turn` seconds."""
    return max(1, math.ceil(turn / max(seconds, 1e-9)))


def rounds_in(budget: float, seconds_of_a_round: float, most: int) -> int:
    """The largest odd number of rounds within the budget in seconds, from 3 to `most`."""
    fitting = min(most, int(budget / max(seconds_of_a_round, 1e-9)))
    return max(3, fitting - (fitting + 1) % 2)

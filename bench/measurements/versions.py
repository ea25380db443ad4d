"""Two checkouts of hvp, old against new, measured in turns in one run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.backends.implementation import BLOCKS, COLUMNS
from bench.backends.implementations import OURS
from bench.measurements.problems import Problem
from hvp import InputError
from hvp.benchmark.measure import MAX_BLOCK_BYTES, Plan, Progress, relative_difference
from hvp.benchmark.process import Worker
from hvp.benchmark.server import Prepared
from hvp.benchmark.timing import Interleaved, Turn, calls_in, interleave, rounds_in

# Products before they are timed: some are compiled, or joined for all batches, after a hundred.
WARM_UP_TURNS = 20


@dataclass(frozen=True)
class Row:
    """One measurement of one problem by both versions.

    Attributes:
        measurement: "hvp", "gnvp", "hvp_block", "gnvp_block" or "first".
        new: seconds per vector, the median over the rounds.
        old: the same for the other checkout.
        ratio: new over old, the median of the ratios of neighbouring turns.
        difference: ‖new - old‖ / ‖old‖ of the products; None for the first product.
    """

    problem: str
    measurement: str
    new: float
    old: float
    ratio: float
    rounds: int
    difference: float | None


def check_checkout(path: Path) -> Path:
    """The absolute path. Raises InputError if there is no package `hvp` in it."""
    if not (path / "hvp" / "__init__.py").is_file():
        raise InputError("a checkout of hvp", repr(str(path)), "give the directory above hvp/")
    return path.resolve()


def compare(
    problems: Iterable[Problem], checkout: Path, plan: Plan, progress: Progress
) -> Iterator[Row]:
    """Measure the products of each problem, and the time to the first one, in both versions."""
    for problem in problems:
        with contextlib.ExitStack() as stack:
            progress(f"{problem.title}: starting")
            new, old = (
                stack.enter_context(OURS.worker(checkout=path)) for path in (None, checkout)
            )
            for worker in (new, old):
                worker.wait_until_ready()
                worker.ask("load", problem.name)
            for name in plan.figures:
                if name in BLOCKS and 4 * COLUMNS * problem.size > MAX_BLOCK_BYTES:
                    continue
                progress(f"{problem.title}: {name}")
                yield _product(problem, name, new, old, plan)
        progress(f"{problem.title}: first product")
        new_first, old_first = _first_turn(problem, None), _first_turn(problem, checkout)
        first = interleave(new_first, {"old": old_first}, plan.repeats)
        yield _row(problem, "first", first, 1, None)


def _product(problem: Problem, name: str, new: Worker, old: Worker, plan: Plan) -> Row:
    prepared: list[Prepared] = [worker.ask("prepare", name) for worker in (new, old)]
    products: list[np.ndarray] = [worker.ask("columns", name) for worker in (new, old)]
    seconds = sum(max(plan.turn, each.seconds) for each in prepared)
    # The same number of calls for both, so that their turns take about as long.
    calls = calls_in(plan.turn, min(each.seconds for each in prepared))
    rounds = rounds_in(plan.budget, seconds, plan.rounds)
    for worker, each in zip((new, old), prepared, strict=True):
        worker.ask("time", name, calls_in(WARM_UP_TURNS * plan.turn, each.seconds))
    timed = interleave(_turn(new, name, calls), {"old": _turn(old, name, calls)}, rounds)
    for worker in (new, old):
        worker.ask("release", name)
    vectors = COLUMNS if name in BLOCKS else 1
    return _row(problem, name, timed, vectors, relative_difference(*products))


def _turn(worker: Worker, name: str, calls: int) -> Turn:
    return lambda: worker.ask("time", name, calls)


def _first_turn(problem: Problem, checkout: Path | None) -> Turn:
    """A turn that gives the seconds from `linearize` to the first Hv in a fresh process."""

    def first() -> float:
        with OURS.worker(checkout=checkout) as worker:
            worker.wait_until_ready()
            worker.ask("load", problem.name)
            prepared: Prepared = worker.ask("prepare", "hvp")
            return prepared.first

    return first


def _row(
    problem: Problem, name: str, timed: Interleaved, vectors: int, difference: float | None
) -> Row:
    new, old = timed.ours / vectors, timed.seconds["old"] / vectors
    return Row(problem.name, name, new, old, timed.ratios["old"], timed.rounds, difference)

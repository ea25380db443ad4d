"""The measurements of a problem: prepare the calls, compare the products, time them in turns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.backends.implementation import BLOCKS, COLUMNS, PRODUCTS
from bench.backends.implementations import NAIVE, OURS, Entry
from bench.backends.reference import DenseNet
from bench.harness import machine_load
from bench.harness.process import Worker, WorkerError
from bench.harness.server import Prepared
from bench.harness.timing import Interleaved, Turn, calls_in, interleave, rounds_in
from bench.measurements import flops
from bench.measurements.problems import Problem, vectors
from bench.results.record import Measurement, ProblemRecord, Result

Progress = Callable[[str], None]

# Largest relative difference. Sums of 10⁵ float32 products differ by about 10⁻⁶ with the order.
AGREEMENT = 1e-4
# Above this, the blocks of all implementations together do not fit into memory.
MAX_BLOCK_BYTES = 1.2e9
EIGSH_MEMORY_MIN_PARAMETERS = 10_000_000


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: the largest number of rounds.
        budget: seconds for all turns of one figure; there are at least three rounds.
        turn: seconds of one turn.
        figures: the products that are timed.
        memory: the figures whose peak memory is measured for hvp.
        memory_of_peers: the same for the peers.
        repeats: the number of rounds of the end-to-end runs.
    """

    rounds: int
    budget: float
    turn: float
    figures: tuple[str, ...]
    memory: tuple[str, ...]
    memory_of_peers: tuple[str, ...]
    repeats: int


FULL = Plan(11, 60.0, 0.05, (*PRODUCTS, *BLOCKS), (*PRODUCTS, "eigsh"), ("hvp",), 3)
QUICK = Plan(3, 3.0, 0.03, PRODUCTS, (), (), 1)
SMALLEST = Plan(3, 0.1, 0.001, (*PRODUCTS, *BLOCKS), ("hvp",), (), 1)

Units = Mapping[str, tuple[Worker, str, Prepared]]


def measure(
    problem: Problem, peers: Sequence[Entry], plan: Plan, progress: Progress
) -> ProblemRecord:
    """All figures of one problem for hvp, naive TensorFlow and the peers."""
    counted = flops.count(problem)
    record = ProblemRecord(problem.title, problem.size, problem.batch, vars(counted).copy())
    entries = [OURS, NAIVE, *(peer for peer in peers if peer.has_products)]
    with contextlib.ExitStack() as stack:
        progress(f"{problem.title}: starting")
        absent, workers = start(entries, problem, stack)
        units = _prepare_units(workers, record)
        for figure in plan.figures:
            if figure in BLOCKS and 4 * COLUMNS * problem.size > MAX_BLOCK_BYTES:
                record.notes.append(f"{figure} left out: blocks of {COLUMNS} vectors are too large")
                continue
            progress(f"{problem.title}: {figure}")
            record.figures[figure] = _figure(problem, figure, workers, absent, units, plan, record)
            if figure in BLOCKS:
                _ask_all(workers, "release", figure)
        progress(f"{problem.title}: gradient")
        record.figures["gradient"] = _gradients(workers, absent, units, plan)
    _memories(problem, entries, plan, record, progress)
    return record


def start(
    entries: Iterable[Entry], problem: Problem, stack: contextlib.ExitStack
) -> tuple[dict[str, Result], dict[str, Worker]]:
    """The results of entries that cannot be measured, and the workers of the others.

    The workers have loaded the problem.
    """
    absent: dict[str, Result] = {}
    workers: dict[str, Worker] = {}
    for entry in entries:
        reason = entry.missing()
        if reason is None:
            workers[entry.name] = stack.enter_context(Worker(entry.name))
        else:
            absent[entry.name] = Result("missing", note=reason)
    for name, worker in list(workers.items()):
        try:
            worker.wait_until_ready()
            worker.ask("load", problem.name)
        except WorkerError as error:
            absent[name] = Result("failed", note=str(error))
            del workers[name]
    return absent, workers


def _prepare_units(workers: Mapping[str, Worker], record: ProblemRecord) -> Units:
    """The calls in naive TensorFlow's worker that serve as units for the products of hvp."""
    found: dict[str, tuple[Worker, str, Prepared]] = {}
    worker = workers.get(NAIVE.name)
    for figure in ("gradient", "empty", "matmul") if worker is not None else ():
        assert worker is not None
        try:
            prepared = worker.ask("prepare", figure)
        except WorkerError as error:
            record.notes.append(f"{figure} failed: {error}")
            continue
        found[figure] = worker, figure, prepared
        for form, reason in prepared.refused.items():
            record.notes.append(f"{figure}, {form} refused: {reason}")
    return found


def _figure(
    problem: Problem,
    figure: str,
    workers: Mapping[str, Worker],
    absent: Mapping[str, Result],
    units: Units,
    plan: Plan,
    record: ProblemRecord,
) -> Measurement:
    found = Measurement(results=dict(absent))
    ready: dict[str, Prepared] = {}
    ours: np.ndarray | None = None
    for name, worker in workers.items():
        try:
            prepared = worker.ask("prepare", figure)
            if prepared is None:
                found.results[name] = Result("unavailable")
                continue
            columns = worker.ask("columns", figure)
        except WorkerError as error:
            found.results[name] = Result("failed", note=str(error))
            continue
        ready[name] = prepared
        if figure == "hvp":
            record.first[name] = prepared.first
        refused = "; ".join(f"{form} refused: {why}" for form, why in prepared.refused.items())
        found.results[name] = Result("ok", form=prepared.form, note=refused)
        if name == OURS.name:
            ours = columns
        elif ours is not None:
            judge(found, name, columns, ours)
    if ours is None:
        return found
    by_hand = _by_hand(problem, figure)
    if by_hand is not None:
        judge_ours(found, by_hand, ours)
    turns = {name: _turn(workers[name], figure, ready[name], plan) for name in ready}
    unit_turns, seconds = _unit_turns(figure, workers, ready, units, plan)
    seconds += sum(max(plan.turn, prepared.seconds) for prepared in ready.values())
    first = turns.pop(OURS.name)
    rounds = rounds_in(plan.budget, 2 * seconds, plan.rounds)
    pids = [worker.pid for worker in workers.values()]
    before = machine_load.usage(pids)
    timed = interleave(first, {**turns, **unit_turns}, rounds)
    found.others_load = machine_load.of_others(before, machine_load.usage(pids))
    enter(found, figure, timed)
    _name_units(found, figure, units, record)
    return found


def judge(found: Measurement, name: str, theirs: np.ndarray, ours: np.ndarray) -> None:
    """Mark a product as wrong if it differs from that of hvp; else it confirms that of hvp."""
    result = found.results[name]
    result.error = relative_difference(theirs, ours)
    if result.error <= AGREEMENT:
        found.confirmed_by.append(name)
    else:
        result.status = "wrong"


def judge_ours(found: Measurement, by_hand: np.ndarray, ours: np.ndarray) -> None:
    """Mark the product of hvp as wrong if it differs from the float64 product."""
    result = found.results[OURS.name]
    result.error = relative_difference(ours, by_hand)
    if result.error <= AGREEMENT:
        found.confirmed_by.append("by hand")
    else:
        result.status = "wrong"


def relative_difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    """‖theirs - ours‖ / ‖ours‖; infinite if an entry is not finite."""
    if not (np.isfinite(theirs).all() and np.isfinite(ours).all()):
        return float("inf")
    scale = float(np.linalg.norm(ours))
    return float(np.linalg.norm(theirs - ours)) / (scale or 1.0)


# With more parameters, the float64 product in NumPy takes longer than all other measurements.
BY_HAND_MAX_PARAMETERS = 20_000_000


def _by_hand(problem: Problem, figure: str) -> np.ndarray | None:
    """The float64 product (P, 1), or first and last column (P, 2); None for other networks."""
    if not problem.is_dense or problem.size > BY_HAND_MAX_PARAMETERS:
        return None
    net = DenseNet(problem)
    product = net.hvp if figure.startswith("hvp") else net.gnvp
    columns = COLUMNS if figure in BLOCKS else 1
    block = vectors(problem, columns).reshape(problem.size, -1)
    chosen = block[:, [0, -1]] if columns > 1 else block
    return np.stack([product(column) for column in chosen.T], axis=1)


def _turn(worker: Worker, figure: str, prepared: Prepared, plan: Plan) -> Turn:
    calls = calls_in(plan.turn, prepared.seconds)
    return lambda: worker.ask("time", figure, calls)


def _unit_turns(
    figure: str,
    workers: Mapping[str, Worker],
    ready: Mapping[str, Prepared],
    units: Units,
    plan: Plan,
) -> tuple[dict[str, Turn], float]:
    """The turns of the units, named "in ...", and the seconds of one turn of each together."""
    if figure in BLOCKS:
        single = figure.removesuffix("_block")
        prepared = workers[OURS.name].ask("prepare", single)
        turn = _turn(workers[OURS.name], single, prepared, plan)
        return {"in single": turn}, max(plan.turn, prepared.seconds)
    turns = {
        f"in {name}": _turn(worker, unit, prepared, plan)
        for name, (worker, unit, prepared) in units.items()
    }
    lengths = [max(plan.turn, prepared.seconds) for _, _, prepared in units.values()]
    return turns, sum(lengths)


def enter(found: Measurement, figure: str, timed: Interleaved) -> None:
    """Write the times of a figure into its measurement, in seconds per vector."""
    vectors_a_call = COLUMNS if figure in BLOCKS else 1
    found.rounds = timed.rounds
    found.results[OURS.name].seconds = timed.ours / vectors_a_call
    found.results[OURS.name].best = timed.ours_best / vectors_a_call
    for name, ratio in timed.ratios.items():
        if name.startswith("in "):
            found.units[name.removeprefix("in ")] = ratio
        else:
            found.results[name].seconds = timed.seconds[name] / vectors_a_call
            found.results[name].best = timed.best[name] / vectors_a_call
            found.results[name].ratio = ratio
    if "in matmul" in timed.seconds:
        found.units["matmul seconds"] = timed.seconds["in matmul"]


def _name_units(found: Measurement, figure: str, units: Units, record: ProblemRecord) -> None:
    """Convert the matrix product to the limit, and the time of a block to that per vector."""
    if "single" in found.units:
        found.units["single"] /= COLUMNS
    seconds = found.units.pop("matmul seconds", None)
    if seconds is not None:
        prepared = units["matmul"][2]
        record.speed, record.fastest_product = prepared.work / seconds, prepared.form
        share = record.multiply_adds[figure] / prepared.work
        found.units["limit"] = found.units.pop("matmul") / share


def _gradients(
    workers: Mapping[str, Worker],
    absent: Mapping[str, Result],
    units: Units,
    plan: Plan,
) -> Measurement:
    """The time of one gradient in each implementation.

    That of the plain Keras model, the unit for hvp, runs before each other.
    """
    found = Measurement(results=dict(absent))
    if "gradient" not in units:
        return found
    others: dict[str, Turn] = {}
    length = 0.0
    for name, worker in workers.items():
        if name in (OURS.name, NAIVE.name):
            continue
        try:
            prepared = worker.ask("prepare", "gradient")
        except WorkerError as error:
            found.results[name] = Result("failed", note=str(error))
            continue
        found.results[name] = Result("ok", form=prepared.form)
        others[name] = _turn(worker, "gradient", prepared, plan)
        length += max(plan.turn, prepared.seconds)
    worker, figure, prepared = units["gradient"]
    rounds = rounds_in(plan.budget, 2 * length, plan.rounds)
    timed = interleave(_turn(worker, figure, prepared, plan), others, rounds)
    found.rounds = rounds
    found.results[NAIVE.name] = Result("ok", seconds=timed.ours, form=prepared.form)
    for name in others:
        found.results[name].seconds = timed.seconds[name]
        found.results[name].best = timed.best[name]
        found.results[name].ratio = timed.ratios[name]
    return found


def _ask_all(workers: Mapping[str, Worker], method: str, *arguments: object) -> None:
    for worker in workers.values():
        # A worker that has died is reported when a result of it is needed.
        with contextlib.suppress(WorkerError):
            worker.ask(method, *arguments)


def _memories(
    problem: Problem,
    entries: Iterable[Entry],
    plan: Plan,
    record: ProblemRecord,
    progress: Progress,
) -> None:
    for entry in entries:
        for figure in plan.memory if entry is OURS else plan.memory_of_peers:
            if figure == "eigsh" and problem.size < EIGSH_MEMORY_MIN_PARAMETERS:
                continue
            form = _form(record, figure, entry.name)
            if form is None:
                continue
            progress(f"{problem.title}: memory of {entry.title}, {figure}")
            try:
                with Worker(entry.name) as worker:
                    worker.wait_until_ready()
                    peak = worker.ask("peak", problem.name, figure, form)
            except WorkerError as error:
                record.notes.append(f"memory of {entry.name}, {figure}: {error}")
            else:
                record.memory.setdefault(figure, {})[entry.name] = peak


def _form(record: ProblemRecord, figure: str, name: str) -> str | None:
    """The form whose memory is measured: the one that was timed."""
    if figure == "eigsh":
        return "eigsh"
    result = record.figures[figure].results.get(name)
    return result.form if result is not None and result.form else None

"""The measurements of a case: prepare the calls, compare the products, time them in turns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hvp.benchmark import machine_load
from hvp.benchmark.entries import NAIVE, OURS, Entry
from hvp.benchmark.implementation import BLOCKS, COLUMNS, PRODUCTS, Case
from hvp.benchmark.process import Worker, WorkerError
from hvp.benchmark.records import CaseRecord, Measurement, Result
from hvp.benchmark.server import Prepared
from hvp.benchmark.timing import Interleaved, Turn, calls_in, interleave, rounds_in

Progress = Callable[[str], None]
# The product (P, 1) of a figure by other means, or first and last column (P, 2); None without one.
Reference = Callable[[str], np.ndarray | None]

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
LAYERS = Plan(7, 6.0, 0.05, (*PRODUCTS, *BLOCKS), PRODUCTS, (), 1)
QUICK = Plan(3, 3.0, 0.03, PRODUCTS, (), (), 1)
SMALLEST = Plan(3, 0.1, 0.001, (*PRODUCTS, *BLOCKS), ("hvp",), (), 1)

Units = dict[str, tuple[Worker, str, Prepared]]


def steps(plan: Plan, num_entries: int) -> int:
    """How often `measure` reports progress for a case, at most."""
    return 2 + len(plan.figures) + len(plan.memory) + (num_entries - 1) * len(plan.memory_of_peers)


def measure(
    case: Case,
    entries: Sequence[Entry],
    plan: Plan,
    progress: Progress,
    *,
    record: CaseRecord | None = None,
    reference: Reference = lambda figure: None,
    threads: int | None = None,
) -> CaseRecord:
    """All figures of one case for `entries`, hvp first and naive TensorFlow among them.

    They are written into `record` one by one: it holds what was measured before an interruption.
    """
    record = CaseRecord(case.title) if record is None else record
    with contextlib.ExitStack() as stack:
        progress(f"{case.title}: starting")
        absent, workers = start(entries, case, stack, threads)
        if OURS.name in workers:
            record.parameters = workers[OURS.name].ask("parameters")
            record.batch = workers[OURS.name].ask("examples")
        of_case = _Case(case, workers, absent, plan, record, reference)
        for figure in plan.figures:
            if figure in BLOCKS and 4 * COLUMNS * record.parameters > MAX_BLOCK_BYTES:
                record.notes.append(f"{figure} left out: blocks of {COLUMNS} vectors are too large")
                continue
            progress(f"{case.title}: {figure}")
            record.figures[figure] = of_case.figure(figure)
            if figure in BLOCKS:
                _ask_all(workers, "release", figure)
        progress(f"{case.title}: gradient")
        record.figures["gradient"] = _gradients(workers, absent, of_case.units, plan)
    _memories(case, entries, plan, record, progress, threads)
    return record


def start(
    entries: Iterable[Entry], case: Case, stack: contextlib.ExitStack, threads: int | None = None
) -> tuple[dict[str, Result], dict[str, Worker]]:
    """The results of entries that cannot be measured, and the workers of the others.

    The workers have loaded the case.
    """
    absent: dict[str, Result] = {}
    workers: dict[str, Worker] = {}
    for entry in entries:
        reason = entry.missing()
        if reason is None:
            workers[entry.name] = stack.enter_context(entry.worker(threads=threads))
        else:
            absent[entry.name] = Result("missing", note=reason)
    for name, worker in list(workers.items()):
        try:
            worker.wait_until_ready()
            worker.ask("load", case)
        except WorkerError as error:
            absent[name] = Result("failed", note=str(error))
            del workers[name]
    return absent, workers


class _Case:
    """One case in its workers.

    Attributes:
        units: the calls in naive TensorFlow's worker that serve as units for the products of hvp.
    """

    def __init__(
        self,
        case: Case,
        workers: dict[str, Worker],
        absent: dict[str, Result],
        plan: Plan,
        record: CaseRecord,
        reference: Reference,
    ):
        self._case, self._workers, self._absent = case, workers, absent
        self._plan, self._record, self._reference = plan, record, reference
        self.units: Units = {}
        self._has_units = False

    def figure(self, figure: str) -> Measurement:
        """A figure by all implementations: prepared, compared, and timed in turns."""
        found, ready = Measurement(results=dict(self._absent)), dict[str, Prepared]()
        ours: np.ndarray | None = None
        for name, worker in self._workers.items():
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
                self._record.first[name] = prepared.first
            refused = "; ".join(f"{form} refused: {why}" for form, why in prepared.refused.items())
            found.results[name] = Result("ok", form=prepared.form, note=refused)
            if name == OURS.name:
                ours = columns
            elif ours is not None:
                judge(found, name, columns, ours)
        if ours is None:
            return found
        self._confirm(found, figure, ours)
        self._count(figure)
        self._time(found, figure, ready)
        return found

    def _confirm(self, found: Measurement, figure: str, ours: np.ndarray) -> None:
        """Compare with the reference; without any that agrees, with central differences."""
        reference = self._reference(figure)
        if reference is not None:
            judge_ours(found, reference, ours)
        if found.confirmed_by or found.results[OURS.name].status != "ok":
            return
        try:
            reason = self._workers[OURS.name].ask("certified")
        except WorkerError as error:
            self._record.notes.append(f"{figure} is confirmed by no other: {error}")
            return
        if reason:
            found.results[OURS.name].status = "wrong"
            found.results[OURS.name].note = reason
        else:
            found.confirmed_by.append("central differences")

    def _count(self, figure: str) -> None:
        """Count the multiply-adds of a product; at the first one, prepare the units."""
        shape = (0, 0, 0)
        if figure in PRODUCTS:
            counted, shape = self._workers[OURS.name].ask("counted", figure)
            self._record.multiply_adds[figure] = counted
        if self._has_units or NAIVE.name not in self._workers:
            return
        self._has_units, worker = True, self._workers[NAIVE.name]
        names = ["gradient", "empty"]
        if figure in PRODUCTS and all(shape):
            worker.ask("multiply_by", shape)
            names.append("matmul")
        for name in names:
            try:
                prepared = worker.ask("prepare", name)
            except WorkerError as error:
                self._record.notes.append(f"{name} failed: {error}")
                continue
            self.units[name] = worker, name, prepared
            for form, reason in prepared.refused.items():
                self._record.notes.append(f"{name}, {form} refused: {reason}")

    def _time(self, found: Measurement, figure: str, ready: dict[str, Prepared]) -> None:
        workers, plan = self._workers, self._plan
        turns = {name: _turn(workers[name], figure, ready[name], plan) for name in ready}
        unit_turns, seconds = _unit_turns(figure, workers, self.units, plan)
        seconds += sum(max(plan.turn, prepared.seconds) for prepared in ready.values())
        first = turns.pop(OURS.name)
        rounds = rounds_in(plan.budget, 2 * seconds, plan.rounds)
        pids = [worker.pid for worker in workers.values()]
        before = machine_load.usage(pids)
        timed = interleave(first, {**turns, **unit_turns}, rounds)
        found.others_load = machine_load.of_others(before, machine_load.usage(pids))
        enter(found, figure, timed)
        _name_units(found, figure, self.units, self._record)


def judge(found: Measurement, name: str, theirs: np.ndarray, ours: np.ndarray) -> None:
    """Mark a product as wrong if it differs from that of hvp; else it confirms that of hvp."""
    result = found.results[name]
    result.error = relative_difference(theirs, ours)
    if result.error <= AGREEMENT:
        found.confirmed_by.append(name)
    else:
        result.status = "wrong"


def judge_ours(found: Measurement, by_hand: np.ndarray, ours: np.ndarray) -> None:
    """Mark the product of hvp as wrong if it differs from the reference, computed by hand."""
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


def _turn(worker: Worker, figure: str, prepared: Prepared, plan: Plan) -> Turn:
    calls = calls_in(plan.turn, prepared.seconds)
    return lambda: worker.ask("time", figure, calls)


def _unit_turns(
    figure: str, workers: Mapping[str, Worker], units: Units, plan: Plan
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


def _name_units(found: Measurement, figure: str, units: Units, record: CaseRecord) -> None:
    """Convert the matrix product to the limit, and the time of a block to that per vector."""
    if "single" in found.units:
        found.units["single"] /= COLUMNS
    seconds = found.units.pop("matmul seconds", None)
    if seconds is not None:
        prepared = units["matmul"][2]
        record.speed, record.fastest_product = prepared.work / seconds, prepared.form
        in_matmul, counted = found.units.pop("matmul"), record.multiply_adds[figure]
        if counted:
            found.units["limit"] = in_matmul / (counted / prepared.work)


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
    case: Case,
    entries: Iterable[Entry],
    plan: Plan,
    record: CaseRecord,
    progress: Progress,
    threads: int | None,
) -> None:
    for entry in entries:
        for figure in plan.memory if entry.name == OURS.name else plan.memory_of_peers:
            if figure == "eigsh" and record.parameters < EIGSH_MEMORY_MIN_PARAMETERS:
                continue
            form = _form(record, figure, entry.name)
            if form is None:
                continue
            progress(f"{case.title}: memory of {entry.title}, {figure}")
            try:
                with entry.worker(threads=threads) as worker:
                    worker.wait_until_ready()
                    peak = worker.ask("peak", case, figure, form)
            except WorkerError as error:
                record.notes.append(f"memory of {entry.name}, {figure}: {error}")
            else:
                record.memory.setdefault(figure, {})[entry.name] = peak


def _form(record: CaseRecord, figure: str, name: str) -> str | None:
    """The form whose memory is measured: the one that was timed."""
    if figure == "eigsh":
        return "eigsh"
    if figure not in record.figures:
        return None
    result = record.figures[figure].results.get(name)
    return result.form if result is not None and result.form else None

"""The workers: started, asked all together, and their answers added in a fixed order."""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import ray

from hvp.cluster.connection import Connection
from hvp.cluster.state import Call, Job, Place, Report, WorkerState
from hvp.cluster.worker import Worker
from hvp.errors import Finding, InputError, WorkerError

# A worker that has not answered after so many seconds, or so many times the others, is reported.
PATIENCE_SECONDS, PATIENCE_FACTOR = 60.0, 10.0
# So many times the time of the others, for each example, is slow; of the last products.
SLOW_FACTOR, NUM_TIMED, MIN_TIMED, MIN_SECONDS = 2.0, 15, 3, 0.01


class Workers:
    """The workers of a job.

    Args:
        job: what they compute.
        num_cpus: the threads of each.
        max_restarts: how often each may die and be started again.
        connection: to Ray.
    """

    def __init__(
        self,
        job: Job,
        *,
        num_cpus: int,
        max_restarts: int,
        connection: Connection,
    ):
        self.count, self._max_restarts, self._connection = len(job.data), max_restarts, connection
        self._job = ray.put(job)
        actor = ray.remote(Worker).options(
            num_cpus=num_cpus,
            max_restarts=max_restarts,
            max_task_retries=-1,
            scheduling_strategy="SPREAD",
        )
        self._actors = [actor.remote(number, num_cpus) for number in range(self.count)]
        self._places: dict[int, Place] = {}
        for number in range(self.count):
            self._start(number)
        self._reports: list[Report | None] = [None] * self.count
        self._restarts = [0] * self.count
        self._seconds: list[deque[float]] = [deque(maxlen=NUM_TIMED) for _ in self._actors]
        self.num_batches, self.num_examples = [0] * self.count, [0] * self.count

    @property
    def states(self) -> tuple[WorkerState, ...]:
        """What is known of each worker."""
        return tuple(
            WorkerState(
                number=number + 1,
                node=report.node if report else "",
                pid=report.pid if report else 0,
                num_batches=self.num_batches[number],
                num_examples=self.num_examples[number],
                restarts=self._restarts[number],
                seconds=median(self._seconds[number] or [np.nan]),
            )
            for number, report in enumerate(self._reports)
        )

    @property
    def findings(self) -> list[Finding]:
        """Workers that were started again, and workers that are slow."""
        found = []
        for state in self.states:
            place = f"worker {state.number} of {self.count} on {state.node}"
            if state.restarts:
                message = f"died and was started again, {state.restarts} times so far"
                found.append(Finding("note", place, message, remedy="look at its memory"))
            others = [s for s in self.states if s.number != state.number and s.num_examples]
            if min(len(times) for times in self._seconds) < MIN_TIMED or not others:
                continue
            usual = median(s.seconds / s.num_examples for s in others) * state.num_examples
            if state.seconds > max(SLOW_FACTOR * usual, MIN_SECONDS):
                message = (
                    f"slow: a product takes {state.seconds:.2g} s where the others would take "
                    f"{usual:.2g} s, and all wait for it"
                )
                found.append(Finding("note", place, message, remedy="look at its load"))
        return found

    def neighbours(self) -> tuple[int, ...]:
        """The number of workers on the machine of each."""
        references = [actor.node.remote() for actor in self._actors]
        self._wait(references)
        nodes = [self._get(number, reference) for number, reference in enumerate(references)]
        return tuple(map(Counter(nodes).__getitem__, nodes))

    def gather(self, call: Call, array: np.ndarray | None = None) -> list[Any]:
        """The answers of all workers, in their order."""
        return self._answered(call, array, lambda answers: answers, timed=False)

    def total(self, call: Call, array: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
        """The sum of the answers of all workers, added by pairs in float64: ((1 + 2) + (3 + 4)).

        The order is that of the workers, whichever is first.
        """
        last = self._answered(call, array, self._added_by_pairs, timed=True)
        if len(last) == 1:
            return np.array(last[0], dtype)
        return np.add(*last, dtype=np.float64).astype(dtype, copy=False)

    def _added_by_pairs(self, terms: list[Any]) -> list[Any]:
        """References to two sums, or to a single term, of the answers referred to.

        Each addition runs in the worker that has the first term.
        """
        stride = 1
        while len(terms) > 2:
            pairs = [terms[i : i + 2] for i in range(0, len(terms), 2)]
            stride *= 2
            terms = [
                self._actors[number * stride].plus.remote(*pair) if len(pair) == 2 else pair[0]
                for number, pair in enumerate(pairs)
            ]
        return terms

    def _answered(
        self,
        call: Call,
        array: np.ndarray | None,
        combine: Callable[[list[Any]], list[Any]],
        *,
        timed: bool,
    ) -> list[Any]:
        """The answers, combined before they are there. The array is stored once for all workers.

        Where a worker has started again, it is given its job, and all are asked again.
        """
        if not self._actors:
            raise InputError("an open linearization", "one that was closed", "make another")
        stored = None if array is None else ray.put(array)
        while True:
            pairs = [
                actor.run.options(num_returns=2).remote(call, stored) for actor in self._actors
            ]
            answers, reports = zip(*pairs, strict=True)
            combined = combine(list(answers))
            if self._settle(reports, timed=timed):
                return [self._get(number, answer) for number, answer in enumerate(combined)]

    @staticmethod
    def store(value: Any) -> Any:
        """A reference to a value, which stays in the object store as long as the reference."""
        return ray.put(value)

    def add_place(self, place: Place) -> None:
        """Let all workers know a place."""
        self._places[place.number] = place
        for actor in self._actors:
            actor.add_place.remote(place)

    def forget(self, place: int) -> None:
        """Free the memory of a place in all workers."""
        self._places.pop(place, None)
        for actor in self._actors:
            actor.forget.remote(place)

    def close(self) -> None:
        """Stop the workers, and the cluster if it was started for them."""
        if ray.is_initialized():
            for actor in self._actors:
                ray.kill(actor)
        self._actors = []
        self._connection.close()

    def _start(self, number: int) -> None:
        """Give a worker its job and all places."""
        self._actors[number].start.remote([self._job], list(self._places.values()))

    def _settle(self, references: Sequence[Any], *, timed: bool) -> bool:
        """Wait for the reports, and note what they say: whether all have answered.

        Raises the first error among them.
        """
        self._wait(references)
        reports = [self._get(number, reference) for number, reference in enumerate(references)]
        for number, report in enumerate(reports):
            self._reports[number] = report
            if report.is_new:
                self._restarts[number] += 1
                self._seconds[number].clear()  # its next product traces
                self._start(number)
            elif timed:
                self._seconds[number].append(report.seconds)
        for report in reports:
            if report.failure is not None:
                raise report.failure.error()
        return not any(report.is_new for report in reports)

    def _wait(self, references: Sequence[Any]) -> None:
        """Wait until all are there; warn of those that are late."""
        known = [time for times in self._seconds for time in times]
        patience = max(PATIENCE_SECONDS, PATIENCE_FACTOR * max(known, default=0.0))
        _, late = ray.wait(list(references), num_returns=len(references), timeout=patience)
        if not late:
            return
        named = [self._named(i) for i, each in enumerate(references) if each in late]
        warnings.warn(
            f"no answer for {patience:.0f} s from {'; '.join(named)}. It goes on waiting",
            stacklevel=2,
        )

    def _get(self, number: int, reference: Any) -> Any:
        try:
            return ray.get(reference)
        except ray.exceptions.RayActorError as error:
            raise WorkerError(
                f"expected {self.count} workers, got none for the share of {self._named(number)}, "
                f"which died {self._max_restarts + 1} times; look at its memory, take more workers "
                "or smaller batches, or raise max_restarts"
            ) from error

    def _named(self, number: int) -> str:
        """A worker by its number, its batches and its machine."""
        report, first = self._reports[number], sum(self.num_batches[:number]) + 1
        last = first + self.num_batches[number] - 1
        share = f", batches {first} to {last}" if last >= first else ""
        place = f" on {report.node}, process {report.pid}" if report else ""
        return f"worker {number + 1} of {self.count}{share}{place}"

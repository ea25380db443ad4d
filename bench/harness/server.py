"""The requests that the process of one implementation answers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from bench.backends import implementations
from bench.backends.implementation import COLUMNS, Call, Density, Implementation, Seen
from bench.harness import memory
from bench.measurements import problems

TRIALS = 4
# A form this slow is not called again and again to choose among forms.
SLOW_SECONDS = 0.5
# Products before the peak is read: the first builds, later ones show what stays allocated.
PRODUCTS_FOR_PEAK = 3


@dataclass(frozen=True)
class Prepared:
    """A figure ready to be timed.

    Attributes:
        form: the fastest.
        seconds: roughly, a call.
        first: seconds from the start of building to the first result, of the first form.
        work: multiply-adds of a call where forms differ in them, else 1.
        refused: form -> why it cannot be used.
    """

    form: str
    seconds: float
    first: float
    work: float
    refused: dict[str, str] = field(default_factory=dict)


class Server:
    """The requests that a process answers; each public method is one."""

    def __init__(self, name: str):
        self._kind = implementations.find(name).load()
        self._ready: dict[str, tuple[Call, np.ndarray]] = {}
        # Not a part of what is timed later.
        problems.read_digits()

    def load(self, problem: str) -> None:
        """Build the problem, letting go of the last one."""
        self._ready.clear()
        self._problem = problems.find(problem)
        self._implementation: Implementation = self._kind(self._problem)

    def prepare(self, figure: str) -> Prepared | None:
        """Build a figure in all its forms and keep the fastest; None where there is none."""
        forms = self._implementation.forms(figure)
        own = self._vector(figure)
        best: Prepared | None = None
        first, refused = None, {}
        for form, build in forms.items():
            try:
                begun = time.perf_counter()
                call = build()
                call(own)
                first = first or time.perf_counter() - begun
                seconds = _short_timing(call, own)
            except Exception as error:  # whatever a framework raises for what it cannot do
                refused[form] = line_of(error)
                continue
            work = self._implementation.work(form)
            if best is None or seconds / work < best.seconds / best.work:
                best = Prepared(form, seconds, first, work)
                self._ready[figure] = call, own
        if best is None and refused:
            raise RuntimeError("; ".join(refused.values()))
        return best and Prepared(best.form, best.seconds, best.first, best.work, refused)

    def columns(self, figure: str) -> np.ndarray:
        """The result (P, 1), of a block its first and last column (P, 2), in Keras's layout."""
        call, own = self._ready[figure]
        result = call(own).reshape(len(own), -1)
        chosen = result[:, [0, -1]] if result.shape[1] > 1 else result
        return np.ascontiguousarray(self._implementation.to_shared(chosen))

    def time(self, figure: str, calls: int) -> float:
        """Seconds a call, over some calls."""
        call, own = self._ready[figure]
        begun = time.perf_counter()
        for _ in range(calls):
            call(own)
        return (time.perf_counter() - begun) / calls

    def density(self) -> tuple[Prepared, Seen, np.ndarray]:
        """Build a density and take the first; what it saw, and its probes (P, S).

        `time("density", 1)` takes more of them.
        """
        refused: dict[str, str] = {}
        for form, build in self._implementation.densities().items():
            try:
                begun = time.perf_counter()
                call = build()
                built = time.perf_counter()
                seen = call()
                ended = time.perf_counter()
            except Exception as error:
                refused[form] = line_of(error)
                continue
            self._ready["density"] = _ignoring(call), np.zeros(0)
            starts = self._implementation.to_shared(self._implementation.starts())
            return Prepared(form, ended - built, ended - begun, 1.0, refused), seen, starts
        raise RuntimeError("; ".join(refused.values()))

    def release(self, figure: str) -> None:
        self._ready.pop(figure, None)

    def peak(self, problem: str, figure: str, form: str) -> int:
        """Bytes above the loaded problem and the vector; asked of a fresh process."""
        # What the libraries load once is loaded here.
        self.load("tiny-dense")
        self._implementation.forms(figure)[form]()(self._vector(figure))
        self.load(problem)
        own = self._vector(figure)
        memory.reset_peak()
        resident_before = memory.resident()
        call = self._implementation.forms(figure)[form]()
        for _ in range(1 if figure == "eigsh" else PRODUCTS_FOR_PEAK):
            call(own)
        return memory.peak() - resident_before

    def largest(self, problem: str, figure: str, steps: int | None) -> tuple[float, np.ndarray]:
        """Seconds for the ten largest eigenvalues, the model included, and their vectors."""
        begun = time.perf_counter()
        implementation = self._kind(problems.find(problem))
        vectors = implementation.largest(figure, steps)
        seconds = time.perf_counter() - begun
        return seconds, np.asarray(implementation.to_shared(vectors))

    def _vector(self, figure: str) -> np.ndarray:
        columns = COLUMNS if figure.endswith("_block") else 1
        return self._implementation.to_own(problems.vectors(self._problem, columns))


def _ignoring(density: Density) -> Call:
    return lambda _: density().masses


def _short_timing(call: Call, own: np.ndarray) -> float:
    seconds = []
    for _ in range(TRIALS):
        begun = time.perf_counter()
        call(own)
        seconds.append(time.perf_counter() - begun)
        if seconds[-1] > SLOW_SECONDS:
            break
    return min(seconds)


def line_of(error: Exception) -> str:
    """An error as one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]

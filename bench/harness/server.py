"""The requests that the process of one implementation answers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from bench.backends import implementations
from bench.backends.implementation import COLUMNS, Call, Density, DiscreteDensity, Implementation
from bench.harness import memory
from bench.measurements import problems

TRIALS = 4
# A form slower than this is called only once to choose among the forms.
SLOW_SECONDS = 0.5
# Products before the peak is read: the first compiles, the later ones show what stays allocated.
PRODUCTS_FOR_PEAK = 3


@dataclass(frozen=True)
class Prepared:
    """A figure ready to be timed.

    Attributes:
        form: the name of the fastest form.
        seconds: per call, roughly.
        first: seconds from the start of building the first form to its first result.
        work: multiply-adds of a call if forms differ in them, else 1.
        refused: form -> the reason why it cannot be used.
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
        # Read once here, so that this is not timed later.
        problems.read_digits()

    def load(self, problem: str) -> None:
        """Build the problem and release the previous one."""
        self._ready.clear()
        self._problem = problems.find(problem)
        self._implementation: Implementation = self._kind(self._problem)

    def prepare(self, figure: str) -> Prepared | None:
        """Build a figure in all its forms and keep the fastest; None if there is no form."""
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
            except Exception as error:  # frameworks raise many kinds
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
        """The result (P, 1), or first and last column (P, 2) of a block, in Keras's layout."""
        call, own = self._ready[figure]
        result = call(own).reshape(len(own), -1)
        chosen = result[:, [0, -1]] if result.shape[1] > 1 else result
        return np.ascontiguousarray(self._implementation.to_shared(chosen))

    def time(self, figure: str, calls: int) -> float:
        """Seconds per call, the mean of some calls."""
        call, own = self._ready[figure]
        begun = time.perf_counter()
        for _ in range(calls):
            call(own)
        return (time.perf_counter() - begun) / calls

    def density(self) -> tuple[Prepared, DiscreteDensity, np.ndarray]:
        """Build a density and compute it once; the density and its probes (P, PROBES).

        `time("density", 1)` computes it again.
        """
        refused: dict[str, str] = {}
        for form, build in self._implementation.densities().items():
            try:
                begun = time.perf_counter()
                call = build()
                built = time.perf_counter()
                density = call()
                ended = time.perf_counter()
            except Exception as error:
                refused[form] = line_of(error)
                continue
            self._ready["density"] = _ignoring_vector(call), np.zeros(0)
            probes = self._implementation.to_shared(self._implementation.probes())
            return Prepared(form, ended - built, ended - begun, 1.0, refused), density, probes
        raise RuntimeError("; ".join(refused.values()))

    def release(self, figure: str) -> None:
        """Release a figure that was prepared."""
        self._ready.pop(figure, None)

    def peak(self, problem: str, figure: str, form: str) -> int:
        """Peak bytes above the loaded problem and the vector; needs a fresh process."""
        # A first product on a tiny problem, so that what libraries allocate once does not count.
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
        """Seconds to build the model and find ten eigenvalues, and their vectors (P, 10)."""
        begun = time.perf_counter()
        implementation = self._kind(problems.find(problem))
        vectors = implementation.largest(figure, steps)
        seconds = time.perf_counter() - begun
        return seconds, np.asarray(implementation.to_shared(vectors))

    def _vector(self, figure: str) -> np.ndarray:
        columns = COLUMNS if figure.endswith("_block") else 1
        return self._implementation.to_own(problems.vectors(self._problem, columns))


def _ignoring_vector(density: Density) -> Call:
    return lambda _: density().weights


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

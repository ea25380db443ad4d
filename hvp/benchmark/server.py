"""The requests that the process of one implementation answers."""

from __future__ import annotations

import importlib
import re
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hvp.benchmark import memory
from hvp.benchmark.implementation import COLUMNS, Call, Forms, Implementation, vectors
from hvp.benchmark.layer_cases import TINY

TRIALS = 4
# A form slower than this is called only once to choose among the forms.
SLOW_SECONDS = 0.5
# The beginnings of lines that only say where an error was raised, and what comes before the error
# itself after the lines of a traceback, as AutoGraph writes them into messages.
LOCATIONS = (
    "in user code:",
    "Exception encountered",
    "Graph execution error",
    "Detected at node",
    "<stack traces",
    "File ",
)
AFTER_TRACEBACK = re.compile(r"^\s+(?:\w+\.)*\w+(?:Error|Exception): ", re.MULTILINE)
# What TensorFlow writes into messages for colours and for places in a graph.
MARKS = re.compile(r"\x1b\[[0-9;]*m|\{\{function_node [^}]*\}\}\s*")
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
    """The requests that a process answers; each public method is one.

    Args:
        home: the module and the class of an implementation, as ``module:Class``.

    Attributes:
        warm_up: a small case for what libraries allocate once.
    """

    warm_up: Any = TINY

    def __init__(self, home: str):
        module, _, name = home.partition(":")
        self._kind = getattr(importlib.import_module(module), name)
        self._ready: dict[str, tuple[Call, np.ndarray]] = {}

    def load(self, case: Any) -> None:
        """Build a case and release the previous one."""
        self._ready.clear()
        self._implementation: Implementation = self._kind(case)

    def parameters(self) -> int:
        """P, the number of parameters of the case."""
        return self._implementation.size

    def examples(self) -> int:
        """N, the number of examples of the case."""
        return self._implementation.num_examples

    def prepare(self, figure: str) -> Prepared | None:
        """Build a figure in all its forms and keep the fastest; None if there is no form."""
        refused: dict[str, str] = {}
        for forms in (self._implementation.forms, self._implementation.other_forms):
            found = self._fastest(figure, forms(figure), refused)
            if found is not None:
                return found
        if refused:
            raise RefusedError("; ".join(dict.fromkeys(refused.values())))
        return None

    def _fastest(self, figure: str, forms: Forms, refused: dict[str, str]) -> Prepared | None:
        own = self._vector(figure) if forms else np.zeros(0)
        best: Prepared | None = None
        first = None
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
                best = Prepared(form, seconds, first, work, refused)
                self._ready[figure] = call, own
        return best

    def multiply_by(self, shape: tuple[int, int, int]) -> None:
        """Take products of this shape as the figure "matmul"."""
        self._implementation.matrix_shape = shape

    def counted(self, figure: str) -> tuple[int | None, tuple[int, int, int]]:
        """The multiply-adds of the linear part, and the shape of its largest matrix product."""
        return self._implementation.counted(figure)

    def certified(self) -> str:
        """An empty string where the derivatives agree with differences, else what does not."""
        return self._implementation.certified()

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

    def release(self, figure: str) -> None:
        """Release a figure that was prepared."""
        self._ready.pop(figure, None)

    def peak(self, case: Any, figure: str, form: str) -> int:
        """Peak bytes above the loaded case and the vector; needs a fresh process."""
        # A first product on a tiny case, so that what libraries allocate once does not count.
        self.load(self.warm_up)
        self._form(figure, form)(self._vector(figure))
        self.load(case)
        own = self._vector(figure)
        memory.reset_peak()
        resident_before = memory.resident()
        call = self._form(figure, form)
        for _ in range(1 if figure == "eigsh" else PRODUCTS_FOR_PEAK):
            call(own)
        return memory.peak() - resident_before

    def _form(self, figure: str, form: str) -> Call:
        loaded = self._implementation
        return {**loaded.other_forms(figure), **loaded.forms(figure)}[form]()

    def _vector(self, figure: str) -> np.ndarray:
        columns = COLUMNS if figure.endswith("_block") else 1
        return self._implementation.to_own(vectors(self._implementation.size, columns))


def _short_timing(call: Call, own: np.ndarray) -> float:
    seconds = []
    for _ in range(TRIALS):
        begun = time.perf_counter()
        call(own)
        seconds.append(time.perf_counter() - begun)
        if seconds[-1] > SLOW_SECONDS:
            break
    return min(seconds)


class RefusedError(Exception):
    """Every form of a figure is refused; the message is that of each."""


def line_of(error: Exception) -> str:
    """An error as one line: its type and the first line of its message that tells the cause.

    >>> line_of(ValueError("in user code:\\n\\n    File a.py\\n\\n    TypeError: no shape"))
    'ValueError: no shape'
    """
    cause = AFTER_TRACEBACK.split(MARKS.sub("", str(error)))[-1]
    lines = [line.strip() for line in cause.splitlines() if line.strip()]
    told = next((line for line in lines if not line.startswith(LOCATIONS)), "")
    return (told if isinstance(error, RefusedError) else f"{type(error).__name__}: {told}")[:300]

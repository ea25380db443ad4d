"""The requests that the process of one implementation answers, with those of spectra."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bench.backends.implementation import Density
from bench.measurements import problems
from hvp.benchmark import server
from hvp.benchmark.implementation import Call
from hvp.benchmark.server import Prepared, RefusedError, line_of


class Server(server.Server):
    """The requests that a process answers; each public method is one."""

    warm_up = problems.TINY["tiny-dense"]

    def __init__(self, home: str):
        super().__init__(home)
        # Read once here, so that this is not timed later.
        problems.read_digits()

    def load(self, case: Any) -> None:
        """Build the problem, or the one of this name, and release the previous one."""
        super().load(problems.find(case) if isinstance(case, str) else case)

    def density(self) -> tuple[Prepared, Any, np.ndarray]:
        """Build a density and compute it once; the density and its probes (P, PROBES).

        `time("density", 1)` computes it again.
        """
        refused: dict[str, str] = {}
        loaded: Any = self._implementation
        for form, build in loaded.densities().items():
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
            probes = loaded.to_shared(loaded.probes())
            return Prepared(form, ended - built, ended - begun, 1.0, refused), density, probes
        raise RefusedError("; ".join(dict.fromkeys(refused.values())))

    def largest(self, problem: str, figure: str, steps: int | None) -> tuple[float, np.ndarray]:
        """Seconds to build the model and find ten eigenvalues, and their vectors (P, 10)."""
        begun = time.perf_counter()
        implementation: Any = self._kind(problems.find(problem))
        vectors = implementation.largest(figure, steps)
        seconds = time.perf_counter() - begun
        return seconds, np.asarray(implementation.to_shared(vectors))


def _ignoring_vector(density: Density) -> Call:
    return lambda _: density().weights

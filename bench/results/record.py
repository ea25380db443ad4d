"""The results of a run: plain data, as they are written to JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1
# A result is unsteady if its median is more than this many times its best turn.
UNSTEADY = 1.5


@dataclass
class Result:
    """The result of one implementation for one figure.

    Attributes:
        status: "ok", "wrong", "missing", "failed" or "unavailable" (it has no such figure).
        seconds: per vector, the median over the turns.
        ratio: the time of hvp over its time; None for hvp and if it was not timed.
        error: relative difference from hvp; for hvp, from the float64 product in NumPy.
        form: the form that was timed.
        note: why it failed, what is missing, or which forms were refused.
        best: seconds per vector in the best turn.
    """

    status: str
    seconds: float | None = None
    ratio: float | None = None
    error: float | None = None
    form: str = ""
    note: str = ""
    best: float | None = None

    @property
    def is_unsteady(self) -> bool:
        """Whether the median turn is much slower than the best one."""
        if self.seconds is None or self.best is None:
            return False
        return self.seconds > UNSTEADY * self.best


@dataclass
class Measurement:
    """One figure of one problem in all implementations.

    Attributes:
        results: implementation -> result.
        units: unit -> the time of hvp over that of the unit (gradient, limit, empty, single).
        confirmed_by: the implementations that agree with hvp.
        rounds: the number of rounds.
        others_load: the share of the cores that other programs used, from 0 to 1.
    """

    results: dict[str, Result] = field(default_factory=dict)
    units: dict[str, float] = field(default_factory=dict)
    confirmed_by: list[str] = field(default_factory=list)
    rounds: int = 0
    others_load: float | None = None

    @property
    def fastest(self) -> str | None:
        """The fastest of the other implementations whose status is "ok"; None if there is none."""
        ratios = {
            name: result.ratio
            for name, result in self.results.items()
            if result.status == "ok" and result.ratio is not None
        }
        return max(ratios, key=lambda name: ratios[name]) if ratios else None


@dataclass
class ProblemRecord:
    """All figures of a problem.

    Attributes:
        multiply_adds: those of a gradient, and those of Hv and Gv that depend on v.
        speed: multiply-adds per second of the fastest matrix product.
        fastest_product: the library and the shape of that product.
        first: implementation -> seconds from linearize to the first product.
        memory: figure -> implementation -> peak bytes above the loaded problem.
    """

    title: str
    parameters: int
    batch: int
    multiply_adds: dict[str, int]
    speed: float | None = None
    fastest_product: str = ""
    figures: dict[str, Measurement] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def vectors(self, figure: str, name: str) -> float | None:
        """Peak memory in vectors of P float32 entries."""
        size = self.memory.get(figure, {}).get(name)
        return None if size is None else size / (4 * self.parameters)


@dataclass
class Spectrum(Result):
    """The ten largest eigenvalues; `error` is the largest ‖Av - λv‖ / ‖A‖."""

    values: list[float] = field(default_factory=list)


@dataclass
class SpectraRecord:
    """The ten largest eigenvalues, end to end, of H ("hvp") and of G ("gnvp")."""

    title: str
    norms: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Measurement] = field(default_factory=dict)


@dataclass
class DensityRecord:
    """Spectral densities of H. A result is "ok" if its moments are those of its probes.

    Attributes:
        title: the title of the problem.
        probes: the number of probes of each density.
        steps: the number of Lanczos steps of each probe.
        figure: seconds per density, and relative errors of the moments; the unit "products" is
            the time of the products alone.
        first: implementation -> seconds from the start of building to the first density.
    """

    title: str
    probes: int
    steps: int
    figure: Measurement = field(default_factory=Measurement)
    first: dict[str, float] = field(default_factory=dict)


@dataclass
class Run:
    """A whole run."""

    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    missing: dict[str, str]
    problems: dict[str, ProblemRecord] = field(default_factory=dict)
    spectra: SpectraRecord | None = None
    density: DensityRecord | None = None
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        content = {"schema": SCHEMA, **dataclasses.asdict(self)}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """A description of this machine."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.partition(":")[2] for line in info.read_text().splitlines() if "model name" in line
        ]
        processor = names[0].strip() if names else processor
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }

"""What a run finds: plain data, as it is written to JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1
UNSTEADY = 1.5


@dataclass
class Result:
    """One implementation at one figure.

    Attributes:
        status: "ok", "wrong", "missing", "failed" or "unavailable" (it has no such figure).
        seconds: a vector.
        ratio: seconds of ours over its own; None for ours and for what was not timed.
        best: seconds a vector in its best turn.
        error: relative difference from ours, and of ours from the product by hand.
        form: which of its forms.
        note: why it failed, what is missing, which forms were refused.
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
        """Whether its usual turn is far from its best one."""
        if self.seconds is None or self.best is None:
            return False
        return self.seconds > UNSTEADY * self.best


@dataclass
class Measurement:
    """One figure of one problem, by all.

    Attributes:
        results: by implementation.
        units: ours in gradients, limits, empty calls, single products.
        confirmed_by: who agrees with ours.
        rounds: how many turns.
        others_load: the share of the cores that other programs used meanwhile.
    """

    results: dict[str, Result] = field(default_factory=dict)
    units: dict[str, float] = field(default_factory=dict)
    confirmed_by: list[str] = field(default_factory=list)
    rounds: int = 0
    others_load: float | None = None

    @property
    def fastest(self) -> str | None:
        """Who of the others is right and fastest; the missing, the failed and the wrong are not."""
        able = {
            name: result.ratio
            for name, result in self.results.items()
            if result.status == "ok" and result.ratio is not None
        }
        return max(able, key=lambda name: able[name]) if able else None


@dataclass
class ProblemRecord:
    """All figures of a problem.

    Attributes:
        multiply_adds: of a gradient and of the linear parts.
        speed: multiply-adds a second of the fastest matrix product, and which it was.
        first: seconds from linearize to the first product, by implementation.
        memory: figure -> implementation -> bytes above the loaded problem.
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
    """Ten eigenvalues by one implementation: `error` is the largest true one over the norm."""

    values: list[float] = field(default_factory=list)


@dataclass
class SpectraRecord:
    """Ten eigenvalues end to end, of H ("hvp") and of G ("gnvp")."""

    title: str
    norms: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Measurement] = field(default_factory=dict)


@dataclass
class DensityRecord:
    """Densities of H: "ok" is who has the moments of its probes, and `error` how well.

    Attributes:
        title: of the problem.
        probes: of each.
        steps: of each probe.
        figure: seconds a density; ours in the time of its products alone.
        first: seconds from the start of building to the first density, by implementation.
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
    """What the ratios were measured on."""
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

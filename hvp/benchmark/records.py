"""The results of a run: plain data, as they are written to JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 2
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
class CaseRecord:
    """All figures of a case.

    Attributes:
        parameters: P, and the number of examples.
        multiply_adds: figure -> those that depend on v, None where a loop's length is unknown.
        speed: multiply-adds per second of the fastest matrix product.
        fastest_product: the library and the shape of that product.
        first: implementation -> seconds from linearize to the first product.
        memory: figure -> implementation -> peak bytes above the loaded case.
    """

    title: str
    parameters: int = 0
    batch: int = 0
    multiply_adds: dict[str, int | None] = field(default_factory=dict)
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

    def share_of_speed(self, figure: str) -> float | None:
        """The multiply-adds of a product over those of the fastest matrix product in its time."""
        limit = self.figures[figure].units.get("limit") if figure in self.figures else None
        return None if limit is None else 1 / limit


@dataclass
class Run:
    """A whole run.

    Attributes:
        threads: the number of cores that each process used.
        missing: implementation -> why it was not measured.
        problems: case -> what was measured.
        is_complete: whether it ended by itself.
    """

    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    missing: dict[str, str]
    threads: int = 0
    problems: dict[str, CaseRecord] = field(default_factory=dict)
    seconds: float = 0.0
    is_complete: bool = True

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

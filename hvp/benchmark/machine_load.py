"""The load of other programs during a run: under high load, ratios mean little.

The median is robust against a short load. It is not robust against another program on the same
cores, which slows frameworks with spinning threads several times more than the others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Above this share of the cores, the report gives a warning.
TOLERABLE = 0.05


@dataclass(frozen=True)
class Usage:
    """Wall time, and processor seconds of the whole machine and of our processes, until now."""

    wall: float
    machine: float
    own: float


def usage(pids: Iterable[int]) -> Usage | None:
    """The usage until now; None where the kernel does not report it."""
    try:
        machine = _machine()
        own = sum(_process(pid) for pid in (os.getpid(), *pids))
    except (OSError, ValueError, IndexError):
        return None
    return Usage(time.perf_counter(), machine, own)


def of_others(before: Usage | None, after: Usage | None) -> float | None:
    """The share of the cores that other programs used between two times, from 0 to 1."""
    if before is None or after is None or after.wall <= before.wall:
        return None
    spent = (after.machine - before.machine) - (after.own - before.own)
    cores = len(os.sched_getaffinity(0))
    return min(1.0, max(0.0, spent / ((after.wall - before.wall) * cores)))


def _machine() -> float:
    """Processor seconds that were not idle or waiting; stolen time counts as other programs."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _process(pid: int) -> float:
    """User and system seconds of a process and of its ended children."""
    # The name before the numbers may contain any text, but it ends at the last bracket.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

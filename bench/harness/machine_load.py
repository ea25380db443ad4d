"""The load of other programs during a run: under high load, ratios mean little.

The median forgives a spike. It does not forgive a second program on the same cores: frameworks
whose threads wait for each other in a spin suffer several times more from one than the others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Above this share of the cores the report says so beside the figures.
TOLERABLE = 0.05


@dataclass(frozen=True)
class Usage:
    """Processor seconds so far, of the whole machine and of some processes."""

    wall: float
    machine: float
    own: float


def usage(pids: Iterable[int]) -> Usage | None:
    """Now; None where the kernel keeps no such account."""
    try:
        machine = _machine()
        own = sum(_process(pid) for pid in (os.getpid(), *pids))
    except (OSError, ValueError, IndexError):
        return None
    return Usage(time.perf_counter(), machine, own)


def of_others(before: Usage | None, after: Usage | None) -> float | None:
    """The share of the cores that others used in between, from 0 to 1."""
    if before is None or after is None or after.wall <= before.wall:
        return None
    spent = (after.machine - before.machine) - (after.own - before.own)
    cores = len(os.sched_getaffinity(0))
    return min(1.0, max(0.0, spent / ((after.wall - before.wall) * cores)))


def _machine() -> float:
    """All that was not idle or waiting; what the host took away counts as work of others."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _process(pid: int) -> float:
    """User and system time, with those of its children that have ended."""
    # The name before the numbers may hold anything, but it ends at the last bracket.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

"""The peak of the resident memory of this process, from /proc.

Not `ru_maxrss`, which a process inherits from its parent.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def resident() -> int:
    """Bytes resident now."""
    return _field("VmRSS")


def peak() -> int:
    """The largest number of resident bytes since the start, or since the last `reset_peak`."""
    return _field("VmHWM")


def reset_peak() -> None:
    """Return free memory to the system, and set the peak to the resident bytes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")


def _field(name: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))

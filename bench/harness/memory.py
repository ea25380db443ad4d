"""The most memory that was resident, from the kernel's own account of this process.

Not `ru_maxrss`, which a process inherits from the one that started it.
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
    """The most bytes that were resident since the start, or the last `reset_peak`."""
    return _field("VmHWM")


def reset_peak() -> None:
    """Give back what is free, and let the peak begin at what is resident."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")


def _field(name: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))

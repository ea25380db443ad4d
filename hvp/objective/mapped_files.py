"""Arrays that are memory-mapped files: read in parts, whose pages do not stay in memory."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np


def is_mapped(array: Any) -> bool:
    """Whether an array is a memory-mapped file, or a view of one."""
    return isinstance(array, np.ndarray) and _file(array) is not None


def read_part(array: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Rows of a mapped array, copied into memory.

    The pages that were read are given back to the system: they would count as memory of this
    process. Those of a copy-on-write map stay, since its changes are in no file.
    """
    part = np.array(array[start:stop], subok=False)
    file = _file(array)
    if file is not None and file.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        assert isinstance(file.base, mmap.mmap)
        file.base.madvise(mmap.MADV_DONTNEED)
    return part


def _file(array: Any) -> np.memmap | None:
    """The map of the whole file that an array shows a part of."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
            return array
        array = array.base
    return None

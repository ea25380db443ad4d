"""``compare.npz``: the vectors that a later comparison of the same network starts from."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from hvp.comparison.results import Comparison
from hvp.comparison.start import Start
from hvp.errors import InputError
from hvp.report import json_document

# Networks whose vectors would take more get none.
MAX_BYTES = 64 << 20
# Entries are rounded to three digits: a start needs no more.
DTYPE = np.dtype(np.float16)
REMEDY = "compare without a start"


def save(comparison: Comparison, file: Path | IO[bytes]) -> None:
    """Write the vectors, one for each matrix of each part; none where they would take too much."""
    vectors = dict(Start.of(comparison).vectors)
    if DTYPE.itemsize * sum(map(len, vectors.values())) > MAX_BYTES:
        vectors = {}
    arrays = {
        f"{letter}/{part}": (v / (np.abs(v).max(initial=0.0) or 1.0)).astype(DTYPE)
        for (part, letter), v in vectors.items()
    }
    np.savez(file, allow_pickle=False, **arrays)


def load(path: str | Path) -> Start:
    """The start that ``compare.json`` and ``compare.npz`` beside it hold.

    Raises:
        InputError: one of them is missing, is of another kind, or does not fit the other.
    """
    numbers = json_document.load(path)
    path = Path(path)
    file = (path if path.is_dir() else path.parent) / "compare.npz"
    sizes = {name: part["size"] for name, part in numbers["parts"].items()}
    vectors = {}
    for name, v in _arrays(file).items():
        letter, _, part = name.partition("/")
        if v.dtype != DTYPE or v.shape != (sizes.get(part),) or not np.isfinite(v).all():
            got = f"{name!r} of {v.dtype} and shape {v.shape}"
            raise InputError(f"vectors of the parts of {str(path)!r} in {file.name}", got, REMEDY)
        vectors[part, letter] = v.astype(np.float64)
    if not vectors:
        raise InputError(f"starting vectors in {str(file)!r}", "none", REMEDY)
    return Start(numbers["shapes"], vectors)


def _arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a file. Nothing in it is run."""
    if not file.is_file():
        raise InputError(f"a {file.name} beside the compare.json", f"no {str(file)!r}", REMEDY)
    try:
        with np.load(file, allow_pickle=False) as found:
            return {name: np.asarray(found[name]) for name in found.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(
            f"a {file.name} of vectors", f"{str(file)!r}, which is none", REMEDY
        ) from error

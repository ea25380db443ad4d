"""Checkpoints of a training: their files in order, and short names for them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hvp.errors import InputError

# Endings of files with weights, in the order in which a directory is searched for them.
SUFFIXES = (".weights.h5", ".keras")


def checkpoints(sources: Iterable[str | Path]) -> list[Path]:
    """The files, with those of a directory in its place, in natural order.

    Of a directory these are its ``.weights.h5`` files, or its ``.keras`` files if it has none.
    Raises InputError for a directory without either, for a name of nothing that does not end as
    a file of weights does, and where there is no file at all.
    """
    found: list[Path] = []
    for source in map(Path, sources):
        if not source.exists() and not source.name.endswith(SUFFIXES):
            expected = f"a directory, or a file NAME{' or NAME'.join(SUFFIXES)}"
            raise InputError(expected, f"nothing at {str(source)!r}", "check the path")
        found += _inside(source) if source.is_dir() else [source]
    if not found:
        raise InputError("at least one checkpoint", "none", "give files or a directory")
    return found


def _inside(directory: Path) -> list[Path]:
    for suffix in SUFFIXES:
        found = [path for path in directory.glob(f"*{suffix}") if not path.name.startswith(".")]
        if found:
            return sorted(found, key=lambda path: natural_order(path.name))
    raise InputError(
        f"a directory with files NAME{' or NAME'.join(SUFFIXES)}",
        f"{str(directory)!r} without any",
        "check the path",
    )


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A key that sorts numbers in names by their size.

    >>> sorted(["epoch-10", "epoch-2", "Epoch-1"], key=natural_order)
    ['Epoch-1', 'epoch-2', 'epoch-10']
    """
    # Text and numbers take turns, so that like is compared with like.
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(parts)], name


def short_names(paths: Sequence[Path]) -> list[str]:
    """The names of files without their endings, or the paths where two would be the same.

    >>> short_names([Path("run/epoch-1.weights.h5"), Path("run/last.keras")])
    ['epoch-1', 'last']
    >>> short_names([Path("a/1.keras"), Path("b/1.keras")])
    ['a/1', 'b/1']
    """
    for names in ([_stem(path.name) for path in paths], [_stem(str(path)) for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [f"{i} {path}" for i, path in enumerate(paths, 1)]


def _stem(name: str) -> str:
    return next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)


def numbers(names: Sequence[str]) -> tuple[str, list[float]] | None:
    """What the names count, and the numbers, where one rising number is all that differs.

    >>> numbers(["epoch-1", "epoch-2", "epoch-10"])
    ('epoch', [1.0, 2.0, 10.0])
    >>> numbers(["start", "end"]), numbers(["2", "1"])
    (None, None)
    """
    parts = [re.split(r"(\d+)", name) for name in names]
    if len({len(each) for each in parts}) > 1:
        return None
    differing = [i for i, column in enumerate(zip(*parts, strict=True)) if len(set(column)) > 1]
    if len(differing) != 1 or differing[0] % 2 == 0:
        return None
    place = differing[0]
    found = [float(each[place]) for each in parts]
    if any(after <= before for before, after in itertools.pairwise(found)):
        return None
    return parts[0][place - 1].strip(" -_.="), found

"""What both command lines share: errors in one line, and output paths checked early."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from hvp import InputError
from hvp.resuming.journal import Journal
from hvp.resuming.journal_file import JournalError

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """Print an error as one line and exit: 2 for bad input, 1 for a file, 130 for Ctrl-C."""
    try:
        yield
    except InputError as error:
        typer.echo(" ".join(f"{name}: {error}".split()), err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"{name}: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo(f"{name}: interrupted", err=True)
        raise typer.Exit(130) from None


def check_output_path(path: Path) -> None:
    """Raise InputError if no file can be written at `path`; called before minutes of work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(None, "is a directory")
    except OSError as error:
        raise InputError(
            "a file to write", f"{str(path)!r}: {error.strerror}", "choose another"
        ) from error


@contextlib.contextmanager
def unfinished(
    results: Path, owner: Mapping[str, Any], classes: Iterable[type], *, is_fresh: bool
) -> Iterator[Journal]:
    """A journal of the parts that are done, beside the file of the results.

    It is removed when the block ends without an error. One of other settings, or of other sources
    of hvp and of the benchmark, is not used, which is said.
    """
    owner = {**{name: repr(value) for name, value in owner.items()}, "sources": _sources()}

    def opened(is_fresh: bool) -> Journal:
        path = results.with_suffix(".journal")
        return Journal(path, owner, classes=classes, fresh=is_fresh, say=_say)

    try:
        journal = opened(is_fresh)
    except JournalError as error:
        if error.reason not in ("other", "damaged"):
            raise
        _say(f"unfinished work is not used: {error.got}")
        journal = opened(True)
    if journal.stages:
        _say(f"going on with unfinished work: {len(journal.stages)} parts are done")
    try:
        yield journal
        journal.remove()
    finally:
        journal.close()


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _sources() -> str:
    """A digest of the sources, with which figures change."""
    paths = sorted(path for name in ("hvp", "bench") for path in (ROOT / name).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()

"""What both command lines share: errors in one line, and output paths checked early."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import typer

from hvp import InputError


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

"""Manners of the command lines here: what goes wrong is told in one line, and early."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import typer

from hvp import InputError


@contextlib.contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """What goes wrong as one line and an exit code: 2 bad input, 130 Ctrl-C."""
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


def check_place(path: Path) -> None:
    """Before minutes of work rather than after."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(None, "is a directory")
    except OSError as error:
        raise InputError(
            "a file to write", f"{str(path)!r}: {error.strerror}", "choose another"
        ) from error

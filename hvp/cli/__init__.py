"""The entry point of the command ``hvp``, which imports without the packages of its extra."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings

# The extra "report" of pyproject.toml.
REPORT_PACKAGES = ("jinja2", "markupsafe", "matplotlib", "rich", "typer")


def main() -> None:
    """Run the command line; a missing package is one line on standard error and exit code 2."""
    warnings.filterwarnings("ignore", module="keras")
    _replace_closed_streams()
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        from hvp.cli.commands import app

        app()
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] not in REPORT_PACKAGES:
            raise
        from hvp.errors import missing_report_package

        print(f"hvp: {missing_report_package(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    finally:
        _flush()


def _replace_closed_streams() -> None:
    """Open what was closed at the start, so that no file that is opened later takes its place.

    Writing to such a standard output fails, since it is opened for reading; standard error
    swallows what is written.
    """
    if sys.stdout is None:
        _occupy(1, os.O_RDONLY)
        sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        _occupy(2, os.O_WRONLY)
        sys.stderr = open(2, "w", encoding="utf-8")  # noqa: SIM115


def _occupy(number: int, flags: int) -> None:
    """Open the null device as this file descriptor."""
    opened = os.open(os.devnull, flags)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)


def _flush() -> None:
    """Give up what standard output does not take, which Python would report once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        _occupy(1, os.O_WRONLY)
        with contextlib.suppress(OSError):
            sys.stdout.flush()

"""What surrounds a command: directories, signals, errors in one line, the start of TensorFlow."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperGroup

from hvp import jobs
from hvp.errors import ConvergenceError, InputError

if TYPE_CHECKING:
    from hvp.report.terminal import Terminal

# What a command line raises that no command can take: its class has no public name in Typer.
UsageError: type[Any] = typer.BadParameter.__bases__[0]


class OneLineErrors(TyperGroup):
    """Commands whose errors are one line on standard error."""

    def main(self, *args: Any, **options: Any) -> None:
        with _one_line_errors():
            sys.exit(super().main(*args, **{**options, "standalone_mode": False}))


@contextlib.contextmanager
def directories(wanted: list[Path]) -> Iterator[None]:
    """Create the directories before any work, and remove the new ones that stay empty."""
    made: list[Path] = []
    try:
        for directory in wanted:
            for path in reversed((directory, *directory.parents)):
                if not path.exists():
                    path.mkdir()
                    made.append(path)
            blocked = any(map(Path.is_dir, directory.glob("compare.*")))
            if blocked or not directory.is_dir() or not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError("cannot be written to")
    except OSError as error:
        _remove_empty(made)
        reason = error.strerror or str(error)
        raise InputError(
            "a directory to write to", f"{str(directory)!r}: {reason}", "choose another --out"
        ) from error
    try:
        yield
    finally:
        _remove_empty(made)


def _remove_empty(directories: list[Path]) -> None:
    for directory in reversed(directories):
        with contextlib.suppress(OSError):
            directory.rmdir()


def import_tensorflow(seed: int) -> None:
    """Import TensorFlow without its start-up messages, which C++ writes to descriptor 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _standard_error_captured():
        import keras
        import tensorflow as tf

        tf.constant(0.0)
    import absl.logging

    absl.logging.set_verbosity(absl.logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)


@contextlib.contextmanager
def _standard_error_captured() -> Iterator[None]:
    """Capture what is written to standard error, and write it out if the block fails."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except Exception:
            captured.seek(0)
            os.write(original, captured.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)


@contextlib.contextmanager
def signals(terminal: Terminal) -> Iterator[None]:
    """Turn Ctrl-C and the signal to terminate into an interruption, which removes what was made."""
    before = {
        number: signal.signal(number, terminal.interrupt)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    except KeyboardInterrupt:
        fail_interrupted(terminal.interrupted_by or signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fail_interrupted(number: int) -> NoReturn:
    _fail("terminated" if number == signal.SIGTERM else "interrupted", 128 + number)


@contextlib.contextmanager
def named(place: str | Path) -> Iterator[None]:
    """Name the place in an error of the system, which that of a full disk does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(place)) from error


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Print an error as one line and exit: 1 no convergence or no output, 2 bad input."""
    try:
        yield
    except InputError as error:
        _fail(jobs.message(error), 2)
    except ConvergenceError as error:
        _fail(jobs.message(error), 1)
    except UsageError as error:
        message = error.format_message().rstrip(".")
        command = error.ctx.command_path if error.ctx else "hvp"
        message = jobs.shortened(f"{message[:1].lower()}{message[1:]}", jobs.MAX_MESSAGE_LENGTH)
        _fail(f"{message}; see {command} --help", 2)
    except OSError as error:
        name = "" if error.filename is None else str(error.filename)
        place = f"{jobs.shortened(name, jobs.MAX_MESSAGE_LENGTH // 2)}: " if name else ""
        _fail(f"{place}{error.strerror or error}", 1)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(" ".join(f"hvp: {message}".split()), err=True)
    raise SystemExit(code)

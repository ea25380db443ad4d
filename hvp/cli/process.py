"""What surrounds a command: directories, signals, errors in one line, the start of TensorFlow."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperGroup

from hvp.errors import ConvergenceError, InputError, WorkerError

if TYPE_CHECKING:
    from hvp.report.terminal import Terminal

# Characters of a message, and of its parts where the remedy is long.
MAX_MESSAGE_LENGTH, MIN_PART_LENGTH = 290, 20
# What remedies call by its name in Python -> what to do on the command line.
REMEDIES = {
    r"pass loss=": "give --loss NAME",
    r"use the loss (\w+)": r"give --loss \1",
    r'pass dtype="float64"': "give --dtype float64",
    r"^a budget of": "a --budget of",
    r"^a start with": "a --start-from with",
    r"^compare without a start": "leave --start-from out",
    r"^matrices among": "--matrices among",
    r"^results among": "--parts among",
    r"^a limit of memory of": "a --memory of",
    r"\bdtype=": "--dtype",
    r"\bvariables=": "--layers",
    r"pass batch_size=len\(x\).*": "leave --batch-size out",
    r"\b(add H to|leave) matrices\b": r"\1 --matrices",
    r"write one by hvp\.testing\.record": "write one by --record",
    r"pass training=False": "remove that assignment",
    r"raise cache= if memory allows": "free memory, or take fewer examples",
    r"raise tol, or linearise in float64": "give --dtype float64",
    r"leave jit out, or set it to False": "leave --jit out, or give --jit off",
    r"try ad=.*": "use another operation in its place",
    r"give linearize_function outputs=": "use hvp.linearize_function in Python",
    r", or raise max_restarts": "",
    r"ask for fewer workers|take fewer workers, or smaller batches": "lower --workers",
    r"or leave the address out": "or leave --address out",
    r"check that A is symmetric.*|accept errors up to.*": "lower -k, or give --dtype float64",
}
# What a command line raises that no command can take: its class has no public name in Typer.
UsageError: type[Any] = typer.BadParameter.__bases__[0]


def return_free_memory() -> None:
    """Give what is free to the system, which the C library keeps; only glibc's can."""
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def in_options(text: str) -> str:
    """A remedy for Python, or a text that ends with one, in words of the command line."""
    for python, option in REMEDIES.items():
        text = re.sub(python, option, text)
    return text


def message(error: InputError | ConvergenceError | WorkerError) -> str:
    """The line of an error, in words of the command line; what is long loses its middle."""
    if isinstance(error, ConvergenceError | WorkerError):
        return shortened(in_options(str(error)), MAX_MESSAGE_LENGTH)
    remedy = in_options(error.remedy)
    room = MAX_MESSAGE_LENGTH - len(f"expected , got ; {remedy}")
    expected = shortened(in_options(error.expected), max(2 * room // 3, MIN_PART_LENGTH))
    got = shortened(str(error.got), max(room - len(expected), MIN_PART_LENGTH))
    return shortened(f"expected {expected}, got {got}; {remedy}", MAX_MESSAGE_LENGTH)


def shortened(text: str, length: int) -> str:
    """The text on one line, with its two ends alone where it is longer.

    >>> shortened("one, two, three, four, five", 20)
    'one, tw ... r, five'
    """
    text = " ".join(text.split())
    half = (length - len(" ... ")) // 2
    return text if len(text) <= length else f"{text[:half]} ... {text[-half:]}"


class OneLineErrors(TyperGroup):
    """Commands whose errors are one line on standard error."""

    def main(self, *args: Any, **options: Any) -> None:
        with _one_line_errors():
            sys.exit(super().main(*args, **{**options, "standalone_mode": False}))


@contextlib.contextmanager
def directories(wanted: list[Path], name: str = "compare") -> Iterator[None]:
    """Create the directories before any work, and remove the new ones that stay empty.

    `name` is that of the files that will be written, without their endings.
    """
    made: list[Path] = []
    try:
        for directory in wanted:
            for path in reversed((directory, *directory.parents)):
                if not path.exists():
                    path.mkdir()
                    made.append(path)
            blocked = any(map(Path.is_dir, directory.glob(f"{name}.*")))
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


def say_files(terminal: Terminal, written: Sequence[Path], start: float) -> None:
    """Say which files were written, and the seconds since the start."""
    for path in written:
        terminal.say_path(path)
    terminal.say(
        f"{time.perf_counter() - start:.1f} s in total, including the import of TensorFlow"
    )
    terminal.raise_if_not_shown()


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
    fail("terminated" if number == signal.SIGTERM else "interrupted", 128 + number)


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
        fail(message(error), 2)
    except (ConvergenceError, WorkerError) as error:
        fail(message(error), 1)
    except UsageError as error:
        text = error.format_message().rstrip(".")
        command = error.ctx.command_path if error.ctx else "hvp"
        text = shortened(f"{text[:1].lower()}{text[1:]}", MAX_MESSAGE_LENGTH)
        fail(f"{text}; see {command} --help", 2)
    except OSError as error:
        name = "" if error.filename is None else str(error.filename)
        place = f"{shortened(name, MAX_MESSAGE_LENGTH // 2)}: " if name else ""
        fail(f"{place}{error.strerror or error}", 1)


def fail(message: str, code: int) -> NoReturn:
    """Print an error as one line and exit with a code."""
    typer.echo(" ".join(f"hvp: {message}".split()), err=True)
    raise SystemExit(code)

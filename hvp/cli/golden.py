"""The golden file of `hvp check`: written, or held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hvp.errors import InputError

if TYPE_CHECKING:
    from hvp.linearization.linearization import Linearization
    from hvp.report.terminal import Terminal


@dataclass(frozen=True)
class Outcome:
    """What became of a golden file.

    Attributes:
        passed: whether nothing is otherwise than it should be.
        text: what to say, "" for nothing.
        written: the file that was written.
    """

    passed: bool = True
    text: str = ""
    written: Path | None = None


def check_paths(record: Path | None, against: Path | None) -> None:
    """Raise InputError, before any work, for a file that cannot be written, or is none to compare.

    It needs no TensorFlow.
    """
    from hvp.testing import golden_files

    if record is not None and against is not None:
        raise InputError("one of --record and --against", "both", "record first, compare later")
    if record is not None:
        golden_files.check_writable(record)
    if against is not None:
        golden_files.load(against)


def run(
    lin: Linearization,
    record: Path | None,
    against: Path | None,
    *,
    seed: int,
    is_right: bool,
    terminal: Terminal,
) -> Outcome:
    """Write the golden file, unless the products are wrong, or compare with it."""
    from hvp.testing import golden_files

    if record is not None:
        if not is_right:
            return Outcome(False, f"{record} is not written, as a check failed")
        terminal.start("recording")
        golden_files.record(lin, record, seed=seed)
        return Outcome(written=record)
    if against is None:
        return Outcome()
    terminal.start(f"comparing with {against}")
    report = golden_files.golden_report(against, lin)
    return Outcome(report.passed, f"{against}: {report}" if report.passed else str(report))

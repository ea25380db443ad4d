"""The output of the command line: its progress, and its results on standard output."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from hvp.comparison.costs import StageCost
from hvp.comparison.limits import Fit
from hvp.comparison.results import Comparison
from hvp.progress import Progress as Products
from hvp.report import number_format, summary, terminal_tables

# Columns of an output that is no terminal, such as a file.
FILE_WIDTH = 100
# Where progress is written to no terminal, a line appears this often.
SECONDS_BETWEEN_LINES = 30


class _Output(Console):
    """Standard output. Its first failure is kept, so that results are written nevertheless."""

    failure: OSError | None = None

    def print(self, *objects: Any, **options: Any) -> None:
        if self.failure is not None:
            return
        try:
            super().print(*objects, **options)
        except OSError as error:
            self.failure = error


class Terminal:
    """Shows progress on standard error and results on standard output."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self.console = _Output(quiet=quiet)
        if not self.console.is_terminal:
            self.console.width = FILE_WIDTH
        self._errors = errors = Console(stderr=True, quiet=quiet)
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=errors,
            transient=True,
            # Where standard output is a file, its lines are not for the terminal.
            redirect_stdout=self.console.is_terminal,
            disable=quiet or not errors.is_terminal,
        )
        self._task: TaskID | None = None
        self.interrupted_by = 0
        self.stopped_by = 0
        self._label = self._title = ""
        self._found: deque[str] = deque()
        self._expected: dict[str, StageCost] = {}
        self._all_seconds = self._begun = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Show progress in the block: as a bar, or as lines where standard error is a file."""
        done = threading.Event()
        lines = threading.Thread(target=self._print_lines, args=(done,), daemon=True)
        with self.progress:
            if self.progress.disable:
                lines.start()
            try:
                yield
            finally:
                done.set()
                if self.progress.disable:
                    lines.join()

    def _print_lines(self, done: threading.Event) -> None:
        begun = time.monotonic()
        while not done.wait(SECONDS_BETWEEN_LINES):
            with contextlib.suppress(OSError):
                self._print_found()
                for task in self.progress.tasks:
                    line = f"hvp: {time.monotonic() - begun:.0f} s: {task.description}"
                    if task.total is not None:
                        line += f", {task.completed:.0f} of {task.total:.0f}"
                    if task.fields["detail"]:
                        line += f" ({task.fields['detail']})"
                    self._errors.print(line, highlight=False, markup=False, soft_wrap=True)

    def show_checks(self, rows: Iterable[tuple[str, str, str, str]]) -> None:
        """Print checks, each by name, error, bound and outcome."""
        self.console.print(terminal_tables.checks_table(rows))

    def start(self, description: str, total: int | None = None) -> None:
        """Replace the progress bar by a new one; without a total it shows no percentage."""
        self._raise_if_interrupted()
        if self._task is not None:
            self.progress.remove_task(self._task)
        self._task = self.progress.add_task(description, total=total, detail="")
        self._label = ""

    def step(self, description: str, done: int, total: int) -> None:
        """Show the next of `total` steps, and how long those that are left may take."""
        self.start(description, total)
        assert self._task is not None
        if done == 0:
            self._begun = time.monotonic()
        left = (time.monotonic() - self._begun) / max(done, 1) * (total - done)
        detail = f"about {number_format.duration(left)} left" if done else ""
        self.progress.update(self._task, completed=done, detail=detail)

    def show_cost(self, title: str, found: Fit, left_out: Sequence[str]) -> None:
        """Print what a comparison is expected to take, and what was left out for its limits."""
        wanted = found.cost
        batches = "1 batch" if wanted.num_batches == 1 else f"{wanted.num_batches:,} batches"
        costs = ", ".join(
            f"{number_format.duration(cost.alone)} with {letter}"
            for letter, cost in wanted.costs.items()
        )
        self.say(
            f"{title}: {wanted.size:,} parameters, {wanted.num_examples:,} examples in {batches}; "
            f"a product takes {costs}"
        )
        self.console.print(terminal_tables.cost_table(found))
        less = [*left_out, *["fewer examples"] * (found.num_examples < wanted.num_examples)]
        if less:
            self.say(f"Fitted to the limits of time and memory: {'; '.join(less)}.")

    def start_stages(self, title: str, expected: Mapping[str, StageCost]) -> None:
        """Start the progress of a comparison whose stages, by label, take what is expected."""
        self.start(f"{title}: spectra", len(expected))
        self._title, self._expected, self._begun = title, dict(expected), time.monotonic()
        self._all_seconds = sum(each.seconds for each in expected.values())

    def finish_stage(self, result: str) -> None:
        """Count a stage, and print what it found, if anything, with the progress."""
        self.advance()
        self._expected.pop(self._label, None)
        if result:
            self._found.append(f"{self._title}: {self._label}: {result}")
        if not self.progress.disable:
            self._print_found()

    def _time_left(self) -> str:
        """How long the stages that are left take, judged by those that are done."""
        left = sum(each.seconds for each in self._expected.values())
        done = self._all_seconds - left
        if done <= 0:
            return ""
        seconds = left * (time.monotonic() - self._begun) / done
        return f", about {number_format.duration(seconds)} left"

    def _print_found(self) -> None:
        while self._found:
            line = self._found.popleft()
            self._errors.print(line, highlight=False, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Take an interruption as the end of the computation; another one ends the program."""
        self.stopped_by, self.interrupted_by = self.interrupted_by or signal.SIGINT, 0

    def interrupt(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal. It is remembered, since TensorFlow may swallow the exception."""
        self.interrupted_by = number
        raise KeyboardInterrupt

    def _raise_if_interrupted(self) -> None:
        if self.interrupted_by:
            raise KeyboardInterrupt

    def raise_if_not_shown(self) -> None:
        """Raise OSError where standard output did not take all that was printed."""
        failure = self.console.failure
        if failure is not None:
            raise OSError(failure.errno, failure.strerror, "standard output")

    def advance(self) -> None:
        self._raise_if_interrupted()
        if self._task is not None:
            self.progress.advance(self._task)

    def report_products(self, done: Products) -> None:
        """The progress function for `hvp.compare`: what is computed, and its products so far."""
        self._raise_if_interrupted()
        label = self._label = done.label
        if self._task is not None:
            most = self._expected[label].num_products if label in self._expected else 0
            of = f" of about {most:,}" if most >= done else ""
            detail = f"{label}, product {done}{of}{self._time_left()}"
            self.progress.update(self._task, detail=detail)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def say_line(self, text: str) -> None:
        """Print a line that may be longer than the terminal is wide."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def say_path(self, path: Path) -> None:
        self.say_line(f"wrote {path}")

    def _fitted(self, *tables: Table) -> Table:
        """The first of the tables that fits, or the last: no number is cut off."""
        unbounded = self.console.options.update(max_width=1000)
        for table in tables:
            if Measurement.get(self.console, unbounded, table).maximum <= self.console.width:
                return table
        return tables[-1]

    def show(self, comparison: Comparison) -> None:
        accuracy = "" if comparison.accuracy is None else f", accuracy {comparison.accuracy:.2%}"
        self.console.rule(Text(comparison.title, style="bold"))
        self.say(
            f"{comparison.size:,} parameters, {comparison.num_examples:,} examples, "
            f"{comparison.loss_name} {comparison.loss:.6g}{accuracy}, "
            f"|gradient| {comparison.gradient_norm:.3g}, {comparison.dtype}; "
            f"{comparison.num_products:,} products, {comparison.seconds:.1f} s"
        )
        if comparison.unfinished:
            self.console.print(Text(summary.unfinished(comparison), style="bold"))
        if not comparison.passed:
            self.console.print(Text(summary.certificate(comparison), style="bold red"))
        if comparison.parts:
            ranks = (True, True), (False, True), (False, False)
            self.console.print(
                self._fitted(*(terminal_tables.spectra_table(comparison, *w) for w in ranks))
            )
        if comparison.chain_rule:
            tables = (terminal_tables.chain_table(comparison, is_wide) for is_wide in (True, False))
            self.console.print(self._fitted(*tables))
        if comparison.parts:
            tables = (
                terminal_tables.results_table(comparison, is_wide) for is_wide in (True, False)
            )
            self.console.print(self._fitted(*tables))
        if comparison.certificate is not None:
            rows = [check.row for check in comparison.certificate.checks]
            self.console.print(
                terminal_tables.checks_table(rows, "Certificate: derivatives and differences")
            )
        if comparison.parts:
            for paragraph in summary.paragraphs(comparison):
                self.say(" ".join(paragraph))
        for finding in comparison.findings:
            self.say(finding)

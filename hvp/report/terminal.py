"""The output of the command line: progress bars and tables."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
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
from hvp.comparison.part import Part
from hvp.comparison.results import Comparison
from hvp.report import entries, number_format, summary

# Columns of an output that is no terminal, such as a file.
FILE_WIDTH = 100
# Where progress is written to no terminal, a line appears this often.
SECONDS_BETWEEN_LINES = 30
# Significant digits of an eigenvalue, so that the table fits.
DIGITS = 5
# Rows of `entries.errors` that the terminal shows.
SHOWN_RESULTS = (
    "trace", "distance", "negative", "rank", "eigenvalues", "stable", "effective", "condition",
)  # fmt: skip


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
        self.console.print(_checks_table(rows))

    def start(self, description: str, total: int | None = None) -> None:
        """Replace the progress bar by a new one; without a total it shows no percentage."""
        self._raise_if_interrupted()
        if self._task is not None:
            self.progress.remove_task(self._task)
        self._task = self.progress.add_task(description, total=total, detail="")
        self._label = ""

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
        self.console.print(_cost_table(found))
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

    def report_products(self, label: str, count: int) -> None:
        """The progress function for `hvp.compare`: what is computed, and its products so far."""
        self._raise_if_interrupted()
        self._label = label
        if self._task is not None:
            most = self._expected[label].num_products if label in self._expected else 0
            of = f" of about {most:,}" if most >= count else ""
            detail = f"{label}, product {count}{of}{self._time_left()}"
            self.progress.update(self._task, detail=detail)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def say_path(self, path: Path) -> None:
        self.console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)

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
            self.console.print(self._fitted(*(_spectra_table(comparison, *w) for w in ranks)))
        if comparison.chain_rule:
            tables = (_chain_table(comparison, is_wide) for is_wide in (True, False))
            self.console.print(self._fitted(*tables))
        if comparison.parts:
            tables = (_results_table(comparison, is_wide) for is_wide in (True, False))
            self.console.print(self._fitted(*tables))
        if comparison.certificate is not None:
            rows = [check.row for check in comparison.certificate.checks]
            self.console.print(_checks_table(rows, "Certificate: derivatives and differences"))
        if comparison.parts:
            for paragraph in summary.paragraphs(comparison):
                self.say(" ".join(paragraph))
        for finding in comparison.findings:
            self.say(finding)


def _spectra_table(comparison: Comparison, has_errors: bool, has_inner: bool) -> Table:
    """The extreme eigenvalues of all parts, with their errors and with those of rank k or not."""
    k = comparison.k
    title = "Eigenvalues, with errors after ±" if has_errors else "Eigenvalues"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    of_rank = f"#{k}: the eigenvalue of rank {k}, or of the last rank in a smaller layer; "
    table.caption = (
        f"{of_rank if has_inner else ''}"
        "≥ and ≤: bounds, because a cluster is not resolved; "
        "overlap: the share of H's top eigenspace that lies in G's"
    )
    table.caption_justify = "left"
    table.add_column("part", overflow="fold", min_width=12, max_width=20)
    table.add_column("", no_wrap=True, min_width=1)
    headings = ("largest", f"largest #{k}", f"smallest #{k}", "smallest")
    chosen = slice(None) if has_inner else slice(None, None, 3)
    for heading in headings[chosen]:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("overlap", justify="right", no_wrap=True)
    for part in comparison.parts.values():
        overlap = f"{part.overlap:.1%}" if part.angles_by_count else ""
        rows = [
            (letter, _eigenvalue_cells(comparison, part, letter, has_errors)[chosen])
            for letter in part.spectra
        ]
        rows += [("", [""] * len(headings[chosen]))] * (2 - len(rows))
        margins = ((part.name, overlap), (f"P = {part.size:,}", ""), ("", ""))
        for i, ((letter, cells), (left, right)) in enumerate(zip(rows, margins, strict=False)):
            table.add_row(escape(left), letter, *cells, right, end_section=i == len(rows) - 1)
    return table


def _eigenvalue_cells(
    comparison: Comparison, part: Part, letter: str, has_errors: bool
) -> list[str]:
    return [
        found.text(DIGITS, with_error=has_errors).replace("± ", "±")
        for found in entries.outer_and_inner(comparison, part, letter)
    ]


def _chain_table(comparison: Comparison, is_wide: bool) -> Table:
    """The chain rule, with the relative difference of H and G where there is room."""
    table = Table(
        title="Chain rule: quadratic forms of the kernel weights v of each layer",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("v", overflow="fold", min_width=8)
    headings = ("vᵀHv", "vᵀGv", "vᵀRv", "relative difference", "")
    count = len(headings) if is_wide else 3
    for heading in headings[:count]:
        justify: Literal["left", "right"] = "right" if heading else "left"
        table.add_column(heading, justify=justify, no_wrap=bool(heading))
    for layer, *cells in entries.chain_rule(comparison):
        table.add_row(escape(layer), *cells[:count])
    return table


def _results_table(comparison: Comparison, is_wide: bool) -> Table:
    """Results for all parameters with their errors of probes and, with room, of two more kinds."""
    errors = {"probes": "random probes", "depth": "the Krylov depth", "sampling": "sampling"}
    count = 3 if is_wide else 1
    *some, last = (f"of {words}" for words in list(errors.values())[:count])
    table = Table(
        title=f"All parameters: errors {', '.join(some)}{' and ' if some else ''}{last}",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("", overflow="fold")
    for heading in ("value", *list(errors)[:count]):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, *cells in entries.errors(comparison):
        if name.startswith(SHOWN_RESULTS):
            table.add_row(name, *cells[: count + 1])
    floor = number_format.margin(comparison.floor)
    table.add_row("noise floor of products", floor, *count * [number_format.NONE])
    return table


def _cost_table(found: Fit) -> Table:
    """The expected products, seconds and memory of a comparison, a row for each kind of stage."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("expected")
    for heading in ("products", "time", "memory"):
        table.add_column(heading, justify="right")
    share = found.num_examples / found.cost.num_examples
    kinds: dict[str, list[StageCost]] = {}
    for stage, expected in found.cost.stages.items():
        of_layer = "" if stage.part == next(iter(found.cost.stages)).part else " of layers"
        kinds.setdefault(f"{stage.kind}{of_layer}", []).append(expected)
    for kind, each in kinds.items():
        seconds = share * sum(expected.seconds for expected in each)
        count = sum(expected.num_products for expected in each)
        table.add_row(kind, f"{count:,}", number_format.duration(seconds), "")
    table.add_row(
        "all",
        f"{found.cost.num_products:,}",
        number_format.duration(share * found.cost.seconds),
        f"{found.cost.bytes / 1e9:.1f} GB",
    )
    return table


def _checks_table(rows: Iterable[tuple[str, str, str, str]], title: str | None = None) -> Table:
    """A row for each check: name, measured error, bound and outcome."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("check")
    for heading in ("error", "at most"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for name, error, bound, outcome in rows:
        style = "red" if outcome.startswith("failed") else ""
        table.add_row(escape(name), error, bound, Text(outcome, style=style))
    return table

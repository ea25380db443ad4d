"""What the user of the command line sees: progress bars and tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from hvp.report import number_format, summary

if TYPE_CHECKING:
    from hvp.comparison.compare import Comparison
    from hvp.comparison.spectrum import Spectrum
    from hvp.linalg.eigsh import Eigenpairs

NARROW = 100
CERTAIN = ("trace", "distance", "negative", "rank")


class Terminal:
    """What the user sees: progress on standard error, results on standard output."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self.console = Console(quiet=quiet)
        if not self.console.is_terminal:
            self.console.width = NARROW
        errors = Console(stderr=True)
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
        self._task: Any = None
        self._interrupted = False
        self._label = ""

    def show_checks(self, rows: Iterable[tuple[str, str, str, str]]) -> None:
        """Print checks, each by name, error, bound and outcome."""
        self.console.print(_checks_table(rows))

    def start(self, description: str, total: int | None = None) -> None:
        """Show another bar in place of the last; without a total it only moves."""
        self._heed_interrupt()
        if self._task is not None:
            self.progress.remove_task(self._task)
        self._task = self.progress.add_task(description, total=total, detail="")
        self._label = ""

    def interrupt(self, *_: Any) -> None:
        """The handler of Ctrl-C. TensorFlow may swallow what it raises, so it is kept in mind."""
        self._interrupted = True
        raise KeyboardInterrupt

    def _heed_interrupt(self) -> None:
        if self._interrupted:
            raise KeyboardInterrupt

    def advance(self) -> None:
        self._heed_interrupt()
        self.progress.advance(self._task)

    def report_products(self, label: str, count: int) -> None:
        """The progress function for `hvp.compare`: one step a spectrum, counting its products."""
        self._heed_interrupt()
        if label != self._label:
            self._label = label
            self.advance()
        self.progress.update(self._task, detail=f"{label}, product {count}")

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def say_path(self, path: Path) -> None:
        self.console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)

    def _fitting(self, comparison: Comparison) -> Table:
        """The spectra in the width of the screen: a number cut off would be a wrong one."""
        wide = _spectra_table(comparison, narrow=False)
        unbounded = self.console.options.update(max_width=1000)
        if Measurement.get(self.console, unbounded, wide).maximum <= self.console.width:
            return wide
        return _spectra_table(comparison, narrow=True)

    def show(self, comparison: Comparison) -> None:
        accuracy = "" if comparison.accuracy is None else f", accuracy {comparison.accuracy:.2%}"
        self.console.rule(Text(comparison.title, style="bold"))
        self.say(
            f"{comparison.size:,} parameters, {comparison.num_examples:,} examples, "
            f"{comparison.loss_name} {comparison.loss:.6g}{accuracy}, "
            f"|gradient| {comparison.gradient_norm:.3g}, {comparison.dtype}; "
            f"{comparison.num_products:,} products, {comparison.seconds:.1f} s"
        )
        self.console.print(self._fitting(comparison))
        self.console.print(_chain_table(comparison))
        self.console.print(_certainty_table(comparison))
        self.say(" ".join(summary.headline(comparison)))
        for finding in comparison.findings:
            self.say(finding)


def _spectra_table(comparison: Comparison, narrow: bool) -> Table:
    """The ends of all spectra; without the errors where it is to be narrow."""
    k = comparison.k
    title = "Eigenvalues" if narrow else "Eigenvalues, their errors behind ±"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.caption = (
        f"#{k}: the {k}-th from its end, or the last one counted; "
        "≥ and ≤: bounds, where a cluster is not resolved; "
        "overlap: the share of H's top space that lies in G's"
    )
    table.caption_justify = "left"
    table.add_column("part", overflow="fold", min_width=12, max_width=20)
    table.add_column("", no_wrap=True, min_width=1)
    for heading in ("largest", f"largest #{k}", f"smallest #{k}", "smallest"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("overlap", justify="right", no_wrap=True)
    for part in comparison.parts.values():
        margins = ((part.name, f"{part.overlap:.1%}"), (f"P = {part.size:,}", ""), ("", ""))
        for name, (left, right) in zip("HGR", margins, strict=True):
            cells = _ends_cells(getattr(part, name), narrow)
            table.add_row(escape(left), name, *cells, right, end_section=name == "R")
    return table


def _ends_cells(ends: Spectrum, narrow: bool) -> list[str]:
    top, bottom = ends.largest, ends.smallest
    return [
        _outermost("≥", top, -1, narrow),
        _bounded("≥", top, 0, narrow),
        _bounded("≤", bottom, -1, narrow),
        _outermost("≤", bottom, 0, narrow),
    ]


def _bounded(sign: str, pairs: Eigenpairs, inner: int, narrow: bool) -> str:
    """The innermost of some pairs: a bound where they form a cluster that is not resolved."""
    value, error = pairs.values[inner], pairs.errors[inner]
    if pairs.separate.all() or error == 0:
        return _number(value, error, narrow)
    return number_format.bound(value, error, sign)


def _outermost(sign: str, pairs: Eigenpairs, i: int, narrow: bool) -> str:
    value, error = pairs.values[i], pairs.errors[i]
    if pairs.separate[i] or error == 0:
        return _number(value, error, narrow)
    return number_format.bound(value, error, sign)


def _number(value: float, error: float, narrow: bool) -> str:
    """The value to the digit that its error leaves, five significant digits at most."""
    if error == 0 == value:
        return "0"
    text = number_format.known(value, error, 5)
    return text if narrow else f"{text} ±{number_format.margin(error)}"


def _chain_table(comparison: Comparison) -> Table:
    table = Table(
        title="Chain rule: the forms of each layer's own kernel v",
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    table.add_column("v")
    for heading in ("vᵀHv", "vᵀGv", "vᵀRv", "relative difference"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in comparison.chain_rule:
        forms = (f"{form:.6g}" for form in (row.vHv, row.vGv, row.vRv))
        verdict = "equal" if row.equal else "differ"
        table.add_row(escape(row.layer), *forms, f"{row.difference:.1e}", verdict)
    return table


def _certainty_table(comparison: Comparison) -> Table:
    """What is known of the whole, and what each kind of error leaves of it."""
    table = Table(
        title="The whole: standard errors of random probes, of the depth of Lanczos and of data",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("")
    for heading in ("value", "probes", "depth", "other data"):
        table.add_column(heading, justify="right")
    for name, *cells in summary.errors(comparison):
        if name.startswith(CERTAIN):
            table.add_row(name, *cells)
    table.add_row(
        "noise floor of products", number_format.margin(comparison.floor), *3 * [summary.NONE]
    )
    return table


def _checks_table(rows: Iterable[tuple[str, str, str, str]]) -> Table:
    """Checks by name, with what was measured, its bound and what came of it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("check")
    for heading in ("error", "at most"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for name, error, bound, outcome in rows:
        style = "red" if outcome.startswith("failed") else ""
        table.add_row(escape(name), error, bound, Text(outcome, style=style))
    return table

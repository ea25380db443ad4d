"""The tables that the command line prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from hvp.comparison.costs import StageCost
from hvp.comparison.limits import Fit
from hvp.comparison.part import Part
from hvp.comparison.results import Comparison
from hvp.report import entries, number_format

# Significant digits of an eigenvalue, so that the table fits.
DIGITS = 5
# Rows of `entries.errors` that the terminal shows.
SHOWN_RESULTS = (
    "trace", "distance", "negative", "rank", "eigenvalues", "stable", "effective", "condition",
)  # fmt: skip


def spectra_table(comparison: Comparison, has_errors: bool, has_inner: bool) -> Table:
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
            (letter, eigenvalue_cells(comparison, part, letter, has_errors)[chosen])
            for letter in part.spectra
        ]
        rows += [("", [""] * len(headings[chosen]))] * (2 - len(rows))
        margins = ((part.name, overlap), (f"P = {part.size:,}", ""), ("", ""))
        for i, ((letter, cells), (left, right)) in enumerate(zip(rows, margins, strict=False)):
            table.add_row(escape(left), letter, *cells, right, end_section=i == len(rows) - 1)
    return table


def eigenvalue_cells(
    comparison: Comparison, part: Part, letter: str, has_errors: bool
) -> list[str]:
    """The outer and inner eigenvalues of a matrix, of both ends, as text."""
    return [
        found.text(DIGITS, with_error=has_errors).replace("± ", "±")
        for found in entries.outer_and_inner(comparison, part, letter)
    ]


def chain_table(comparison: Comparison, is_wide: bool) -> Table:
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


def results_table(comparison: Comparison, is_wide: bool) -> Table:
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


def cost_table(found: Fit) -> Table:
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


def checks_table(rows: Iterable[tuple[str, str, str, str]], title: str | None = None) -> Table:
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

"""A comparison as the table that consoles and notebooks show."""

from __future__ import annotations

from hvp.comparison.results import Comparison
from hvp.report import entries, summary
from hvp.report.number_format import End
from hvp.tables import Table

Rows = list[tuple[str, ...]]

# The columns of the table, those of the matrices that were compared.
ENDS: tuple[tuple[str, End], ...] = (
    ("H", "largest"), ("G", "largest"), ("R", "largest"), ("H", "smallest"),
)  # fmt: skip
NAMES: dict[End, str] = {"largest": "λ_max", "smallest": "λ_min"}


def table(comparison: Comparison) -> Table:
    """The ends of the spectra of each part, or else vᵀHv by layer, between title and sentences."""
    c = comparison
    accuracy = "" if c.accuracy is None else f", accuracy {c.accuracy:.2%}"
    title = (
        f"{c.title or 'Comparison'}: {c.size:,} parameters, {c.num_examples:,} "
        f"examples, {c.loss_name} {c.loss:.6g}{accuracy}, {c.dtype}"
    )
    notes = [" ".join(sentences) for sentences in summary.paragraphs(c)]
    if not c.passed:
        notes.insert(0, summary.certificate(c))
    if c.unfinished:
        notes.append(summary.unfinished(c))
    notes.append(f"{c.num_products:,} products, {c.seconds:.1f} s")
    headings, rows = _rows_of_parts(c) if c.parts else _rows_of_chain_rule(c)
    return Table(title, headings, rows, notes)


def _rows_of_parts(comparison: Comparison) -> tuple[tuple[str, ...], Rows]:
    columns = [(letter, end) for letter, end in ENDS if letter in comparison.matrices]
    headings = ("part", "P", *(f"{NAMES[end]} of {letter}" for letter, end in columns))
    rows = [
        (
            part.name,
            f"{part.size:,}",
            *(
                entries.eigenvalue(comparison, part, letter, end).text(with_error=False)
                if letter in part.spectra
                else ""
                for letter, end in columns
            ),
        )
        for part in comparison.parts.values()
    ]
    return headings, rows


def _rows_of_chain_rule(comparison: Comparison) -> tuple[tuple[str, ...], Rows]:
    headings = ("v", "vᵀHv", "vᵀGv", "vᵀRv", "relative difference", "")
    return headings, list(entries.chain_rule(comparison))

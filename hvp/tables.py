"""Results as tables: text for a console, HTML for a notebook."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# With line ends, 2,000 characters.
MAX_LINES, MAX_WIDTH = 20, 99
MAX_CELL = 32
GAP = "  "
LEFT_OUT = "…"


@dataclass(frozen=True)
class Table:
    """Rows of cells between a title and notes.

    As many of the first and of the last rows are shown as the text has lines for.

    >>> table = Table("Two layers", ("layer", "P"), [("dense", "12"), ("last", "3")], ["no note"])
    >>> print(table.text())
    Two layers
    layer   P
    dense  12
    last    3
    no note
    >>> table.html()[:54]
    '<table><caption>Two layers</caption><tr><th>layer</th>'
    """

    title: str
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()

    def text(self) -> str:
        """At most 20 lines of 99 characters."""
        lines = [tuple(map(_cut, cells)) for cells in self._cells()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = [_line(cells, widths) for cells in lines]
        return "\n".join([*self._title_lines(), *shown, *self._note_lines()][:MAX_LINES])

    def html(self) -> str:
        """The same rows as an HTML table, escaped, with the notes below."""
        rows, num_headings = self._cells(), 1 if self.headings else 0
        parts = [f"<caption>{html.escape(self.title)}</caption>"]
        parts += [_row(cells, "th") for cells in rows[:num_headings]]
        parts += [_row(cells, "td") for cells in rows[num_headings:]]
        notes = [f"<p>{html.escape(note)}</p>" for note in self.notes]
        return "".join(["<table>", *parts, "</table>", *notes])

    def _title_lines(self) -> list[str]:
        return textwrap.wrap(self.title, MAX_WIDTH, max_lines=3, placeholder=LEFT_OUT)

    def _note_lines(self) -> list[str]:
        most = MAX_LINES // 2
        lines = [line for note in self.notes for line in textwrap.wrap(note, MAX_WIDTH)]
        return lines if len(lines) <= most else [*lines[: most - 1], LEFT_OUT]

    def _cells(self) -> list[Sequence[str]]:
        """The headings and the rows that are shown."""
        headings = [self.headings] if self.headings else []
        taken = len(self._title_lines()) + len(headings) + len(self._note_lines())
        return [*headings, *_ends(self.rows, MAX_LINES - taken)]


class ShownAsTable:
    """A result that consoles and notebooks show as a table."""

    def _table(self) -> Table:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()


def _ends(rows: Sequence[Sequence[str]], most: int) -> list[Sequence[str]]:
    """All rows, or the first and the last with a row of dots between them."""
    if len(rows) <= most:
        return list(rows)
    tail = (most - 1) // 2
    dots = [LEFT_OUT] * len(rows[0])
    return [*rows[: most - 1 - tail], dots, *rows[len(rows) - tail :]]


def _cut(cell: str) -> str:
    cell = " ".join(cell.split())
    return cell if len(cell) <= MAX_CELL else cell[: MAX_CELL - 1] + LEFT_OUT


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """The first cell to the left, the others to the right."""
    first, *others = zip(cells, widths, strict=True)
    aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    line = GAP.join(aligned).rstrip()
    return line if len(line) <= MAX_WIDTH else line[: MAX_WIDTH - 1] + LEFT_OUT


def _row(cells: Iterable[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

"""A track as a table: its columns, and lines that are printed one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hvp.comparison.track_results import Track, TrackedPoint
from hvp.report import number_format, summary

# Significant digits, so that a line fits.
DIGITS, LOSS_DIGITS = 5, 4
GAP, MAX_NAME = "  ", 20
# Characters of a column of lines that are printed before all numbers are known.
WIDTH, WIDTH_OF_MEASURED = 10, 17


@dataclass(frozen=True)
class Column:
    """A heading, the text of a point, and the width where lines are printed one by one."""

    heading: str
    cell: Callable[[TrackedPoint], str]
    width: int = WIDTH


def columns(
    points: Sequence[TrackedPoint], matrix: str, *, with_errors: bool = True
) -> list[Column]:
    """The columns; that of the accuracy where it is known."""
    shown = _measured if with_errors else _alone
    width = WIDTH_OF_MEASURED if with_errors else WIDTH
    has_accuracy = any(point.accuracy is not None for point in points)
    return [
        Column("point", lambda p: p.name, MAX_NAME),
        Column("loss", lambda p: f"{p.loss:#.{LOSS_DIGITS}g}"),
        *[Column("accuracy", lambda p: "" if p.accuracy is None else f"{p.accuracy:.2%}", 8)]
        * has_accuracy,
        Column(f"λ_max of {matrix}", lambda p: shown(p.largest, p.largest_error), width),
        Column(f"λ_min of {matrix}", lambda p: shown(p.smallest, p.smallest_error), width),
        Column("trace", lambda p: shown(p.trace.value, p.trace.stderr), width),
    ]


class Lines:
    """Lines of a table, as points come. They are without errors where these do not fit.

    `names` are those of all points, and `first` the first of them.
    """

    def __init__(self, names: Sequence[str], first: TrackedPoint, matrix: str, width: int):
        name_width = min(max(len("point"), *map(len, names)), MAX_NAME)
        for with_errors in (True, False):
            self._columns = columns([first], matrix, with_errors=with_errors)
            self._widths = [name_width, *(column.width for column in self._columns[1:])]
            if sum(self._widths) + len(GAP) * (len(self._widths) - 1) <= width:
                break

    def heading(self) -> str:
        return self._line([column.heading for column in self._columns])

    def of(self, point: TrackedPoint) -> str:
        return self._line([column.cell(point) for column in self._columns])

    def _line(self, cells: Sequence[str]) -> str:
        first, *others = cells
        name = first if len(first) <= self._widths[0] else f"…{first[1 - self._widths[0] :]}"
        widths = zip(others, self._widths[1:], strict=True)
        aligned = [name.ljust(self._widths[0]), *(cell.rjust(width) for cell, width in widths)]
        return GAP.join(aligned).rstrip()


def title(track: Track) -> str:
    """What was tracked, in one line."""
    name = f"{track.title}: " if track.title else ""
    count = f"{len(track.points):,} point" + "s" * (len(track.points) != 1)
    return (
        f"{name}{track.matrix} at {count}, {track.size:,} parameters, "
        f"{track.num_examples:,} examples, {track.loss_name}, {track.dtype}"
    )


def notes(track: Track) -> list[str]:
    """What the table does not say by itself."""
    found = []
    if not track.passed:
        found.append(summary.of_certificate(track.certificate))
    if track.unfinished:
        found.append(f"Interrupted: without {', '.join(track.unfinished)}.")
    products = sum(point.num_products for point in track.points)
    seconds = number_format.duration(sum(point.seconds for point in track.points))
    return [*found, f"{products:,} products, {seconds}"]


def _measured(value: float, error: float) -> str:
    return number_format.measured(value, error, DIGITS)


def _alone(value: float, error: float) -> str:
    return number_format.known(value, error, DIGITS)

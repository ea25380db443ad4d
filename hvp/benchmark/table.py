"""One table of a run, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from hvp.benchmark.entries import NAIVE, OURS
from hvp.benchmark.implementation import COLUMNS
from hvp.benchmark.machine_load import TOLERABLE
from hvp.benchmark.records import CaseRecord, Measurement, Result, Run

HEADINGS = {
    "hvp": "Hv",
    "gnvp": "Gv",
    "hvp_block": f"Hv of {COLUMNS}",
    "gnvp_block": f"Gv of {COLUMNS}",
}
LEGEND = (
    "ms: milliseconds per vector; ∇L: over one gradient; naive: the same product by "
    "TensorFlow alone; ratio: hvp over naive; GMA: 10⁹ multiply-adds of the linear part; "
    "speed: share of that of the machine's fastest matrix product; peak: memory of a fresh "
    "process above model, data and vector, also in vectors; first: seconds to the first product"
)
COLUMN_HEADINGS = ("ms", "∇L", "naive", "ratio", "GMA", "speed", "peak", "vectors", "first")
UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


def of_run(run: Run) -> Table:
    """A row for the gradient and for each product of each case; empty columns are left out."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", width=22)
    rows = [list(_rows(problem)) for problem in run.problems.values()]
    columns = list(zip_longest(*(row for some in rows for row in some), fillvalue=""))[1:]
    filled = [i for i, column in enumerate(columns, 1) if any(column)]
    for i in filled:
        table.add_column(COLUMN_HEADINGS[i - 1], justify="right", no_wrap=True)
    for problem, some in zip(run.problems.values(), rows, strict=True):
        size = f"{problem.parameters:,} parameters" if problem.parameters else "not measured"
        table.add_row(f"[bold]{escape(problem.title)}[/bold]")
        table.add_row(size)
        for row in some:
            table.add_row(row[0], *(row[i] for i in filled if i < len(row)))
    return table


def notes(run: Run) -> Iterator[str]:
    """What the columns are, and what the table has no room for, a line each."""
    yield LEGEND
    machine = run.machine
    yield (
        f"{machine['processor']}, {run.threads} of {machine['cores']} cores used by each process; "
        + ", ".join(f"{name} {number}" for name, number in run.versions.items())
    )
    for problem in run.problems.values():
        for name, found in problem.figures.items():
            yield from (f"{problem.title}, {line}" for line in _figure_notes(name, found))
        if problem.speed is not None:
            speed = f"{2e-9 * problem.speed:.0f} GFLOP/s"
            yield f"{problem.title}: fastest matrix product {speed}, {problem.fastest_product}"
        yield from (f"{problem.title}: {note}" for note in problem.notes)


def _rows(problem: CaseRecord) -> Iterator[list[str]]:
    gradient = problem.figures.get("gradient", Measurement()).results.get(NAIVE.name)
    for name, heading in HEADINGS.items():
        if name not in problem.figures:
            continue
        figure = problem.figures[name]
        ours, naive = (figure.results.get(entry.name) for entry in (OURS, NAIVE))
        counted = problem.multiply_adds.get(name)
        speed, vectors = problem.share_of_speed(name), problem.vectors(name, OURS.name)
        peak = problem.memory.get(name, {}).get(OURS.name)
        first = problem.first.get(OURS.name) if name == "hvp" else None
        yield [
            f"  {heading}",
            _milliseconds(ours),
            _shown(figure.units.get("gradient"), ".2f"),
            _milliseconds(naive),
            _shown(naive.ratio if naive and naive.status == "ok" else None, ".2f"),
            "unknown" if name in problem.multiply_adds and counted is None
            else _shown(None if counted is None else counted / 1e9, ".3g"),
            _shown(speed, ".0%"),
            "" if peak is None else nbytes(peak),
            _shown(vectors, ".1f"),
            _shown(first, ".2f"),
        ]  # fmt: skip
    if gradient is not None:
        yield ["  gradient", _milliseconds(gradient)]


def _milliseconds(result: Result | None) -> str:
    if result is None or result.status == "unavailable":
        return ""
    if result.seconds is None and result.status == "ok":
        return "untimed"
    if result.seconds is None or result.status == "wrong":
        return f"[red]{result.status}[/red]"
    return f"{1e3 * result.seconds:.4g}"


def _figure_notes(name: str, found: Measurement) -> Iterator[str]:
    heading = HEADINGS.get(name, name)
    if name in HEADINGS and found.confirmed_by:
        yield f"{heading}: confirmed by {', '.join(found.confirmed_by)}; {found.rounds} rounds"
    for entry in (OURS, NAIVE):
        result = found.results.get(entry.name)
        if result is None:
            continue
        error = (
            f", differs by {result.error or 0.0:.0e}"
            if result.status == "wrong" and result.error
            else ""
        )
        if result.note or error:
            said = "" if result.status == "ok" else f"{result.status}{error}"
            yield f"{heading}, {entry.title}: {': '.join(filter(None, (said, result.note)))}"
        if result.is_unsteady:
            best = f"its best turn took {1e3 * (result.best or 0.0):.4g} ms"
            yield f"{heading}, {entry.title}: unsteady, {best}"
    if found.others_load is not None and found.others_load > TOLERABLE:
        yield f"{heading}: others used {found.others_load:.0%} of the cores: repeat it alone"


def _shown(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)


def nbytes(size: int) -> str:
    """Bytes with a unit.

    >>> nbytes(3 << 29), nbytes(700)
    ('1.5 GiB', '700.0 B')
    """
    unit, name = next((pair for pair in UNITS if abs(size) >= pair[0]), UNITS[-1])
    return f"{size / unit:.1f} {name}"

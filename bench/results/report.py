"""Print a run: one table per problem, the eigenvalues, the density and the targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.backends.implementation import LARGEST
from bench.backends.implementations import NAIVE, OURS, find
from bench.measurements import versions
from bench.measurements.targets import Verdict
from bench.results.record import (
    CaseRecord,
    DensityRecord,
    Measurement,
    Result,
    Run,
    SpectraRecord,
)
from hvp.benchmark.machine_load import TOLERABLE

HEADINGS = {"hvp": "Hv", "gnvp": "Gv", "hvp_block": "Hv of 16", "gnvp_block": "Gv of 16"}
WIDTH = 150
# A comparison of versions marks rows that are slower by more than this fraction.
TOLERABLE_LOSS = 0.03
MIB = 2**20
# For smaller vectors, memory is given in MiB: it is mostly that of the framework.
MIN_VECTOR_BYTES = 4 * MIB


def show(run: Run, verdicts: list[Verdict], console: Console) -> None:
    """Print a whole run."""
    if not console.is_terminal:
        console.width = WIDTH
    machine = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in run.machine.items())
    console.print(Text(f"{run.date}; {machine}"))
    console.print(Text(", ".join(f"{name} {number}" for name, number in run.versions.items())))
    for problem in run.problems.values():
        console.rule(Text(problem.title, style="bold"))
        console.print(_problem_table(problem))
        for line in _problem_lines(problem):
            console.print(Text(line))
    if run.spectra is not None:
        console.rule(Text(f"{LARGEST} largest eigenvalues, {run.spectra.title}", style="bold"))
        console.print(_spectra_table(run.spectra))
        for kind, figure in run.spectra.figures.items():
            for line in _disturbed(figure):
                console.print(Text(f"{HEADINGS[kind][0]}: {line}"))
    if run.density is not None:
        console.rule(Text(f"Density of H, {run.density.title}", style="bold"))
        console.print(_density_table(run.density))
        for line in _density_lines(run.density.figure):
            console.print(Text(line))
    for name, reason in run.missing.items():
        console.print(Text(f"missing: {find(name).title} ({reason})", style="yellow"))
    console.rule(Text("Targets", style="bold"))
    console.print(_targets_table(verdicts))


def show_versions(rows: Iterable[versions.Row], console: Console) -> None:
    """Print the comparison of two versions, one row per measurement."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("problem", "measurement"):
        table.add_column(heading)
    for heading in ("new, ms", "old, ms", "new/old", "rounds", "difference"):
        table.add_column(heading, justify="right")
    for row in rows:
        worse = row.ratio > 1 + TOLERABLE_LOSS
        table.add_row(
            row.problem,
            HEADINGS.get(row.measurement, "first Hv"),
            f"{1e3 * row.new:.4g}",
            f"{1e3 * row.old:.4g}",
            f"[red]{row.ratio:.3f} worse[/red]" if worse else f"{row.ratio:.3f}",
            str(row.rounds),
            "" if row.difference is None else f"{row.difference:.0e}",
        )
    console.print(table)


def _problem_table(problem: CaseRecord) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.caption = (
        "milliseconds per vector, and in brackets the time of hvp over that time; "
        "gradients: Hv and Gv over one gradient of the same implementation"
    )
    table.caption_justify = "left"
    table.add_column("", no_wrap=True)
    kinds = [kind for kind in HEADINGS if kind in problem.figures]
    for heading in (*(HEADINGS[kind] for kind in kinds), "gradients", "first, s", "memory"):
        table.add_column(heading, justify="right")
    names = dict.fromkeys(n for kind in kinds for n in problem.figures[kind].results)
    for name in names:
        results = [problem.figures[kind].results.get(name) for kind in kinds]
        table.add_row(
            escape(find(name).title),
            *map(cell, results),
            _in_gradients(problem, name),
            f"{problem.first[name]:.2f}" if name in problem.first else "",
            _memory(problem, name),
        )
    return table


def cell(result: Result | None) -> str:
    """Time and ratio, or the status if there is no time."""
    if result is None or result.status == "unavailable":
        return ""
    if result.seconds is None:
        return result.status
    ratio = "" if result.ratio is None else f" ({result.ratio:.2f})"
    text = f"{1e3 * result.seconds:.4g}{ratio}"
    if result.status == "wrong":
        return f"[red]{text} wrong {result.error:.0e}[/red]".replace("e-0", "e-")
    return text


def in_gradients(problem: CaseRecord, kind: str, name: str) -> float | None:
    """The time of a product over that of a gradient in the same implementation.

    For hvp it is the gradient of the plain Keras model.
    """
    figure = problem.figures.get(kind)
    if figure is None:
        return None
    if name == OURS.name:
        return figure.units.get("gradient")
    result = figure.results.get(name)
    gradients = problem.figures.get("gradient", Measurement()).results
    gradient = gradients.get(name)
    if result is None or gradient is None or not result.seconds or not gradient.seconds:
        return None
    return result.seconds / gradient.seconds


def _in_gradients(problem: CaseRecord, name: str) -> str:
    ratios = [in_gradients(problem, kind, name) for kind in ("hvp", "gnvp")]
    return " / ".join("" if ratio is None else f"{ratio:.2f}" for ratio in ratios).strip(" /")


def _memory(problem: CaseRecord, name: str) -> str:
    parts = []
    for sizes in problem.memory.values():
        if name not in sizes:
            continue
        if 4 * problem.parameters < MIN_VECTOR_BYTES:
            parts.append(f"{sizes[name] / MIB:.0f} MiB")
        else:
            parts.append(f"{sizes[name] / (4 * problem.parameters):.1f} P")
    return " / ".join(parts)


def _problem_lines(problem: CaseRecord) -> Iterator[str]:
    yield f"{problem.parameters:,} parameters, batch {problem.batch}" + _limit(problem)
    for kind, heading in HEADINGS.items():
        figure = problem.figures.get(kind)
        if figure is None:
            continue
        units = ", ".join(f"{value:.2f} of {_unit(unit)}" for unit, value in figure.units.items())
        by = ", ".join(figure.confirmed_by) or "no other"
        yield f"{heading} of hvp: {units or 'not timed'}; confirmed by {by}; {figure.rounds} rounds"
        yield from (f"  {line}" for line in _disturbed(figure))
        for name, result in figure.results.items():
            if result.is_unsteady:
                assert result.best is not None
                best = f"its best turn took {1e3 * result.best:.4g} ms"
                yield f"  {heading}, {find(name).title}: unsteady, {best}"
            if result.note and result.status != "missing":
                yield f"  {heading}, {find(name).title}: {result.status}, {result.note}"
    yield from (f"  {note}" for note in problem.notes)


def _disturbed(figure: Measurement) -> Iterator[str]:
    if figure.others_load is not None and figure.others_load > TOLERABLE:
        yield f"others used {figure.others_load:.0%} of the cores: repeat on a quiet machine"


def _limit(problem: CaseRecord) -> str:
    if problem.speed is None:
        return ""
    speed = f"{2e-9 * problem.speed:.0f} GFLOP/s by {problem.fastest_product}"
    return f"; the limit is {problem.multiply_adds['hvp']:,} multiply-adds for Hv at {speed}"


def _unit(name: str) -> str:
    return {"empty": "an empty call", "gradient": "a gradient", "single": "a single one"}.get(
        name, f"the {name}"
    )


def _spectra_table(spectra: SpectraRecord) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.caption = (
        "seconds from the end of the imports to the vectors, with the building of the model; "
        "error: the largest ‖Av - λv‖ / ‖A‖"
    )
    table.caption_justify = "left"
    table.add_column("", no_wrap=True)
    for kind in spectra.figures:
        for heading in (f"{kind[0].upper()}, s", "hvp over that", "error", ""):
            table.add_column(heading, justify="right")
    for name in dict.fromkeys(n for f in spectra.figures.values() for n in f.results):
        cells = []
        for figure in spectra.figures.values():
            cells += _spectrum_cells(figure.results.get(name))
        table.add_row(escape(find(name).title), *cells)
    return table


def _spectrum_cells(result: Result | None) -> list[str]:
    if result is None or result.seconds is None:
        return [result.status if result is not None else "", "", "", ""]
    remark = result.form if result.status == "ok" else f"{result.status}: {result.note}"
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
    error = "" if result.error is None else f"{result.error:.0e}".replace("e-0", "e-")
    return [f"{result.seconds:.2f}", ratio, error, remark]


def _density_table(density: DensityRecord) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.caption = (
        f"seconds for {density.probes} probes of {density.steps} steps, products already built; "
        "first: with the building of the products; error: that of the moments"
    )
    table.caption_justify = "left"
    table.add_column("", no_wrap=True)
    for heading in ("s", "hvp over that", "first, s", "error"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for name, result in density.figure.results.items():
        seconds, ratio, error, _ = _spectrum_cells(result)
        first = f"{density.first[name]:.1f}" if name in density.first else ""
        remark = result.form if result.status == "ok" else f"{result.form}; {result.status}"
        table.add_row(escape(find(name).title), seconds, ratio, first, error, remark)
    return table


def _density_lines(figure: Measurement) -> Iterator[str]:
    products = figure.units.get("products")
    if products is not None:
        yield f"hvp: {products:.2f} of its products alone; {figure.rounds} rounds"
    yield from _disturbed(figure)
    for name, result in figure.results.items():
        if result.note and result.status != "missing":
            yield f"{find(name).title}: {result.status}, {result.note}"


def _targets_table(verdicts: list[Verdict]) -> Table | Text:
    if not verdicts:
        return Text("none for these problems")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("problem", "figure", "against"):
        table.add_column(heading)
    for heading in ("measured", "target"):
        table.add_column(heading, justify="right")
    table.add_column("")
    table.add_column("")
    words = {True: "[green]met[/green]", False: "[red]missed[/red]", None: "open"}
    for verdict in verdicts:
        target = verdict.target
        against = NAIVE.title if target.against == NAIVE.name else target.against
        table.add_row(
            target.problem,
            target.figure,
            against,
            "" if verdict.value is None else f"{verdict.value:.2f}",
            f"{'<' if target.strict else '≤'} {target.bound:g}",
            words[verdict.met],
            escape(verdict.note),
        )
    return table

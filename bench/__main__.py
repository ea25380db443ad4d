"""The command line of the benchmark: measure, save and print."""

from __future__ import annotations

import contextlib
import datetime
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.backends import implementations
from bench.backends.implementations import NAIVE, OURS, Entry
from bench.backends.reference import by_hand
from bench.command_line import check_output_path, one_line_errors, unfinished
from bench.measurements import densities, problems, spectra, targets, versions
from bench.measurements.problems import Problem
from bench.results import plot, record, report
from hvp import InputError
from hvp.benchmark import entries as entry_table
from hvp.benchmark import measure, process, records
from hvp.resuming.journal import Journal

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
DIRECTORY = Path("bench-results")
END_TO_END = (targets.SPECTRA, targets.DENSITY)


@app.command()
def bench(
    problem: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join((*problems.PROBLEMS, *END_TO_END))}; may be repeated. All by "
            "default.",
        ),
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(
            help=f"all (the default), none, or of {', '.join(implementations.PEERS)}, with commas."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Under three minutes: fewer products, no peers.")
    ] = False,
    json: Annotated[
        Path, typer.Option(help="JSON file of the results.", show_default=True)
    ] = DIRECTORY / "bench.json",
    picture: Annotated[
        Path, typer.Option(help="File of the picture.", show_default=True)
    ] = DIRECTORY / "bench.png",
    against: Annotated[
        Path | None,
        typer.Option(help="Another checkout of hvp: compare its products with these, no peers."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, whatever unfinished work there is.")
    ] = False,
) -> None:
    """Measure the products of hvp and of other libraries, in turns, in one run.

    Interrupted or killed, it keeps the problems that are done; the same command goes on with the
    others.
    """
    console = Console()
    with one_line_errors("bench"):
        chosen, others = _problems(problem, quick)
        if against is not None:
            _compare_versions(chosen, against, quick, console)
            return
        entries = implementations.select(peers or ("none" if quick else "all"))
        for path in (json, picture):
            check_output_path(path)
        run = _empty_run(entries, quick)
        owner = {"machine": run.machine, "versions": run.versions, "settings": run.settings}
        with (
            unfinished(json, owner, record.PARTS, is_fresh=fresh) as journal,
            _kept_if_interrupted(run, json),
            _progress() as progress,
        ):
            _measure(run, chosen, others, entries, progress, journal)
        verdicts = targets.verdicts(run)
        run.verdicts = targets.as_rows(verdicts)
        _save(run, json, picture)
    report.show(run, verdicts, console)
    for path in (json, picture):
        if path.exists():
            console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{run.seconds:.0f} s in all", highlight=False)


def _compare_versions(chosen: list[Problem], checkout: Path, quick: bool, console: Console) -> None:
    old = versions.check_checkout(checkout)
    with _progress() as progress:
        rows = list(versions.compare(chosen, old, _plan(quick), progress))
    report.show_versions(rows, console)


def _plan(quick: bool) -> measure.Plan:
    return measure.QUICK if quick else measure.FULL


def _empty_run(entries: list[Entry], quick: bool) -> record.Run:
    return record.Run(
        date=datetime.date.today().isoformat(),
        machine=records.machine(),
        versions=entry_table.versions(entries),
        threads=process.cores(),
        settings={
            "quick": quick,
            "peers": [entry.name for entry in entries],
            **vars(_plan(quick)),
        },
        missing={entry.name: why for entry in entries if (why := entry.missing()) is not None},
    )


def _measure(
    run: record.Run,
    chosen: list[Problem],
    others: list[str],
    entries: list[Entry],
    progress: measure.Progress,
    journal: Journal,
) -> None:
    """Fill the run, with what is done in the journal taken from there."""
    begun = time.perf_counter()
    plan = _plan(run.settings["quick"])

    def measured(problem: Problem) -> records.CaseRecord:
        run.problems[problem.name] = found = records.CaseRecord(problem.title)
        reference = functools.partial(by_hand, problem)
        with_products = [OURS, NAIVE, *(entry for entry in entries if entry.has_products)]
        measure.measure(problem, with_products, plan, progress, record=found, reference=reference)
        return found

    for problem in chosen:
        run.problems[problem.name] = journal.stage(
            problem.name, functools.partial(measured, problem)
        )
    if targets.SPECTRA in others:
        run.spectra = journal.stage(
            targets.SPECTRA, lambda: spectra.measure(entries, plan, progress)
        )
    if targets.DENSITY in others:
        run.density = journal.stage(
            targets.DENSITY,
            lambda: densities.measure(problems.EIGENVALUES, entries, plan, progress),
        )
    run.seconds = time.perf_counter() - begun


@contextlib.contextmanager
def _kept_if_interrupted(run: record.Run, json: Path) -> Iterator[None]:
    """Write what is measured where Ctrl-C ends the block."""
    try:
        yield
    except KeyboardInterrupt:
        run.is_complete = False
        run.save(json)
        typer.echo(f"wrote {json}, which is incomplete; the same command goes on", err=True)
        raise


@contextlib.contextmanager
def _progress() -> Iterator[measure.Progress]:
    """Show what is measured: in the last line of a terminal, else as lines on standard error."""
    screen = Console(stderr=True)
    if screen.is_terminal:
        with screen.status("starting") as status:
            yield status.update
    else:
        begun = time.perf_counter()
        yield lambda line: typer.echo(f"{time.perf_counter() - begun:5.0f} s  {line}", err=True)


def _problems(wanted: list[str] | None, quick: bool) -> tuple[list[Problem], list[str]]:
    """The chosen problems, and the chosen end-to-end measurements."""
    if not wanted:
        every = problems.PROBLEMS.values()
        return [problem for problem in every if problem.quick or not quick], list(END_TO_END)
    names = list(dict.fromkeys(wanted))
    listed = {**problems.PROBLEMS, **problems.TINY}
    for name in names:
        if name not in END_TO_END and name not in listed:
            known = ", ".join((*problems.PROBLEMS, *END_TO_END))
            raise InputError(f"a --problem among {known}", repr(name), "choose one of these")
    return (
        [listed[name] for name in names if name in listed],
        [name for name in END_TO_END if name in names],
    )


def _save(run: record.Run, json: Path, image: Path) -> None:
    run.save(json)
    plot.save(run, image)


if __name__ == "__main__":
    app(prog_name="python -m bench")

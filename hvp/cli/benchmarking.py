"""The work of `hvp bench`: from options to cases, their measurements and files."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvp.errors import InputError

if TYPE_CHECKING:
    from hvp.benchmark.implementation import Case
    from hvp.benchmark.measure import Plan
    from hvp.benchmark.records import Run
    from hvp.report.terminal import Terminal

DEFAULT_BATCH = 128
JIT = ("auto", "on", "off")


def cases(
    layers: Mapping[str, Sequence[str] | None],
    model: Path | None,
    data: str | None,
    loss: str | None,
    *,
    batch: int | None,
    jit: str,
    seed: int,
) -> list[Case]:
    """What is to be measured, each once, by kind of layer and from files.

    Raises InputError without any.

    It needs no TensorFlow, so that a wrong option or file is reported at once.
    """
    from hvp.benchmark import file_case, layer_cases

    if (model is None) != (data is None):
        given = "--data" if model is None else "--model"
        raise InputError("--model with --data", f"{given} alone", "give both")
    if loss is not None and model is None:
        raise InputError("--model with --loss", "--loss alone", "leave it out")
    found: list[Case] = [
        layer_cases.parsed(kind, text, batch or DEFAULT_BATCH, jit, seed)
        for kind, texts in layers.items()
        for text in texts or []
    ]
    if model is not None and data is not None:
        found.append(file_case.of_files(model, data, loss=loss, batch=batch, jit=jit))
    if not found:
        expected = "--model with --data, or --dense, --conv, --attention or --lstm"
        raise InputError(expected, "none", "say what to measure")
    return list({case.name: case for case in found}.values())


def check_threads(threads: int | None) -> int:
    """The number of cores to use. Raises InputError for more than there are."""
    from hvp.benchmark.process import cores

    if threads is None:
        return cores()
    if not 1 <= threads <= cores():
        raise InputError(f"--threads from 1 to {cores()}", threads, "leave it out for all cores")
    return threads


def run(
    chosen: Sequence[Case], plan: Plan, threads: int, settings: dict[str, Any], terminal: Terminal
) -> Run:
    """Measure the cases. An interruption keeps what is measured; without any it is raised."""
    from hvp.benchmark import entries, measure, records

    measured = [entries.OURS, entries.NAIVE]
    found = records.Run(
        date=datetime.date.today().isoformat(),
        machine=records.machine(),
        versions=entries.versions(measured),
        settings=settings | vars(plan),
        missing={},
        threads=threads,
    )
    begun = time.perf_counter()
    total, done = len(chosen) * measure.steps(plan, len(measured)), 0

    def progress(text: str) -> None:
        nonlocal done
        terminal.step(text, done, total)
        done += 1

    try:
        for number, case in enumerate(chosen):
            done = number * measure.steps(plan, len(measured))
            record = found.problems[case.name] = records.CaseRecord(case.title)
            measure.measure(case, measured, plan, progress, record=record, threads=threads)
    except KeyboardInterrupt:
        if not any(record.figures for record in found.problems.values()):
            raise
        terminal.stop()
        found.is_complete = False
    found.seconds = time.perf_counter() - begun
    return found


def save(found: Run, directory: Path) -> list[Path]:
    """Write ``bench.json`` and ``bench.png``; the files that were written."""
    from hvp.benchmark import picture

    json, image = directory / "bench.json", directory / "bench.png"
    found.save(json)
    return [json, image] if picture.save(found, image) else [json]


def failure(found: Run) -> str:
    """The first product of hvp that failed or was wrong, in a line; empty if there is none."""
    from hvp.benchmark import entries, table

    for problem in found.problems.values():
        for name, heading in table.HEADINGS.items():
            figure = problem.figures.get(name)
            result = None if figure is None else figure.results.get(entries.OURS.name)
            if result is not None and result.status in ("failed", "wrong"):
                return f"{problem.title}, {heading}: {result.status}: {result.note}"
    return ""

"""The work of `hvp compare`: how much fits the limits, and the comparisons of all jobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hvp.cli import linearizing, process, unfinished
from hvp.cli.loading import Job, with_some_examples
from hvp.errors import ConvergenceError, InputError, WorkerError

if TYPE_CHECKING:
    from hvp.comparison.limits import Fit, Limits
    from hvp.comparison.plan import Effort
    from hvp.comparison.results import Comparison
    from hvp.comparison.start import Start
    from hvp.linearization.linearization import Linearization
    from hvp.report.terminal import Terminal
    from hvp.resuming.journal import Journal

# TensorFlow and the programs of a network take about this; of the rest of a limit of memory, this
# share is for saved tensors.
PROCESS_BYTES, CACHE_SHARE = 900 << 20, 1 / 8


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked for: how much is computed of which loss, within which limits.

    `command` is the line as it was typed.
    """

    options: linearizing.Options
    effort: Effort
    limits: Limits
    seed: int
    command: str


def cache_bytes(limits: Limits) -> int:
    """What may be saved between products, so that a process stays within its limit of memory."""
    return int(CACHE_SHARE * max(limits.bytes - PROCESS_BYTES, 0))


def starts(path: Path | None, names: Sequence[str]) -> list[Start | None]:
    """The earlier comparisons of models with these names, None for each without a path."""
    from hvp.report.start_file import load

    if path is None:
        return [None] * len(names)
    if len(names) == 1:
        return [load(path)]
    above = path if path.is_dir() else path.parent
    return [load(above / name / "compare.json") for name in names]


def all_compared(
    work: Sequence[Job], request: Request, journals: Mapping[str, Journal], terminal: Terminal
) -> tuple[dict[str, Comparison], InputError | ConvergenceError | WorkerError | None]:
    """The comparisons by title, and the error that ended the work after the first of them.

    All jobs are linearised before any is compared, so that a wrong one is reported at once. An
    interruption or an error keeps the comparisons that are finished.
    """
    linearizing.connect(request.options, len(work))
    ready = [
        (job, unfinished.linearized(job, request.options, journals[job.title], terminal))
        for job in work
    ]
    found: dict[str, Comparison] = {}
    while ready and not terminal.stopped_by:
        job, lin = ready.pop(0)
        try:
            found[job.title] = compared(job, lin, request, journals[job.title], terminal)
        except (KeyboardInterrupt, InputError, ConvergenceError, WorkerError) as error:
            if not found:
                raise
            if not isinstance(error, KeyboardInterrupt):
                return found, error
            terminal.stop()
    return found, None


def compared(
    job: Job, lin: Linearization, request: Request, journal: Journal, terminal: Terminal
) -> Comparison:
    """The comparison of H, G and R of a job at `lin`: what was computed until an interruption.

    Raises KeyboardInterrupt where nothing was computed before it.
    """
    from hvp.comparison.run import Run
    from hvp.report import summary

    if job.start is not None:
        job.start.check(lin)
    lin, found = fitted(job, lin, request, journal, terminal)
    run = Run(
        lin,
        found.effort,
        seed=request.seed,
        progress=terminal.report_products,
        start=job.start,
        journal=journal,
    )
    of_stages, num_products = len(run.pending), journal.num_products
    while run.pending and journal.has(run.pending[0].label):
        run.step()
    if num_products or len(run.pending) < of_stages:
        terminal.say_line(
            f"{job.title}: going on with unfinished work: {of_stages - len(run.pending)} of "
            f"{of_stages} stages and {num_products:,} products of the next one are done"
        )
    costs = {stage.label: each for stage, each in found.cost.stages.items()}
    terminal.start_stages(job.title, {stage.label: costs[stage.label] for stage in run.pending})
    try:
        while run.pending:
            stage = run.step()
            terminal.finish_stage(summary.of_stage(run, stage))
            process.return_free_memory()
    except KeyboardInterrupt:
        if not run.has_results:
            raise
        terminal.stop()
    result = run.comparison(title=job.title, command=request.command)
    return dataclasses.replace(result, findings=tuple(map(process.in_options, result.findings)))


def fitted(
    job: Job, lin: Linearization, request: Request, journal: Journal, terminal: Terminal
) -> tuple[Linearization, Fit]:
    """The loss and how much of its comparison fits the limits; what that takes is shown.

    Times are measured once: unfinished work keeps to what was chosen when it began.
    """
    from hvp.comparison.costs import measured_costs
    from hvp.comparison.limits import fit, left_out

    k = _most(job, request.effort.k, lin.size, terminal)
    effort = dataclasses.replace(request.effort, k=k)

    def measured() -> Fit:
        terminal.start(f"{job.title}: measuring products")
        found = fit(lin, effort, measured_costs(lin, effort), request.limits)
        terminal.show_cost(job.title, found, left_out(effort, found))
        return found

    found = journal.stage(unfinished.EFFORT, measured)
    if found.num_examples < lin.num_examples:
        job = with_some_examples(job, found.num_examples, request.seed, terminal)
        lin.close()
        process.return_free_memory()
        lin = unfinished.linearized(job, request.options, journal, terminal, " of fewer examples")
    return lin, found


def _most(job: Job, k: int, size: int, terminal: Terminal) -> int:
    """k, or the most eigenvalues that so few parameters have at an end."""
    most = max(size - 1, 1)
    if k <= most:
        return k
    terminal.say(
        f"{job.title}: -k {most:,} instead of {k:,}, as it has {size:,} parameters"
        if size > 1
        else f"{job.title}: -k 1 instead of {k:,}, as it has one parameter"
    )
    return most

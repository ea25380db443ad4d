"""The command `hvp track`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from hvp.cli import linearizing, loading, options, process, tracking, unfinished


def track(
    context: typer.Context,
    model: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="<path>",
            help="The .keras file of the model, which --weights that are no models need.",
        ),
    ] = None,
    data: options.DataOption = None,
    weights: options.WeightsOption = None,
    loss: options.LossOption = None,
    layers: options.LayersOption = None,
    batch_size: options.BatchSizeOption = None,
    matrix: Annotated[str, typer.Option(help="H, G or R: whose curvature to track.")] = "H",
    products: Annotated[
        int, options.number("Products of each trace; more make it more accurate.")
    ] = 96,
    examples: options.ExamplesOption = None,
    rescale: options.RescaleOption = False,
    dtype: options.DtypeOption = None,
    seed: options.SeedOption = 0,
    out: options.OutOption = Path("hvp-track"),
    fresh: options.FreshOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Track the curvature along checkpoints: λ_max, λ_min and trace, with errors, and the loss.

    A line for each checkpoint appears when it is done; track.json, .png and .svg are written at the
    end, and at an interruption with what is finished; the same command then goes on. Without
    --model the first .keras file among the checkpoints is the model; without --data the examples
    are the built-in digits. Exits with 1 if the derivatives at the first checkpoint disagree with
    finite differences.
    """
    start = time.perf_counter()
    from hvp.comparison.checkpoints import short_names
    from hvp.comparison.track import Tracking
    from hvp.report import summary, track_table
    from hvp.report.save import save_track  # a missing package shows before any work
    from hvp.report.terminal import Terminal

    terminal = Terminal(quiet)
    with process.signals(terminal), terminal.running():
        options.check_choice("--matrix", matrix, ("H", "G", "R"))
        options.check_choice("--dtype", dtype, ("float64",))
        paths = tracking.checkpoints(weights or [])
        of_model = tracking.model_of(model, paths)
        options.check_usage(None, [of_model], data, 1, seed, batch_size, rescale)
        options.check_least((("--products", products, 1), ("--examples", examples, 1)))
        read = loading.data_reader(of_model, data)
        of_loss = linearizing.Options(loss, layers, dtype, batch_size)
        points = dict(zip(short_names(paths), paths, strict=True))
        with (
            process.directories([out], "track"),
            unfinished.journals(context, {of_model.stem: out}, terminal) as journals,
        ):
            (journal,) = journals.values()
            terminal.start("importing TensorFlow")
            process.import_tensorflow(seed)
            job = loading.load_job(of_model, read, loss, rescale)
            if examples is not None:
                job = loading.with_some_examples(job, examples, seed, terminal)
            tracker = Tracking(
                unfinished.linearized(job, of_loss, journal, terminal),
                matrix=matrix,
                num_products=products,
                seed=seed,
                progress=terminal.report_products,
                journal=journal,
            )
            terminal.start(f"{job.title}: reading checkpoints", len(points))
            for name, path in points.items():  # a wrong one ends the work before any is measured
                tracker.check(name, path)
                terminal.advance()
            if tracker.num_kept or journal.num_products:
                terminal.say_line(
                    f"{job.title}: going on with unfinished work: {tracker.num_kept} of "
                    f"{len(points)} checkpoints and {journal.num_products:,} products of the next "
                    "one are done"
                )
            terminal.start(f"{job.title}: tracking", len(points))
            failure = tracking.tracked(tracker, points, terminal.console.width, terminal)
            terminal.start("writing")
            result = tracker.track(
                title=job.title,
                command=options.typed_command(context),
                unfinished=list(points)[len(tracker.points) :],
            )
            with process.named(out):
                written = save_track(result, out)
            if failure is None and not terminal.stopped_by:
                journal.remove()
    for line in (track_table.title(result), *track_table.notes(result), *result.findings):
        terminal.say(process.in_options(line))
    process.say_files(terminal, written, start)
    if failure is not None:
        raise failure
    if not result.passed:
        process.fail(f"{result.title}: {summary.of_certificate(result.certificate)}", 1)
    if terminal.stopped_by:
        process.fail_interrupted(terminal.stopped_by)

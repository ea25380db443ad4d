"""The commands of the command line. TensorFlow is imported when a command needs it."""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvp.cli import golden, jobs, options, process
from hvp.errors import InputError

if TYPE_CHECKING:
    from hvp.comparison.results import Comparison
    from hvp.report.terminal import Terminal

app = typer.Typer(
    cls=process.OneLineErrors, add_completion=False, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.callback(invoke_without_command=True)
def hvp(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.")
    ] = False,
) -> None:
    """Matrix-free curvature of Keras models: H, the Gauss-Newton matrix G, and R = H - G."""
    if show_version:
        version()
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command()
def version() -> None:
    """Print the version."""
    from hvp import __version__

    with process.named("standard output"):
        typer.echo(__version__)


@app.command()
def compare(
    context: typer.Context,
    models: options.ModelsArgument = None,
    activation: Annotated[
        str | None,
        typer.Option(help="Activation of the built-in network: relu, tanh or both (the default)."),
    ] = None,
    model: options.ModelOption = None,
    data: options.DataOption = None,
    loss: options.LossOption = None,
    layers: options.LayersOption = None,
    batch_size: options.BatchSizeOption = None,
    k: Annotated[
        int,
        options.number("Number of eigenvalues at each end.", "-k"),
    ] = 10,
    probes: Annotated[
        int,
        options.number("Random probes of a density; R and single layers take half of them."),
    ] = 4,
    steps: Annotated[
        int,
        options.number("Lanczos steps of each probe; R and single layers take half of them."),
    ] = 80,
    no_layers: Annotated[
        bool, typer.Option("--no-layers", help="Leave out the spectra of single layers.")
    ] = False,
    matrices: Annotated[
        str,
        typer.Option(
            metavar="<list>", help="Which of H, G and R to compare, such as H,G; R needs H."
        ),
    ] = "H,G,R",
    parts: Annotated[
        str,
        typer.Option(
            metavar="<list>",
            help="Which results to compute: chain-rule, ends, density, traces. The density and the "
            "traces bring the ends with them; the chain rule needs H, G and R.",
        ),
    ] = "chain-rule,ends,density,traces",
    examples: Annotated[
        int | None,
        options.number("Use only this many of the examples, chosen at random."),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            metavar="<time>",
            help="The time that a model may take, such as 90s, 10m or 2h: where more is expected, "
            "less is computed. With none, everything is.",
        ),
    ] = "10m",
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="<size>",
            help="The most memory of the process, such as 500M or 6G; the default is 0.6 of what "
            "is free.",
        ),
    ] = None,
    rescale: options.RescaleOption = False,
    start_from: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="<path>",
            help="The compare.json of an earlier comparison of the same network: the extreme "
            "eigenvalues start from its eigenvectors. Of several models: the directory above.",
        ),
    ] = None,
    dtype: options.DtypeOption = None,
    seed: options.SeedOption = 0,
    out: Annotated[
        Path, typer.Option(parser=options.path, metavar="<path>", help="Directory for the results.")
    ] = Path("hvp-compare"),
    quiet: options.QuietOption = False,
) -> None:
    """Compare the spectra of H, G and R = H - G, whole and layer by layer.

    Without arguments it trains a network with 24,790 parameters on 5,000 embedded MNIST digits,
    once with ReLU and once with tanh. Several models get a directory each, and compare.html above
    them is a page that compares them. Exits with 1 if the derivatives disagree with finite
    differences; the results are written nevertheless.
    """
    start = time.perf_counter()
    from hvp.comparison.limits import Limits
    from hvp.comparison.plan import Effort
    from hvp.report.save import save, save_several  # a missing package shows before any work
    from hvp.report.terminal import Terminal

    terminal = Terminal(quiet)
    with process.signals(terminal), terminal.running():
        options.check_choice("--activation", activation, options.ACTIVATIONS)
        options.check_choice("--dtype", dtype, ("float64",))
        chosen_models = _chosen_models(models, model)
        options.check_usage(activation, chosen_models, data, k, seed, batch_size, rescale)
        options.check_effort(probes, steps, examples)
        limits = Limits(options.seconds(budget), options.size(memory))
        of_loss = jobs.Options(loss, layers, dtype, batch_size, jobs.cache_bytes(limits))
        which = Effort.chosen_matrices(matrices)
        effort = Effort(
            k=k,
            num_probes=probes,
            num_steps=steps,
            layers=not no_layers,
            matrices=which,
            results=Effort.chosen_results(parts, which),
        )
        files = jobs.models_by_name(chosen_models)
        builtin = ["relu", "tanh"] if activation in (None, "both") else [str(activation)]
        names = list(files) or builtin
        several = len(names) > 1
        directories = [out / name for name in names] if several else []
        with process.directories([*directories, out]):
            starts = jobs.starts(start_from, names)
            readers = [jobs.data_reader(path, data) for path in files.values()]
            terminal.start("importing TensorFlow")
            process.import_tensorflow(seed)
            if files:
                work = [
                    jobs.load_job(path, read, of_loss, rescale)
                    for path, read in zip(files.values(), readers, strict=True)
                ]
            else:
                work = [jobs.builtin_job(name, seed, terminal) for name in names]
            work = [
                dataclasses.replace(job, start=start)
                for job, start in zip(work, starts, strict=True)
            ]
            if examples is not None:
                work = [jobs.with_some_examples(job, examples, seed, terminal) for job in work]
            request = jobs.Request(of_loss, effort, limits, seed, _command(context))
            results, failure = jobs.all_compared(work, request, terminal)
            terminal.start("writing")
            with process.named(out):
                if several:
                    written = save_several(results, out, missing=names[len(results) :])
                else:
                    written = save(next(iter(results.values())), out)
    for comparison in results.values():
        terminal.show(comparison)
    _say_files(terminal, written, start)
    if failure is not None:
        raise failure
    _exit_if_not_certified(list(results.values()))
    if terminal.stopped_by:
        process.fail_interrupted(terminal.stopped_by)


@app.command(cls=options.SeveralWeights)
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
    examples: Annotated[
        int | None,
        options.number("Use only this many of the examples, chosen at random."),
    ] = None,
    rescale: options.RescaleOption = False,
    dtype: options.DtypeOption = None,
    seed: options.SeedOption = 0,
    out: Annotated[
        Path, typer.Option(parser=options.path, metavar="<path>", help="Directory for the results.")
    ] = Path("hvp-track"),
    quiet: options.QuietOption = False,
) -> None:
    """Track the curvature along checkpoints: λ_max, λ_min and trace, with errors, and the loss.

    A line for each checkpoint appears when it is done; track.json, .png and .svg are written at the
    end, and at an interruption with what is finished. Without --model the first .keras file among
    the checkpoints is the model; without --data the examples are the built-in digits. Exits with 1
    if the derivatives at the first checkpoint disagree with finite differences.
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
        paths = jobs.checkpoints(weights or [])
        of_model = jobs.model_of(model, paths)
        options.check_usage(None, [of_model], data, 1, seed, batch_size, rescale)
        options.check_least((("--products", products, 1), ("--examples", examples, 1)))
        read = jobs.data_reader(of_model, data)
        of_loss = jobs.Options(loss, layers, dtype, batch_size)
        points = dict(zip(short_names(paths), paths, strict=True))
        with process.directories([out], "track"):
            terminal.start("importing TensorFlow")
            process.import_tensorflow(seed)
            job = jobs.load_job(of_model, read, of_loss, rescale)
            if examples is not None:
                job = jobs.with_some_examples(job, examples, seed, terminal)
            tracking = Tracking(
                jobs.linearized(job, of_loss, terminal),
                matrix=matrix,
                num_products=products,
                seed=seed,
                progress=terminal.report_products,
            )
            terminal.start(f"{job.title}: reading checkpoints", len(points))
            for name, path in points.items():  # a wrong one is told before any is measured
                tracking.check(name, path)
                terminal.advance()
            terminal.start(f"{job.title}: tracking", len(points))
            failure = jobs.tracked(tracking, points, terminal.console.width, terminal)
            terminal.start("writing")
            result = tracking.track(
                title=job.title,
                command=_command(context),
                unfinished=list(points)[len(tracking.points) :],
            )
            with process.named(out):
                written = save_track(result, out)
    for line in (track_table.title(result), *track_table.notes(result), *result.findings):
        terminal.say(process.in_options(line))
    _say_files(terminal, written, start)
    if failure is not None:
        raise failure
    if not result.passed:
        process.fail(f"{result.title}: {summary.of_certificate(result.certificate)}", 1)
    if terminal.stopped_by:
        process.fail_interrupted(terminal.stopped_by)


@app.command()
def check(
    model: options.ModelOption = None,
    data: options.DataOption = None,
    loss: options.LossOption = None,
    layers: options.LayersOption = None,
    batch_size: options.BatchSizeOption = None,
    rescale: options.RescaleOption = False,
    dtype: options.DtypeOption = None,
    record: options.RecordOption = None,
    against: options.AgainstOption = None,
    seed: options.SeedOption = 0,
    quiet: options.QuietOption = False,
) -> None:
    """Check the products of a model against central differences and algebraic laws.

    Exits with 1 if a check fails, or if the curvature is not as in the file of --against.
    """
    from hvp.report.terminal import Terminal

    terminal = Terminal(quiet)
    with process.signals(terminal), terminal.running():
        options.check_choice("--dtype", dtype, ("float64",))
        models = [] if model is None else [model]
        options.check_usage(None, models, data, 1, seed, batch_size, rescale)
        golden.check_paths(record, against)
        of_loss = jobs.Options(loss, layers, dtype, batch_size)
        read = None if model is None else jobs.data_reader(model, data)
        terminal.start("importing TensorFlow")
        process.import_tensorflow(seed)
        job = (
            jobs.builtin_job("tanh", seed, terminal)
            if model is None
            else jobs.load_job(model, read, of_loss, rescale)
        )
        from hvp.testing.finite_differences import check as run

        lin = jobs.linearized(job, of_loss, terminal)
        terminal.start(f"{job.title}: checking")
        report = run(lin, seed=seed)
        outcome = golden.run(
            lin, record, against, seed=seed, is_right=report.passed, terminal=terminal
        )
    for finding in lin.findings:
        terminal.say(str(finding))
    terminal.show_checks(report.rows())
    if outcome.written:
        terminal.say_path(outcome.written)
    elif not outcome.passed:
        typer.echo(f"hvp: {outcome.text}", err=True)
    elif outcome.text:
        terminal.say(outcome.text)
    terminal.raise_if_not_shown()
    if not (report.passed and outcome.passed):
        raise typer.Exit(1)


def _say_files(terminal: Terminal, written: Sequence[Path], start: float) -> None:
    """Say which files were written, and the seconds since the start."""
    for path in written:
        terminal.say_path(path)
    terminal.say(
        f"{time.perf_counter() - start:.1f} s in total, including the import of TensorFlow"
    )
    terminal.raise_if_not_shown()


def _exit_if_not_certified(results: Sequence[Comparison]) -> None:
    from hvp.report import summary

    failed = [result for result in results if not result.passed]
    for result in failed:
        typer.echo(f"hvp: {result.title}: {summary.certificate(result)}", err=True)
    if failed:
        raise typer.Exit(1)


def _command(context: typer.Context) -> str:
    """The command as typed, without options that change no number, quoted for a shell."""
    words = ["hvp", str(context.info_name)]
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if source is None or source.name != "COMMANDLINE" or option.name in ("out", "quiet"):
            continue
        value = context.params[str(option.name)]
        for one in value if isinstance(value, list | tuple) else [value]:
            if option.param_type_name == "argument":
                words.append(os.path.join(".", one) if str(one).startswith("-") else str(one))
            else:
                words += [option.opts[0]] if one is True else [option.opts[0], str(one)]
    return shlex.join(words)


def _chosen_models(models: list[Path] | None, model: Path | None) -> list[Path]:
    """The files of the models, without names for the built-in networks."""
    if models and model is not None:
        raise InputError("models by their names or by --model", "both", "leave --model out")
    return models or ([] if model is None else [model])

"""The command `hvp compare`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvp.cli import comparing, linearizing, loading, options, process, unfinished
from hvp.errors import InputError

if TYPE_CHECKING:
    from hvp.comparison.results import Comparison


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
    examples: options.ExamplesOption = None,
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
    workers: Annotated[
        int | None,
        options.number(
            "Divide the examples among this many processes with one thread each, on a Ray cluster "
            "(extra ray)."
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="<address>",
            help="The Ray cluster of the workers, as HOST:PORT. The default is the one that "
            "RAY_ADDRESS names, or one on this machine alone.",
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
    out: options.OutOption = Path("hvp-compare"),
    fresh: options.FreshOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Compare the spectra of H, G and R = H - G, whole and layer by layer.

    Without arguments it trains a network with 24,790 parameters on 5,000 embedded MNIST digits,
    once with ReLU and once with tanh. Several models get a directory each, and compare.html above
    them is a page that compares them. Killed or interrupted, it leaves its unfinished work in the
    directory, and the same command goes on from there. Exits with 1 if the derivatives disagree
    with finite differences; the results are written nevertheless.
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
        options.check_workers(workers, address)
        of_loss = linearizing.Options(
            loss,
            layers,
            dtype,
            batch_size,
            comparing.cache_bytes(limits),
            workers,
            address,
        )
        which = Effort.chosen_matrices(matrices)
        effort = Effort(
            k=k,
            num_probes=probes,
            num_steps=steps,
            layers=not no_layers,
            matrices=which,
            results=Effort.chosen_results(parts, which),
        )
        files = loading.models_by_name(chosen_models)
        builtin = ["relu", "tanh"] if activation in (None, "both") else [str(activation)]
        names = list(files) or builtin
        several = len(names) > 1
        directories = {name: out / name if several else out for name in names}
        with (
            of_loss.opened,
            process.directories(list(dict.fromkeys((*directories.values(), out)))),
            contextlib.ExitStack() as stack,
        ):
            starts = comparing.starts(start_from, names)
            readers = [loading.data_reader(path, data) for path in files.values()]
            journals = stack.enter_context(unfinished.journals(context, directories, terminal))
            terminal.start("importing TensorFlow")
            process.import_tensorflow(seed)
            if files:
                work = [
                    loading.load_job(path, read, loss, rescale)
                    for path, read in zip(files.values(), readers, strict=True)
                ]
            else:
                work = [loading.builtin_job(name, seed, terminal, journals[name]) for name in names]
            work = [
                dataclasses.replace(job, start=start)
                for job, start in zip(work, starts, strict=True)
            ]
            if examples is not None:
                work = [loading.with_some_examples(job, examples, seed, terminal) for job in work]
            request = comparing.Request(
                of_loss, effort, limits, seed, options.typed_command(context)
            )
            results, failure = comparing.all_compared(work, request, journals, terminal)
            terminal.start("writing")
            with process.named(out):
                if several:
                    written = save_several(results, out, missing=names[len(results) :])
                else:
                    written = save(next(iter(results.values())), out)
            if failure is None and not terminal.stopped_by:
                for journal in journals.values():
                    journal.remove()
    for comparison in results.values():
        terminal.show(comparison)
    process.say_files(terminal, written, start)
    if failure is not None:
        raise failure
    _exit_if_not_certified(list(results.values()))
    if terminal.stopped_by:
        process.fail_interrupted(terminal.stopped_by)


def _chosen_models(models: list[Path] | None, model: Path | None) -> list[Path]:
    """The files of the models, without names for the built-in networks."""
    if models and model is not None:
        raise InputError("models by their names or by --model", "both", "leave --model out")
    return models or ([] if model is None else [model])


def _exit_if_not_certified(results: Sequence[Comparison]) -> None:
    from hvp.report import summary

    failed = [result for result in results if not result.passed]
    for result in failed:
        typer.echo(f"hvp: {result.title}: {summary.certificate(result)}", err=True)
    if failed:
        raise typer.Exit(1)

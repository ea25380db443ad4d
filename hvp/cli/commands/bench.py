"""The command `hvp bench`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from hvp.cli import benchmarking, options, process


def bench(
    context: typer.Context,
    model: Annotated[
        Path | None,
        typer.Option(parser=options.path, metavar="<path>", help="A .keras file, with --data."),
    ] = None,
    data: options.DataOption = None,
    loss: options.LossOption = None,
    dense: Annotated[
        list[str] | None,
        typer.Option(help="A dense network by its widths, such as 8192x8192 or 784x1024x10."),
    ] = None,
    conv: Annotated[
        list[str] | None,
        typer.Option(
            help="3 x 3 convolutions: height, width, channels and filters, such as 32x32x64x128."
        ),
    ] = None,
    attention: Annotated[
        list[str] | None,
        typer.Option(help="Self-attention: length, width and heads, such as 128x512x8."),
    ] = None,
    lstm: Annotated[
        list[str] | None,
        typer.Option(help="LSTMs: steps, features and units, such as 50x128x256."),
    ] = None,
    batch: Annotated[
        int | None,
        options.number("Examples: 128 of layers by default, and all of --data."),
    ] = None,
    jit: Annotated[
        str,
        typer.Option(help="auto: hvp chooses; on: XLA compiles every product; off: graphs alone."),
    ] = "auto",
    threads: Annotated[
        int | None, options.number("Cores that each process uses. All by default.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer rounds, no blocks and no memory.")
    ] = False,
    seed: options.SeedOption = 0,
    out: options.OutOption = Path("hvp-bench"),
    quiet: options.QuietOption = False,
) -> None:
    """Measure products of large layers or of a model: time, first product, memory, speed reached.

    Hv, Gv and blocks of 16 vectors are compared with plain TensorFlow, checked first and timed in
    turns, each in a process of its own. --dense, --conv, --attention and --lstm may be repeated.
    Writes bench.json and bench.png; at an interruption what is measured. Exits with 1 if a product
    is wrong or fails.
    """
    start = time.perf_counter()
    from hvp.benchmark import measure, table
    from hvp.report.terminal import Terminal

    terminal = Terminal(quiet)
    with process.signals(terminal), terminal.running():
        options.check_choice("--jit", jit, benchmarking.JIT)
        options.check_least((("--batch", batch, 1),))
        options.check_usage(None, [], None, 1, seed, None, False)
        cores = benchmarking.check_threads(threads)
        layers = {"dense": dense, "conv": conv, "attention": attention, "lstm": lstm}
        chosen = benchmarking.cases(layers, model, data, loss, batch=batch, jit=jit, seed=seed)
        plan = measure.QUICK if quick else measure.LAYERS
        settings = {"command": options.typed_command(context), "jit": jit, "seed": seed}
        with process.directories([out], "bench"):
            found = benchmarking.run(chosen, plan, cores, settings, terminal)
            with process.named(out):
                written = benchmarking.save(found, out)
    terminal.console.print(table.of_run(found))
    for line in table.notes(found):
        terminal.say(process.in_options(line))
    process.say_files(terminal, written, start)
    failed = benchmarking.failure(found)
    if failed:
        process.fail(process.in_options(failed), 1)
    if terminal.stopped_by:
        process.fail_interrupted(terminal.stopped_by)

"""The command `hvp check`."""

from __future__ import annotations

import typer

from hvp.cli import golden, linearizing, loading, options, process


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
        of_loss = linearizing.Options(loss, layers, dtype, batch_size)
        read = None if model is None else loading.data_reader(model, data)
        terminal.start("importing TensorFlow")
        process.import_tensorflow(seed)
        job = (
            loading.builtin_job("tanh", seed, terminal)
            if model is None
            else loading.load_job(model, read, loss, rescale)
        )
        from hvp.testing.finite_differences import check as run

        lin = linearizing.linearized(job, of_loss, terminal)
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

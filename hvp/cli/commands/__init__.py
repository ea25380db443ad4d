"""The commands of the command line. TensorFlow is imported when a command needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from hvp.cli import options, process
from hvp.cli.commands import bench, check, compare, track

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


def version() -> None:
    """Print the version."""
    from hvp import __version__

    with process.named("standard output"):
        typer.echo(__version__)


app.command()(version)
app.command()(compare.compare)
app.command(cls=options.SeveralWeights)(track.track)
app.command()(check.check)
app.command()(bench.bench)

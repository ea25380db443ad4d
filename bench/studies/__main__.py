"""The command line: run a study, show it, save it."""

from __future__ import annotations

import ast
import importlib
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.command_line import check_output_path, one_line_errors, unfinished
from bench.studies import table
from bench.studies.study import kept_in
from hvp import InputError
from hvp.resuming.identity import package_versions
from hvp.resuming.resumable import CLASSES

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
DIRECTORY = Path("bench-results") / "studies"
NOT_STUDIES = {"__init__", "__main__", "descent", "study", "table"}
SOURCES = {
    path.stem: path
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if path.stem not in NOT_STUDIES
}


@app.command()
def studies(
    name: Annotated[
        str | None, typer.Argument(help=f"{', '.join(SOURCES)}. Lists them if left out.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Runs in seconds, too small to test the claim.")
    ] = False,
    out: Annotated[
        Path, typer.Option(help="Directory of table and picture.", show_default=True)
    ] = DIRECTORY,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, whatever unfinished work there is.")
    ] = False,
) -> None:
    """Test a published claim about curvature: a table "published / here" and a picture.

    A study that was killed goes on with the training that it was at.
    """
    console = Console()
    if name is None:
        for known, path in SOURCES.items():
            headline = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n")[0]
            console.print(f"{known:<20} {headline}", highlight=False, markup=False, soft_wrap=True)
        return
    with one_line_errors("studies"):
        if name not in SOURCES:
            raise InputError(f"a study among {', '.join(SOURCES)}", repr(name), "choose one")
        stem = out / f"{name}-quick" if quick else out / name
        paths = stem.with_suffix(".md"), stem.with_suffix(".png")
        for path in paths:
            check_output_path(path)
        begun = time.perf_counter()
        owner = {"study": name, "quick": quick, "versions": package_versions()}
        with unfinished(paths[0], owner, CLASSES, is_fresh=fresh) as journal:
            with kept_in(journal):
                study = importlib.import_module(f"bench.studies.{name}").run(quick)
            seconds = time.perf_counter() - begun
            table.save(study, *paths, seconds)
    table.show(study, console)
    for path in paths:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{seconds:.0f} s in all", highlight=False)


if __name__ == "__main__":
    app(prog_name="python -m bench.studies")

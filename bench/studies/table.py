"""A study as a table: printed, and appended to a Markdown file, with the picture in a file."""

from __future__ import annotations

import datetime
from importlib import metadata
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.results import record
from bench.studies.study import Study

PACKAGES = ("hvp", "tensorflow", "keras", "numpy", "scipy")
HEADINGS = ("claim", "published", "here", "holds")
VERDICTS = {True: "yes", False: "no", None: "–"}
STYLES = {True: "green", False: "red", None: ""}
WIDTH = 150


def show(study: Study, console: Console) -> None:
    """Print the table and the remarks."""
    if not console.is_terminal:
        console.width = WIDTH
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(study.title, style="bold"))
    table.title_justify = "left"
    for heading in HEADINGS:
        table.add_column(heading)
    for row in study.rows:
        verdict = Text(VERDICTS[row.holds], style=STYLES[row.holds])
        table.add_row(Text(row.claim), Text(row.published), Text(row.here), verdict)
    console.print(table)
    for remark in study.remarks:
        console.print(Text(remark))


def save(study: Study, text: Path, picture: Path, seconds: float) -> None:
    """Append the table to `text` and draw `picture`."""
    study.figure.savefig(picture, dpi=150)
    with text.open("a", encoding="utf-8") as file:
        file.write(markdown(study, picture.name, seconds))


def markdown(study: Study, picture: str, seconds: float) -> str:
    """The Markdown section of a study: heading, machine and time, table, remarks, picture."""
    rows = [HEADINGS, ("---",) * len(HEADINGS)]
    rows += [(row.claim, row.published, row.here, VERDICTS[row.holds]) for row in study.rows]
    lines = [
        f"## {study.title}",
        "",
        f"{datetime.date.today().isoformat()}; {_machine()}; {seconds:.0f} s.",
        "",
        *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows),
        "",
        *(line for remark in study.remarks for line in (remark, "")),
        f"![{study.title}]({picture})",
        "",
        "",
    ]
    return "\n".join(lines)


def _machine() -> str:
    machine = record.machine()
    versions = (f"{name} {metadata.version(name)}" for name in PACKAGES)
    cores = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}"
    return ", ".join((cores, *versions))

"""What `hvp compare` expects to take, and what it takes.

``python -m bench.forecast DIRECTORY`` compares each model NAME.keras of a directory, with its data
NAME.npz, in a fresh process. It prints the time and the memory that were expected before the work,
the seconds of the work, and the peak memory of the process. Options behind the directory are those
of `hvp compare`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

# The last row of what the command prints first: products, time and memory.
EXPECTED = re.compile(r"^ *all +[\d,]+ +(\S+ \S+) +(\S+) GB", re.MULTILINE)
SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


def main(
    directory: Path,
    options: Annotated[
        list[str] | None, typer.Argument(help="Options of hvp compare, behind --.")
    ] = None,
) -> None:
    """Compare all models of a directory, and print what was expected beside what it took."""
    table = Table(
        "model", "expected", "taken", "expected / taken", "expected", "peak", "peak / expected"
    )
    for model in sorted(directory.glob("*.keras")):
        expected, taken, expected_bytes, peak = measured(model, options or [])
        table.add_row(
            model.stem,
            f"{expected:.0f} s",
            f"{taken:.0f} s",
            f"{expected / taken:.2f}",
            f"{expected_bytes:.1f} GB",
            f"{peak:.2f} GB",
            f"{peak / expected_bytes:.2f}",
        )
    Console().print(table)


def measured(model: Path, options: list[str]) -> tuple[float, float, float, float]:
    """Seconds and gigabytes of a model's comparison, expected and taken: see `compare_all`."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "hvp", "compare", str(model)]
        command += ["--data", str(model.with_suffix(".npz")), "--out", out, *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            printed = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        found = EXPECTED.search(printed)
        if found is None:
            raise SystemExit(f"{model}: hvp compare ended with exit code {process.returncode}")
        number, unit = found[1].split()
        taken = json.loads((Path(out) / "compare.json").read_text(encoding="utf-8"))["seconds"]
    return float(number) * SECONDS[unit], taken, float(found[2]), usage.ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    typer.run(main)

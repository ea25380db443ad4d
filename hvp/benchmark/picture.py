"""The times of a run as a picture: a panel for each case."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hvp.benchmark.entries import NAIVE, OURS
from hvp.benchmark.records import CaseRecord, Run
from hvp.benchmark.table import HEADINGS

# Okabe and Ito's palette.
COLOURS = {OURS.name: "#0072B2", NAIVE.name: "#E69F00", "gradient": "0.6"}
BAR = 0.38


def save(run: Run, path: Path) -> bool:
    """Write the picture; False where there is nothing to draw."""
    problems = [p for p in run.problems.values() if any(_bars(p))]
    if not problems:
        return False
    rows = [len(_labels(problem)) for problem in problems]
    figure = Figure(figsize=(8.5, 1.1 + 0.42 * sum(rows) + 0.55 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=rows)[:, 0]
    for panel, problem in zip(panels, problems, strict=True):
        _draw(panel, problem)
    panels[-1].set_xlabel("milliseconds per vector")
    machine = run.machine
    figure.suptitle(f"{machine['processor']}, {run.threads} cores, {run.date}", fontsize=10)
    names = {OURS.name: OURS.title, NAIVE.name: NAIVE.title, "gradient": "one gradient"}
    handles = [panels[0].barh(0, 0, color=COLOURS[name], label=names[name]) for name in COLOURS]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)
    return True


def _labels(problem: CaseRecord) -> list[str]:
    return [h for name, h in HEADINGS.items() if name in problem.figures] + ["gradient"]


def _bars(problem: CaseRecord) -> list[tuple[float, float, str]]:
    """Position, milliseconds and colour of each bar."""
    found = []
    names = [name for name in HEADINGS if name in problem.figures]
    for row, name in enumerate([*names, "gradient"]):
        results = problem.figures[name].results if name in problem.figures else {}
        shift = 0.0 if name == "gradient" else BAR / 2
        for entry, side in ((OURS, -shift), (NAIVE, shift)):
            result = results.get(entry.name)
            if result is not None and result.seconds is not None and result.status == "ok":
                colour = COLOURS["gradient" if name == "gradient" else entry.name]
                found.append((row + side, 1e3 * result.seconds, colour))
    return found


def _draw(panel: Axes, problem: CaseRecord) -> None:
    labels = _labels(problem)
    for position, value, colour in _bars(problem):
        panel.barh(position, value, BAR, color=colour)
        panel.annotate(
            f"{value:.3g}", (value, position), (3, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    panel.set_yticks(range(len(labels)), labels)
    panel.invert_yaxis()
    panel.margins(x=0.1)
    panel.set_title(problem.title, fontsize=10, loc="left")
    panel.spines[["top", "right"]].set_visible(False)

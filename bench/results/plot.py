"""Draw the ratios of a run with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from bench.backends.implementations import NAIVE, PEERS, find
from bench.results.record import Run

# Okabe and Ito's palette; the markers differ as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_NAMES = (NAIVE.name, *(peer.name for peer in PEERS.values() if peer.has_products))
STYLES: dict[str, dict[str, Any]] = {
    name: {"color": colour, "marker": marker}
    for name, colour, marker in zip(_NAMES, _COLOURS, _MARKERS, strict=True)
}
TITLES = {
    "hvp": "Hv",
    "gnvp": "Gv",
    "hvp_block": "Hv, blocks of 16",
    "gnvp_block": "Gv, blocks of 16",
}


def save(run: Run, path: Path) -> None:
    """Save one panel per product: the time of hvp over the others'. Hollow markers are wrong."""
    kinds = [k for k in TITLES if any(k in problem.figures for problem in run.problems.values())]
    if not kinds:
        return
    height = 1.8 + 0.45 * len(run.problems)
    figure = Canvas(figsize=(4.2 * len(kinds) + 2.6, height), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for panel, kind in zip(panels, kinds, strict=True):
        _draw(panel, run, kind)
    problems = list(run.problems.values())
    panels[0].set_yticks(range(len(problems)), [problem.title for problem in problems])
    panels[0].invert_yaxis()
    handles, labels = _legend(panels[0])
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    machine = run.machine
    figure.suptitle(
        f"Time of hvp over the time of each other, left of one hvp is faster\n"
        f"{run.date}, {machine['processor']}, {machine['cores']} cores, float32",
        fontsize=11,
    )
    figure.savefig(path, dpi=150)


def _draw(panel: Axes, run: Run, kind: str) -> None:
    panel.axvline(1, color="0.4", linewidth=1)
    for row, problem in enumerate(run.problems.values()):
        panel.axhline(row, color="0.92", linewidth=0.8, zorder=0)
        figure = problem.figures.get(kind)
        for name, result in figure.results.items() if figure is not None else ():
            if result.ratio is None or name not in STYLES:
                continue
            filled = "full" if result.status == "ok" else "none"
            style = {"linestyle": "none", "fillstyle": filled, **STYLES[name]}
            panel.plot(result.ratio, row, **style)
    panel.set_xscale("log")
    panel.set_title(TITLES[kind], fontsize=10)


def _legend(panel: Axes) -> tuple[list[Any], list[str]]:
    handles = [panel.plot([], [], linestyle="none", **style)[0] for style in STYLES.values()]
    return handles, [find(name).title for name in STYLES]

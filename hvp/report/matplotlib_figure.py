"""Figures for papers, drawn with matplotlib."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hvp.comparison.results import Comparison, Part
from hvp.report import density_curves
from hvp.report.number_format import eigenvalues
from hvp.report.palette import COLOURS

# Colour-blind readers can distinguish the colours; the markers differ for print without colour.
STYLES: dict[str, dict[str, Any]] = {
    "H": {"color": COLOURS["H"], "marker": "o", "markersize": 3, "label": "H"},
    "G": {
        "color": COLOURS["G"],
        "marker": "s",
        "markersize": 5,
        "fillstyle": "none",
        "markeredgewidth": 0.9,
        "label": "G",
    },
}
BARS: dict[str, Any] = {"linestyle": "none", "capsize": 1.5, "elinewidth": 0.6, "capthick": 0.6}
RC_PARAMS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "0.35",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "0.25",
    "ytick.color": "0.25",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 0.8,
    "svg.fonttype": "path",
    "svg.hashsalt": "hvp",
    "savefig.facecolor": "white",
}
# The width of two columns of a journal, and the heights of the rows.
WIDTH_INCHES, FIRST_ROW_INCHES, ROW_INCHES, TITLE_INCHES = 7.2, 2.9, 2.0, 0.45
COLUMNS = 4
DPI = 300
# The axis is linear up to this share of the largest value, and logarithmic beyond.
LINEAR_SHARE = 1e-3
MAX_NAME_LENGTH = 26


def save_comparison(comparison: Comparison, *paths: Path) -> None:
    """Save the figure to files; the suffix of each path gives its format."""
    with matplotlib.rc_context(RC_PARAMS):
        figure = comparison_figure(comparison)
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, dpi=DPI, metadata=metadata)
            figure.set_layout_engine("none")  # keep the layout for the next file


def comparison_figure(comparison: Comparison) -> Figure:
    """Densities and extreme eigenvalues of all parameters; below, a panel for each layer."""
    whole, *layers = comparison.parts.values()
    columns = min(COLUMNS, max(len(layers), 1))
    rows = -(-len(layers) // columns)
    with matplotlib.rc_context(RC_PARAMS):
        height = TITLE_INCHES + FIRST_ROW_INCHES + ROW_INCHES * rows
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        figure.suptitle(_headline(comparison), fontsize=8.5, x=0.01, ha="left")
        heights = [FIRST_ROW_INCHES, ROW_INCHES * rows][: 1 + bool(rows)]
        above, *below = figure.subfigures(
            len(heights), 1, height_ratios=heights, squeeze=False
        ).ravel()
        left, right = above.subplots(1, 2, width_ratios=[3, 2])
        _draw_densities(left, whole)
        _draw_ends(right, whole, comparison.floor)
        left.set_title("a   eigenvalues per unit of λ, share of all", loc="left")
        right.set_title("b   extreme eigenvalues by rank; triangles are bounds", loc="left")
        if below:
            panels = below[0].subplots(rows, columns, squeeze=False).ravel()
            for i, (panel, part) in enumerate(zip(panels, layers, strict=False)):
                _draw_ends(panel, part, comparison.floor)
                panel.set_title(
                    f"{_letter(i + 2)}   {_plain(part.name)}, P = {part.size:,}", loc="left"
                )
            for panel in panels[len(layers) :]:
                panel.set_visible(False)
    return figure


def _letter(i: int) -> str:
    """a to z, then aa, ab and so on."""
    first, last = divmod(i, 26)
    return (chr(96 + first) if first else "") + chr(97 + last)


def _headline(comparison: Comparison) -> str:
    accuracy = "" if comparison.accuracy is None else f", accuracy {comparison.accuracy:.1%}"
    title = f"{_plain(comparison.title)}: " if comparison.title else ""
    return (
        f"{title}the spectra of H and G. "
        f"{comparison.size:,} parameters, {comparison.num_examples:,} examples, "
        f"loss {comparison.loss:.4g}{accuracy}, {comparison.dtype}"
    )


def _draw_densities(panel: Axes, part: Part) -> None:
    """Curves with bands of one standard error, and a tick for each separate eigenvalue."""
    found = {name: curve for name, curve in density_curves.linear(part).items() if name in STYLES}
    bottom = density_curves.BELOW_ONE * density_curves.alone(part.size, found["H"].width)
    top = max(float(curve.values.max()) for curve in found.values())
    start = 0.055 * len(found) + 0.02
    inset = panel.inset_axes((0.36, 0.42, 0.62, 0.5))
    for row, (name, curve) in enumerate(reversed(found.items())):
        colour = STYLES[name]["color"]
        low, high = (np.maximum(curve.values + s * curve.stderrs, bottom / 10) for s in (-1, 1))
        for axes in (panel, inset):
            clip = Rectangle((0, start), 1, 1, transform=panel.transAxes)
            band = axes.fill_between(curve.x, low, high, color=colour, alpha=0.25, linewidth=0)
            (line,) = axes.plot(
                curve.x, np.maximum(curve.values, bottom / 10), color=colour, label=name
            )
            if axes is panel:
                band.set_clip_path(clip)
                line.set_clip_path(clip)
        outliers = getattr(part, name).density.outliers
        place = np.full(len(outliers), 0.03 + 0.055 * row)
        ticks: dict[str, Any] = {
            "marker": "|",
            "markersize": 5,
            "markeredgewidth": 0.8,
            "linestyle": "none",
        }
        panel.plot(outliers, place, color=colour, transform=panel.get_xaxis_transform(), **ticks)
    # The curves end above the rows of ticks.
    span = math.log10(2 * top / bottom) / (1 - start)
    panel.set_yscale("log")
    panel.set_ylim(2 * top / 10**span, 2 * top)
    panel.set_yticks([v for v in panel.get_yticks() if bottom <= v <= 2 * top])
    panel.set_xlabel("λ")
    handles, labels = panel.get_legend_handles_labels()
    inset.legend(handles[::-1], labels[::-1], frameon=False)
    inset.set_yscale("log")
    inset.set_ylim(bottom, 2 * top)
    inset.set_xlim(*density_curves.near(part))
    inset.axvline(0, color="0.6", linewidth=0.6, zorder=0)
    inset.set_title("near zero", loc="left")


def _draw_ends(panel: Axes, part: Part, floor: float) -> None:
    """Eigenvalues by rank with their errors; triangles are bounds of a cluster."""
    count = len(part.H.largest.values)
    # Ranks from the top on the left, ranks from the bottom on the right, a gap between.
    top = np.arange(count)
    bottom = np.arange(count) + count + 1
    drawn = []
    for name, style in STYLES.items():
        ends = part.spectra[name]
        values = np.r_[ends.largest.values[::-1], ends.smallest.values[::-1]]
        errors = np.r_[ends.largest.errors[::-1], ends.smallest.errors[::-1]]
        largest = eigenvalues(ends.largest, "largest", floor)
        smallest = eigenvalues(ends.smallest, "smallest", floor)
        known = np.array([not eigenvalue.bound for eigenvalue in (*largest, *smallest[::-1])])
        drawn.append(values)
        places = np.r_[top, bottom]
        panel.errorbar(places[known], values[known], errors[known], **BARS, **style)
        for side, marker in ((top, "^"), (bottom, "v")):
            bounds = ~known & np.isin(places, side)
            triangles = {**style, "marker": marker, "fillstyle": "none", "label": None}
            panel.plot(places[bounds], values[bounds], linestyle="none", **triangles)
    panel.axhline(0, color="0.6", linewidth=0.6, zorder=0)
    panel.axvline(count, color="0.85", linewidth=0.6, zorder=0)
    high, low = float(np.max(drawn)), float(np.min(drawn))
    # A power of ten, so that the ticks nearest to zero stand at the edge of the linear part.
    linear = 10.0 ** math.floor(math.log10(LINEAR_SHARE * (max(high, -low) or 1.0)))
    panel.set_yscale("symlog", linthresh=linear)
    panel.set_ylim(min(2 * low, -linear), max(2 * high, linear))
    panel.set_xticks([0, count - 1, count + 1, 2 * count], ["1", f"{count}", f"{count}", "1"])
    for last, label in enumerate(panel.get_xticklabels()):
        label.set_horizontalalignment("right" if last % 2 else "left")
    panel.set_xlabel(f"{count} largest      {count} smallest")


def _plain(name: str) -> str:
    """A name that fits over a panel and that matplotlib does not take for mathematics."""
    shown = name if len(name) <= MAX_NAME_LENGTH else f"…{name[1 - MAX_NAME_LENGTH :]}"
    return shown.replace("$", r"\$")

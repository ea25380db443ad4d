"""Figures. The one place that knows matplotlib."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind readers too; the markers differ as well.
STYLES: dict[str, dict[str, Any]] = {
    "H": {"color": "#0072B2", "marker": "o", "markersize": 6, "label": "H"},
    "G": {"color": "#D55E00", "marker": "s", "markersize": 9, "fillstyle": "none", "label": "G"},
}
COLUMNS = 4
# The axis is logarithmic but for values within this share of the largest.
LINEAR_SHARE = 1e-3
LONGEST = 36


def save_comparison(comparison: Any, path: Path) -> None:
    """The eigenvalues of H and G at both ends, a panel a part, as a picture."""
    comparison_figure(comparison).savefig(path, dpi=150)


def comparison_figure(comparison: Any) -> Figure:
    """One panel for the network and one a layer: the k largest and the k smallest eigenvalues."""
    parts = list(comparison.parts.values())
    columns = min(COLUMNS, len(parts))
    rows = -(-len(parts) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.4, 3.5 * rows + 1.0), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for panel, part in zip(axes, parts, strict=False):
        _draw_part(panel, part)
    for panel in axes[len(parts) :]:
        panel.set_visible(False)
    for row in range(rows):
        axes[row * columns].set_ylabel("eigenvalue")
    axes[0].legend(loc="upper right", frameon=False)
    figure.suptitle(_headline(comparison), fontsize=12)
    return figure


def _headline(comparison: Any) -> str:
    accuracy = "" if comparison.accuracy is None else f", accuracy {comparison.accuracy:.1%}"
    title = f"{_plain(comparison.title)}: " if comparison.title else ""
    return (
        f"{title}the largest and the smallest eigenvalues of H and G\n"
        f"{comparison.size:,} parameters, {comparison.num_examples:,} examples, "
        f"loss {comparison.loss:.4g}{accuracy}, {comparison.dtype}"
    )


def _draw_part(panel: Axes, part: Any) -> None:
    count = len(part.H.largest.values)
    # Ranks from the top on the left, ranks from the bottom on the right, a gap between.
    top = np.arange(count)
    bottom = np.arange(count) + count + 1
    drawn = []
    for name, style in STYLES.items():
        ends = getattr(part, name)
        values = np.r_[ends.largest.values[::-1], ends.smallest.values[::-1]]
        errors = np.r_[ends.largest.errors[::-1], ends.smallest.errors[::-1]]
        drawn.append(values)
        panel.errorbar(np.r_[top, bottom], values, errors, linestyle="none", capsize=2, **style)
    panel.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    panel.axvline(count, color="0.85", linewidth=0.8, zorder=0)
    high, low = float(np.max(drawn)), float(np.min(drawn))
    # A power of ten, so that the ticks nearest to zero stand at the edge of the linear part.
    linear = 10.0 ** math.floor(math.log10(LINEAR_SHARE * (max(high, -low) or 1.0)))
    panel.set_yscale("symlog", linthresh=linear)
    panel.set_ylim(min(2 * low, -linear), max(2 * high, linear))
    panel.set_xticks([0, count - 1, count + 1, 2 * count], ["1", f"{count}", f"{count}", "1"])
    for last, label in enumerate(panel.get_xticklabels()):
        label.set_horizontalalignment("right" if last % 2 else "left")
    panel.set_xlabel(f"{count} largest      {count} smallest")
    panel.set_title(f"{_plain(part.name)}\n{part.size:,} parameters", fontsize=10)


def _plain(name: str) -> str:
    """A name that fits over a panel and that matplotlib does not take for mathematics."""
    shown = name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
    return shown.replace("$", r"\$")

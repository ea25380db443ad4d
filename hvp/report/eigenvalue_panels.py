"""The panels of single eigenvalues: by rank, by layer, and the spaces of their vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from hvp.comparison.results import Comparison, Part
from hvp.linalg.estimate import Estimate
from hvp.report import density_curves
from hvp.report.figure_style import MARKERS, STEPS, Hover, no_hover, power, short, write_out
from hvp.report.number_format import End, eigenvalue_text, eigenvalues, share_text
from hvp.report.palette import COLOURS, GRID, INK, MUTED

BOUND_MARKERS: dict[End, str] = {"largest": "^", "smallest": "v"}
# A larger ratio of eigenvalues gets a logarithmic axis.
MAX_LINEAR_RATIO = 30
# Layers of one panel.
MAX_LAYERS = 24
WORDS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def ranks(
    panel: Axes,
    part: Part,
    end: End,
    floor: float,
    *,
    num_outputs: int | None = None,
    hover: Hover = no_hover,
) -> None:
    """The k eigenvalues of one end, the outermost first, with bars for the sampling errors."""
    names = density_curves.letters(part)
    count = len(part.first.largest.values)
    offsets = np.linspace(-0.15, 0.15, len(names)) if len(names) > 1 else np.zeros(1)
    if end == "largest" and num_outputs and 1 < num_outputs <= count:
        panel.axvspan(
            num_outputs - 1.5,
            num_outputs - 0.5,
            color=MUTED,
            alpha=0.15,
            linewidth=0,
        )
        label = f"outputs − 1 = {num_outputs - 1}"
        place = panel.get_xaxis_transform()
        panel.text(num_outputs - 1, 0.97, label, ha="center", va="top", transform=place)
    has_bounds = False
    for offset, name in zip(offsets, names, strict=True):
        pairs = getattr(part.spectra[name], end)
        sampling = getattr(part.sampling[name], end)[:: STEPS[end]]
        found = eigenvalues(pairs, end, floor)
        has_bounds |= any(each.bound for each in found)
        for rank, (each, error) in enumerate(zip(found, sampling, strict=True), start=1):
            (point, *_) = panel.errorbar(
                [rank + offset],
                [each.value],
                [np.nan_to_num(np.fmax(error, each.error))],
                color=COLOURS[name],
                marker=BOUND_MARKERS[end] if each.bound else MARKERS[name],
                fillstyle="full" if name == "H" and not each.bound else "none",
                markersize=5,
                elinewidth=1.0,
                label=name if rank == 1 else None,
                linestyle="none",
            )
            hover(point, eigenvalue_text(name, end, rank, each, error))
    panel.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
    largest = max(part.spectra[name].norm for name in names)
    if largest < 10 * floor:  # do not enlarge noise to the height of the figure
        panel.set_ylim(-10 * floor, 10 * floor)
        panel.axhspan(-floor, floor, color=MUTED, alpha=0.15, linewidth=0)
    elif largest == 0:
        panel.set_ylim(-1, 1)
    panel.set_xlim(0.4, count + 0.6)
    panel.set_xticks(_rank_ticks(count))
    panel.set_title(
        f"the {WORDS[count] if count < len(WORDS) else count} {end} λ, ± sampling error"
    )
    panel.set_xlabel("rank (triangles are bounds)" if has_bounds else "rank")
    panel.set_ylabel("λ")
    write_out(panel.yaxis)
    if len(names) > 1:
        if end == "largest":
            panel.legend(loc="upper right", bbox_to_anchor=(1, 0.92))
        else:
            panel.legend(loc="lower right")


def overlaps(panel: Axes, comparison: Comparison, chosen: Part, hover: Hover = no_hover) -> None:
    """The share of the space of H's i top eigenvectors that lies in G's; other parts are grey."""
    for part in sorted(comparison.parts.values(), key=lambda part: part.name == chosen.name):
        shares = [100 * float(np.mean(np.cos(a) ** 2)) for a in part.angles_by_count]
        places = np.arange(1, len(shares) + 1)
        if part.name != chosen.name:
            panel.plot(places, shares, color=MUTED, alpha=0.5, linewidth=1.0)
            continue
        panel.plot(places, shares, color=INK)
        for place, share in zip(places, shares, strict=True):
            (point,) = panel.plot([place], [share], "o", color=INK, markersize=4)
            hover(point, f"the {place} largest: {share:.1f} %")
    count = len(chosen.angles_by_count)
    panel.set_xlim(0.5, count + 0.5)
    panel.set_xticks(_rank_ticks(count))
    panel.set_ylim(top=100 + 0.03 * (100 - panel.get_ylim()[0]))
    panel.set_title("share of H's top space in G's, %")
    panel.set_xlabel("number of top eigenvectors")


def angles(panel: Axes, part: Part) -> None:
    """Every principal angle between the spaces of the i top eigenvectors, for all i."""
    for i, row in enumerate(part.angles_by_count, start=1):
        panel.plot(np.full(len(row), i), np.degrees(row), "o", color=INK, alpha=0.5, markersize=4)
    count = len(part.angles_by_count)
    panel.set_xlim(0.5, count + 0.5)
    panel.set_xticks(_rank_ticks(count))
    panel.set_ylim(-3, 93)
    panel.set_yticks([0, 30, 60, 90])
    panel.set_title("principal angles between the two spaces, degrees")
    panel.set_xlabel("number of top eigenvectors")


def layers(panel: Axes, comparison: Comparison) -> None:
    """The largest eigenvalue of every layer's own block, of those with the largest ones."""
    _, *parts = comparison.parts.values()
    least = max(comparison.floor, 1e-300)
    shown = sorted(parts, key=lambda part: -part.first.largest.values[-1])[:MAX_LAYERS]
    kept = [part for part in parts if part in shown]
    seen = [least]
    for name in COLOURS:
        points = [
            (part.spectra[name].largest.values[-1], row)
            for row, part in enumerate(kept)
            if name in density_curves.letters(part)
            and part.spectra[name].largest.values[-1] > least
        ]
        x, y = np.array(points or np.empty((0, 2))).T
        seen += x.tolist()
        panel.plot(
            x,
            y,
            MARKERS[name],
            color=COLOURS[name],
            fillstyle="full" if name == "H" else "none",
            markersize=6,
            label=name,
        )
    values = seen[1:] or [1.0]
    if max(values) > MAX_LINEAR_RATIO * min(values):
        panel.set_xscale("log")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    else:
        panel.set_xlim(left=0)
        write_out(panel.xaxis)
    _name_rows(panel, [part.name for part in kept])
    of = "" if len(kept) == len(parts) else f", {len(kept)} of {len(parts)}"
    panel.set_title(f"largest λ by layer{of}")
    panel.set_xlabel("λ")


def layer_shares(panel: Axes, comparison: Comparison, hover: Hover = no_hover) -> None:
    """The shares of R in the trace and in the squared Frobenius norm of each layer's block."""
    assert comparison.shares is not None
    shares = {comparison.whole.name: comparison.shares.whole, **comparison.shares.layers}
    measures = {"trace": ("trace", INK, "o"), "squared_norm": ("squared norm", MUTED, "D")}
    for measure, (label, colour, marker) in measures.items():
        for row, share in enumerate(shares.values()):
            e: Estimate[float] = getattr(share, measure)
            if not math.isfinite(e.value):
                continue
            (point, *_) = panel.errorbar(
                [100 * e.value],
                [row],
                xerr=[np.nan_to_num(100 * e.stderr)],
                color=colour,
                marker=marker,
                fillstyle="full" if measure == "trace" else "none",
                markersize=5,
                elinewidth=1.0,
                linestyle="none",
                label=label,
            )
            label = ""
            hover(point, share_text(e))
    panel.axvline(0, color=MUTED, linewidth=0.8, zorder=0)
    _name_rows(panel, list(shares))
    panel.set_title("R relative to H, %")
    panel.legend(loc="best")


def chain_rule(panel: Axes, comparison: Comparison) -> None:
    """vᵀHv, vᵀGv and vᵀRv for the kernels v of each layer, of the first `MAX_LAYERS`."""
    rows = comparison.chain_rule[:MAX_LAYERS]
    for letter in COLOURS:
        panel.plot(
            [getattr(row, f"v{letter}v") for row in rows],
            range(len(rows)),
            linestyle="none",
            marker=MARKERS[letter],
            color=COLOURS[letter],
            fillstyle="full" if letter == "H" else "none",
            label=f"vᵀ{letter}v",
        )
    panel.axvline(0, color=MUTED, linewidth=0.8, zorder=0)
    _name_rows(panel, [row.layer for row in rows])
    panel.set_title("quadratic forms of the kernels v of each layer")
    panel.legend(loc="best")


def _rank_ticks(count: int) -> list[int]:
    """Ticks from 1 to a count, few enough to be readable."""
    step = max(1, math.ceil(count / 10))
    return sorted({1, *range(step, count + 1, step)})


def _name_rows(panel: Axes, names: Sequence[str]) -> None:
    """A line for each name, by position, since two shortened names may be equal."""
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_yticks(range(len(names)), [short(name) for name in names])
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)

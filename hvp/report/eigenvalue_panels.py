"""The panels of single eigenvalues: by rank, by layer, and the spaces of their vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from hvp.comparison.part import Part
from hvp.comparison.results import Comparison
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.estimate import Estimate
from hvp.report import density_curves
from hvp.report.figure_style import MARKERS, STEPS, Hover, no_hover, power, short, write_out
from hvp.report.number_format import (
    End,
    eigenvalue_text,
    eigenvalues,
    share_text,
    typeset,
)
from hvp.report.palette import COLOURS, GRID, INK, MODELS, MUTED

BOUND_MARKERS: dict[End, str] = {"largest": "^", "smallest": "v"}
# A larger ratio of eigenvalues gets a logarithmic axis.
MAX_LINEAR_RATIO = 30
# Of models: markers that are no bounds, and the most eigenvalues of each.
MODEL_MARKERS, MAX_RANKS = ("o", "s", "D", "p", "X"), 10
# Layers of one panel.
MAX_LAYERS = 24
# The largest standard error of a share that is drawn.
MAX_SHARE_ERROR = 1.0
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
        if num_outputs - 1 <= count / 2:  # the largest are above and to the left
            panel.text(num_outputs - 0.4, 0.55, label, ha="left", va="center", transform=place)
        else:
            panel.text(num_outputs - 1, 0.97, label, ha="center", va="top", transform=place)
    has_bounds = False
    for offset, name in zip(offsets, names, strict=True):
        has_bounds |= _draw_ranks(
            panel,
            part,
            name,
            end,
            floor,
            offset=offset,
            hover=hover,
            hover_name=name,
            color=COLOURS[name],
            marker=MARKERS[name],
            fillstyle="full" if name == "H" else "none",
            label=name,
        )
    panel.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
    largest = max(part.spectra[name].norm for name in names)
    if largest < 10 * floor:  # do not enlarge noise to the height of the figure
        panel.set_ylim(-10 * floor, 10 * floor)
        panel.axhspan(-floor, floor, color=MUTED, alpha=0.15, linewidth=0)
    elif largest == 0:
        panel.set_ylim(-1, 1)
    panel.set_xlim(0.4, count + 0.6)
    panel.set_xticks(_rank_ticks(count))
    panel.set_title(f"the {_word(count)} {end} λ, ± sampling error")
    _name_axes_of_ranks(panel, has_bounds)
    write_out(panel.yaxis)
    if len(names) > 1:
        if end == "largest":
            panel.legend(loc="upper right", bbox_to_anchor=(1, 0.92))
        else:
            panel.legend(loc="lower right")


def _draw_ranks(
    panel: Axes,
    part: Part,
    letter: str,
    end: End,
    floor: float,
    *,
    most: int | None = None,
    offset: float,
    hover: Hover,
    hover_name: str,
    label: str,
    **symbol: Any,
) -> bool:
    """The eigenvalues of one end of a matrix by rank; returns whether some are bounds."""
    found = eigenvalues(getattr(part.spectra[letter], end), end, floor)[:most]
    sampling = getattr(part.sampling[letter], end)[:: STEPS[end]][:most]
    for rank, (each, error) in enumerate(zip(found, sampling, strict=True), start=1):
        shown = {"marker": BOUND_MARKERS[end], "fillstyle": "none"} if each.bound else {}
        (point, *_) = panel.errorbar(
            [rank + offset],
            [each.value],
            [np.nan_to_num(np.fmax(error, each.error))],
            **{**symbol, **shown},
            markersize=5,
            elinewidth=1.0,
            label=label if rank == 1 else None,
            linestyle="none",
        )
        hover(point, eigenvalue_text(hover_name, end, rank, each, error))
    return any(each.bound for each in found)


def largest_of_models(
    panel: Axes, comparisons: Sequence[Comparison], hover: Hover = no_hover
) -> None:
    """The largest eigenvalues of H of several models by rank, with bars for sampling errors."""
    has_bounds, values = False, []
    offsets = np.linspace(-0.2, 0.2, len(comparisons)) if len(comparisons) > 1 else np.zeros(1)
    for i, (comparison, offset) in enumerate(zip(comparisons, offsets, strict=True)):
        has_bounds |= _draw_ranks(
            panel,
            comparison.whole,
            "H",
            "largest",
            comparison.floor,
            most=MAX_RANKS,
            offset=offset,
            hover=hover,
            hover_name=f"{comparison.title}, H",
            color=MODELS[i % len(MODELS)],
            marker=MODEL_MARKERS[i % len(MODEL_MARKERS)],
            fillstyle="full" if i % 2 == 0 else "none",
            label=short(comparison.title),
        )
        values.append(comparison.whole.H.largest.values[::-1][:MAX_RANKS])
    count, every = max(map(len, values)), np.concatenate(values)
    if every.min() > 0 and every.max() > MAX_LINEAR_RATIO * every.min():
        panel.set_yscale("log")
        panel.set_ylim(every.min() / 2, 2 * every.max())
        panel.yaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    else:
        panel.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
        write_out(panel.yaxis)
    panel.set_xlim(0.4, count + 0.6)
    panel.set_xticks(_rank_ticks(count))
    panel.set_title(f"the {_word(count)} largest λ of H, ± sampling error")
    _name_axes_of_ranks(panel, has_bounds)
    panel.legend(loc="best")


def eigenpairs(panel: Axes, found: Eigenpairs) -> None:
    """The values of some eigenpairs in descending order, with their errors as bars."""
    places = np.arange(len(found.values), 0, -1)
    for is_separate, marker, style in ((True, "o", "full"), (False, "^", "none")):
        kept = found.separate == is_separate
        panel.errorbar(
            places[kept],
            found.values[kept],
            found.errors[kept],
            color=INK,
            marker=marker,
            fillstyle=style,
            markersize=5,
            elinewidth=1.0,
            linestyle="none",
        )
    panel.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
    count = len(places)
    panel.set_xlim(0.4, count + 0.6)
    ticks = _rank_ticks(count) if count else []
    ranks = ticks if found.ranks is None else [int(found.ranks[count - place]) for place in ticks]
    panel.set_xticks(ticks, [typeset(str(rank)) for rank in ranks])
    panel.set_title(f"{count:,} eigenvalues of {len(found.vectors):,}, ± ‖Av − λv‖")
    _name_axes_of_ranks(panel, not found.separate.all())
    write_out(panel.yaxis)


def _name_axes_of_ranks(panel: Axes, has_bounds: bool) -> None:
    panel.set_xlabel("rank (triangles are bounds)" if has_bounds else "rank")
    panel.set_ylabel("λ")


def _word(count: int) -> str:
    return WORDS[count] if count < len(WORDS) else str(count)


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
    """The shares of R in the trace and in the squared Frobenius norm of each layer's block.

    One with an error above `MAX_SHARE_ERROR` is left out: it would take all of the axis.
    """
    assert comparison.shares is not None
    shares = {comparison.whole.name: comparison.shares.whole, **comparison.shares.layers}
    measures = {"trace": ("trace", INK, "o"), "squared_norm": ("squared norm", MUTED, "D")}
    for measure, (label, colour, marker) in measures.items():
        for row, share in enumerate(shares.values()):
            e: Estimate[float] = getattr(share, measure)
            if not math.isfinite(e.value) or e.stderr > MAX_SHARE_ERROR:
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

"""The figure of a track: λ_max, λ_min, trace and loss along the points, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from hvp.comparison.checkpoints import numbers
from hvp.comparison.track_results import Track
from hvp.report.figure_style import BAND, MARKERS, NAMES, power, powers, short, style, write_out
from hvp.report.matplotlib_figure import FONT_SIZE, MAX_TITLE_LENGTH, write
from hvp.report.palette import COLOURS, GRID, INK, MUTED

SIZE_INCHES = (8.0, 6.0)
# Names below the axis, at most.
MAX_TICKS = 12
# A larger ratio of losses gets a logarithmic axis.
MAX_LINEAR_RATIO = 10.0


def save_figure(track: Track, *paths: Path) -> None:
    """Save the figure to files; the suffix of each path gives its format."""
    with style(FONT_SIZE):
        write(track_figure(track), *paths)


def track_figure(track: Track) -> Figure:
    """A figure that pyplot does not know."""
    return draw_track(Figure(figsize=SIZE_INCHES, layout="constrained"), track)


def draw_track(figure: Figure, track: Track) -> Figure:
    """Four panels over the same points: both ends of the spectrum, its trace, and the loss."""
    with style(FONT_SIZE):
        figure.suptitle(_title(track), x=0.01, ha="left", size=FONT_SIZE * 1.2)
        panels = figure.subplots(2, 2, sharex=True)
        (largest, smallest), (trace, loss) = panels
        counted = numbers([point.name for point in track.points])
        x = np.array(counted[1]) if counted else np.arange(len(track.points), dtype=float)
        rows = track.rows()

        def column(name: str) -> np.ndarray:
            return np.array([row[name] for row in rows], dtype=float)

        of = track.matrix
        _line(
            largest,
            x,
            column("largest"),
            column("largest_error"),
            of,
            f"largest eigenvalue of {of}",
        )
        _line(
            smallest,
            x,
            column("smallest"),
            column("smallest_error"),
            of,
            f"smallest eigenvalue of {of}",
        )
        _line(trace, x, column("trace"), column("trace_stderr"), of, f"trace of {of}")
        _loss(loss, x, column("loss"))
        for panel in (trace, loss):
            _ticks(panel, x, counted[0] if counted else None, [p.name for p in track.points])
    return figure


def _line(
    panel: Axes, x: np.ndarray, y: np.ndarray, error: np.ndarray, matrix: str, title: str
) -> None:
    """Values with a band of their errors, and zero where it is near."""
    colour = COLOURS[matrix]
    panel.plot(x, y, color=colour, marker=MARKERS[matrix], markersize=4)
    error = np.nan_to_num(error)
    panel.fill_between(x, y - error, y + error, color=colour, alpha=BAND, linewidth=0)
    low, high = panel.get_ylim()
    if low <= 0 <= high or min(abs(low), abs(high)) < 0.5 * (high - low):
        panel.set_ylim(min(low, 0.0), max(high, 0.0))
        panel.axhline(0, color=MUTED, linewidth=0.8)
    panel.set_title(title)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    write_out(panel.yaxis)


def _loss(panel: Axes, x: np.ndarray, y: np.ndarray) -> None:
    panel.plot(x, y, color=INK, marker="o", markersize=4)
    panel.set_title("loss")
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    if y.min() > 0 and y.max() > MAX_LINEAR_RATIO * y.min():
        panel.set_yscale("log")
        ticks = powers(*panel.get_ylim())
        panel.set_yticks(ticks, [power(tick) for tick in ticks])
        panel.yaxis.set_minor_locator(NullLocator())
    else:
        write_out(panel.yaxis)


def _ticks(panel: Axes, x: np.ndarray, counted: str | None, names: Sequence[str]) -> None:
    """The numbers that the points count, or their names, as many as there is room for."""
    if counted is not None:
        panel.set_xlabel(counted)
        return
    shown = np.unique(np.linspace(0, len(x) - 1, min(len(x), MAX_TICKS)).round().astype(int))
    panel.xaxis.set_major_locator(FixedLocator(list(x[shown])))
    is_long = len(x) > 1 and max(len(names[i]) for i in shown) * len(shown) > 40
    labels = panel.set_xticklabels([short(names[i]) for i in shown])
    for label in labels if is_long else ():
        label.set(rotation=30.0, ha="right", rotation_mode="anchor")


def _title(track: Track) -> str:
    name = track.title
    if len(name) > MAX_TITLE_LENGTH:
        name = f"{name[: MAX_TITLE_LENGTH - 1]}…"
    start = f"{name}: " if name else ""
    facts = f"{track.size:,} parameters, {track.num_examples:,} examples"
    return f"{start}{NAMES[track.matrix]} along a training, {facts}".replace("$", r"\$")

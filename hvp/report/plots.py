"""Single results as figures of pyplot, for notebooks and scripts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hvp.comparison.loss_slice import LossSlice
from hvp.comparison.results import Comparison
from hvp.comparison.track_results import Track
from hvp.linalg.density import Density
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.report import density_panels, eigenvalue_panels, slice_panels
from hvp.report.figure_style import style
from hvp.report.matplotlib_figure import SIZE_INCHES, draw_comparison
from hvp.report.palette import PAPER
from hvp.report.track_figure import SIZE_INCHES as TRACK_INCHES
from hvp.report.track_figure import draw_track

# Inches of a panel, and the size of the letters in points.
PANEL, FONT_SIZE = (6.4, 4.4), 10.0


def plot_density(d: Density, axes: Axes | None) -> Axes:
    """See `Density.plot`."""
    return _drawn(axes, lambda panel: density_panels.single_density(panel, d))


def plot_eigenpairs(pairs: Eigenpairs, axes: Axes | None) -> Axes:
    """See `Eigenpairs.plot`."""
    return _drawn(axes, lambda panel: eigenvalue_panels.eigenpairs(panel, pairs))


def plot_loss_slice(found: LossSlice) -> Figure:
    """See `LossSlice.plot`."""
    count = len(found.names)
    columns = min(count, 2)
    rows = math.ceil(count / columns)
    with style(FONT_SIZE):
        figure = _figure((PANEL[0] * columns, PANEL[1] * rows))
        for i in range(count):
            slice_panels.loss_slice(figure.add_subplot(rows, columns, i + 1), found, i)
        figure.draw_without_rendering()
    return figure


def plot_comparison(comparison: Comparison) -> Figure:
    """See `Comparison.plot`."""
    return draw_comparison(lambda layout: _figure(SIZE_INCHES, layout), comparison)


def plot_track(track: Track) -> Figure:
    """See `Track.plot`."""
    with style(FONT_SIZE):
        figure = draw_track(_figure(TRACK_INCHES), track)
        figure.draw_without_rendering()
    return figure


def _drawn(axes: Axes | None, draw: Callable[[Axes], Any]) -> Axes:
    """Draw in the axes given, as they are, or in a figure of their own."""
    if axes is not None:
        draw(axes)
        return axes
    with style(FONT_SIZE):
        figure = _figure(PANEL)
        panel = figure.add_subplot()
        draw(panel)
        figure.draw_without_rendering()  # ticks that are made later have another style
    return panel


def _figure(size: tuple[float, float], layout: Any = "constrained") -> Figure:
    """A figure on white, also in dark notebooks."""
    return pyplot.figure(figsize=size, layout=layout, facecolor=PAPER)

"""The panels of densities and of numbers of eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox, TransformedBbox

from hvp.comparison.part import Part
from hvp.linalg.density import Density
from hvp.linalg.smoothing import to_log
from hvp.report import density_curves, number_format
from hvp.report.density_curves import Curve
from hvp.report.figure_style import BAND, NAMES, STEPS, Hover, no_hover, power, powers, write_out
from hvp.report.number_format import eigenvalue_text, eigenvalues, typeset
from hvp.report.palette import COLOURS, INK, MUTED

# Opacity of the area below a curve.
AREA = 0.08
# The upper edge of a figure over the highest curve: room for the legend.
HEADROOM = 10.0
# Height of a row of ticks below the densities, as a share of the panel.
TICK_ROW = 0.045
# The least distance of two ticks of a logarithmic axis, as a share of its half.
MIN_TICK_DISTANCE = 0.15
# Left free at each end of the axis, as a share of what is drawn.
MARGIN = 0.03
# Thresholds of a curve of counts.
NUM_THRESHOLDS = 60


def densities(
    panel: Axes,
    part: Part,
    hover: Hover = no_hover,
    limits: tuple[float, float] | None = None,
) -> Mapping[str, Curve]:
    """The densities over λ, with a tick for each separate eigenvalue; `limits` are those of λ."""
    found = density_curves.linear(part)
    _draw_curves(panel, part, found, lambda values: values, hover)
    width = next(iter(found.values())).width
    known = typeset(number_format.known(width, 0.0, 2))
    panel.set_title(f"spectral density, kernel width σ = {known}")
    panel.set_xlabel("eigenvalue λ")
    if limits is not None:
        panel.set_xlim(limits)
    write_out(panel.xaxis)
    return found


def curve_limits(found: Mapping[str, Curve]) -> tuple[float, float]:
    """The part of the axis where some curve is above the lower edge, with a margin."""
    seen = [c.x[c.values > density_curves.BOTTOM] for c in found.values()]
    low, high = min(x[0] for x in seen), max(x[-1] for x in seen)
    return low - MARGIN * (high - low), high + MARGIN * (high - low)


def log_densities(panel: Axes, part: Part, hover: Hover = no_hover) -> Mapping[str, Curve]:
    """The densities over an axis that is logarithmic on both sides of zero."""
    found, origin = density_curves.logarithmic(part), density_curves.origin(part)
    panel.axvspan(-math.log10(2), math.log10(2), color=MUTED, alpha=0.12, linewidth=0, zorder=0)
    _draw_curves(panel, part, found, lambda values: to_log(values, origin), hover)
    width = next(iter(found.values())).width
    known = typeset(number_format.known(width, 0.0, 2))
    panel.set_title(f"the same on a logarithmic axis, kernel width {known} decades")
    low, high = panel.get_xlim()
    ticks, labels = _log_ticks(origin, max(-low, high))
    panel.set_xticks(ticks, labels)
    panel.set_xlim(low, high)
    linear = typeset(number_format.known(origin, 0.0, 2))
    panel.set_xlabel(f"eigenvalue λ, linear for |λ| < {linear}")
    return found


def counts(panel: Axes, part: Part, floor: float) -> None:
    """The numbers of eigenvalues above λ and below -λ, as far as they are known."""
    largest = max(spectrum.norm for spectrum in part.spectra.values()) or 1.0
    lowest = largest / 10
    found = density_curves.drawn(part)
    for name, d in reversed(list(found.items())):  # H is on top
        for sign, style in ((1, "-"), (-1, ":")):
            thresholds, values, errors = _known_counts(d, sign, floor, largest)
            if not len(thresholds):
                continue
            lowest = min(lowest, thresholds[0])
            low, high = values**2 / (values + errors), values + errors
            panel.fill_between(thresholds, low, high, color=COLOURS[name], alpha=BAND, linewidth=0)
            label = NAMES[name] if sign > 0 else None
            panel.plot(thresholds, values, linestyle=style, color=COLOURS[name], label=label)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(lowest / 1.2, 1.2 * largest)
    panel.set_ylim(0.5, 2 * part.size)
    for axis in (panel.xaxis, panel.yaxis):
        _label_powers(axis, *axis.get_view_interval())
    panel.set_title("number of eigenvalues above λ (solid), below −λ (dotted)")
    panel.set_xlabel("λ")
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        panel.legend(handles[::-1], labels[::-1], loc="lower left")


def count_rows(part: Part, floor: float) -> list[tuple[Any, ...]]:
    """The points of `counts` as rows of a table."""
    largest = max(spectrum.norm for spectrum in part.spectra.values()) or 1.0
    rows: list[tuple[Any, ...]] = [("matrix", "threshold", "eigenvalues beyond it", "error")]
    for name, d in density_curves.drawn(part).items():
        for sign in (1, -1):
            found = _known_counts(d, sign, floor, largest)
            rows += [(name, sign * x, value, error) for x, value, error in zip(*found, strict=True)]
    return rows


def _known_counts(
    d: Density, sign: int, floor: float, largest: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds, counts beyond them and their errors, where fewer steps give about the same.

    They end where that is so no more, closer to zero: what seems known beyond is by chance.
    """
    least = max(floor, d.floor)
    even = np.geomspace(min(10 * least or 1e-6 * largest, largest / 10), largest, NUM_THRESHOLDS)
    steps = sign * d.outliers - 2 * least  # the count grows by one at each
    thresholds = np.unique(np.r_[even, steps[steps > even[0]]])
    count = d.count_above if sign > 0 else d.count_below
    found = [count(sign * x, floor=least) for x in thresholds]
    counted = np.array([e.value >= 0.5 for e in found])
    unknown = counted & np.array([number_format.is_unknown(e) for e in found])
    known = counted & (np.arange(len(found)) > np.flatnonzero(unknown).max(initial=-1))
    values = np.array([e.value for e in found])
    errors = np.array([np.nan_to_num(e.stderr) + e.depth for e in found])
    return thresholds[known], values[known], errors[known]


def single_density(panel: Axes, d: Density) -> Curve:
    """One density over λ, with a tick for each outlier."""
    found = density_curves.linear_of(d, density_curves.kernel_width_of(d))
    _draw_lines(panel, {"": found}, {"": INK}, {})
    panel.plot(
        d.outliers,
        np.full(len(d.outliers), TICK_ROW / 2),
        color=INK,
        transform=panel.get_xaxis_transform(),
        marker="|",
        markersize=6,
        markeredgewidth=1.2,
        linestyle="none",
    )
    panel.set_xlim(curve_limits({"": found}))
    known = typeset(number_format.known(found.width, 0.0, 2))
    panel.set_title(f"density of {d.size:,} eigenvalues, kernel width σ = {known}")
    panel.set_xlabel("eigenvalue λ")
    write_out(panel.xaxis)
    return found


def _draw_curves(
    panel: Axes,
    part: Part,
    found: Mapping[str, Curve],
    coordinate: Callable[[np.ndarray], np.ndarray],
    hover: Hover,
) -> None:
    """Curves with rows of ticks below them."""
    _draw_lines(panel, found, COLOURS, NAMES)
    for row, name in enumerate(reversed(list(found))):
        _draw_ticks(panel, part, name, (row + 0.5) * TICK_ROW, coordinate, hover)
    panel.set_xlim(curve_limits(found))
    handles, labels = panel.get_legend_handles_labels()
    panel.legend(handles[::-1], labels[::-1], loc="best")


def _draw_lines(
    panel: Axes,
    found: Mapping[str, Curve],
    colours: Mapping[str, str],
    labels: Mapping[str, str],
) -> None:
    """Curves with bands of one standard error, above the rows of ticks."""
    bottom = density_curves.BOTTOM
    start = TICK_ROW * len(found) + 0.02
    deepest = bottom * density_curves.DEEPER
    for name, curve in reversed(list(found.items())):  # H is on top
        line = np.maximum(curve.values, deepest)
        high = line + curve.stderrs  # the band is as wide below the line on a logarithmic axis
        low = line**2 / high
        options: dict[str, Any] = {"color": colours[name], "linewidth": 0}
        artists = [
            panel.fill_between(curve.x, deepest, line, alpha=AREA, **options),
            panel.fill_between(curve.x, low, high, alpha=BAND, **options),
            *panel.plot(curve.x, line, color=colours[name], label=labels.get(name)),
        ]
        above = TransformedBbox(Bbox.from_extents(0, start, 1, 1), panel.transAxes)
        for artist in artists:
            artist.set_clip_path(None)
            artist.set_clip_box(above)  # a path would get another name in each file
    top = HEADROOM * max(float(curve.values.max()) for curve in found.values())
    # The curves end above the rows of ticks.
    span = math.log10(top / bottom) / (1 - start)
    panel.set_yscale("log")
    panel.set_ylim(top / 10**span, top)
    _label_powers(panel.yaxis, bottom, top)
    panel.set_ylabel("eigenvalues per kernel width")


def _draw_ticks(
    panel: Axes,
    part: Part,
    name: str,
    height: float,
    coordinate: Callable[[np.ndarray], np.ndarray],
    hover: Hover,
) -> None:
    """A tick for each separate eigenvalue of both ends."""
    for end, step in STEPS.items():
        pairs = getattr(part.spectra[name], end)
        found = eigenvalues(pairs, end, 0.0)
        sampling = getattr(part.sampling[name], end)[::step]
        for i in map(int, np.flatnonzero(pairs.separate[::step])):
            (tick,) = panel.plot(
                coordinate(np.array([found[i].value])),
                [height],
                color=COLOURS[name],
                transform=panel.get_xaxis_transform(),
                marker="|",
                markersize=6,
                markeredgewidth=1.2,
                linestyle="none",
            )
            hover(tick, eigenvalue_text(name, end, i + 1, found[i], sampling[i]))


def _log_ticks(origin: float, reach: float) -> tuple[list[float], list[str]]:
    """Ticks at powers of ten on both sides of zero, few enough to be readable."""
    first = math.ceil(math.log10(origin))
    last = max(math.floor(math.log10(origin) + reach), first)
    sizes = [
        size
        for size in powers(10.0**first, 10.0**last, 3)
        if to_log(np.array(size), origin) > MIN_TICK_DISTANCE * reach
    ]
    values = [*(-size for size in sizes), 0.0, *reversed(sizes)]
    labels = [f"{'−' if v < 0 else ''}{power(abs(v))}" if v else "0" for v in values]
    return to_log(np.array(values), origin).tolist(), labels


def _label_powers(axis: Axis, low: float, high: float) -> None:
    """Ticks at powers of ten, on an axis that is logarithmic already."""
    axis.set_major_locator(FixedLocator(powers(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    axis.set_minor_locator(NullLocator())

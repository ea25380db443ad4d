"""The figures of the page, which one may turn, point at and switch on and off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from hvp.linalg.density import Density
from hvp.linalg.estimate import Estimate
from hvp.linalg.smoothing import to_log
from hvp.report import density_curves, number_format, plotly_style
from hvp.report.density_curves import Curve
from hvp.report.number_format import SINGLE, typeset
from hvp.report.palette import COLOURS, GRID, INK, MUTED, faint

COUNTED = 60
# Eigenvalues that differ by more stand on a logarithmic axis.
WIDE = 30
ENDS = {"largest": "≥", "smallest": "≤"}
SYMBOLS = {"H": "circle", "G": "square-open", "R": "diamond"}
BOUNDS = {"largest": "triangle-up-open", "smallest": "triangle-down-open"}
FAMILIES = (
    "densities, linear",
    "densities, logarithmic",
    "counts",
    "largest",
    "smallest",
    "overlaps",
    "angles",
)


def figures(comparison: Any) -> str:
    """All figures as JSON that may stand in a page: name -> part (or "") -> data and layout."""
    found: dict[str, dict[str, Any]] = {
        "layers, λ": {"": layer_extremes(comparison)},
        "layers, shares": {"": layer_shares(comparison)},
    }
    for name, part in comparison.parts.items():
        drawn = (
            densities(part),
            log_densities(part),
            counts(part, comparison.floor),
            ends(part, "largest", comparison.floor),
            ends(part, "smallest", comparison.floor),
            overlaps(comparison, part),
            angles(part),
        )
        for family, figure in zip(FAMILIES, drawn, strict=True):
            found.setdefault(family, {})[name] = figure
    plain = {
        family: {name: figure.to_dict() for name, figure in members.items()}
        for family, members in found.items()
    }
    return plotly_style.for_page(plain)


def densities(part: Any) -> go.Figure:
    """Densities per unit of λ with their standard errors, and a tick for each outlier."""
    found = density_curves.linear(part)
    figure = plotly_style.empty("eigenvalues per unit of λ, share of all", height=460)
    bottom = density_curves.BELOW_ONE * density_curves.alone(
        part.size, max(c.width for c in found.values())
    )
    for letter in _uppermost_last(found):
        _curve(figure, letter, found[letter], density_curves.DEEPER * bottom)
    _ticks(figure, part, lambda values: values)
    top = max(float(curve.values.max()) for curve in found.values())
    figure.update_layout(yaxis=plotly_style.log_axis(bottom, 2 * top))
    figure.update_xaxes(title_text="λ")
    figure.add_vline(0, line={"color": GRID, "width": 1}, layer="below")
    note = (
        f"Smoothed by bells of standard width {_widths(found)}; even waves are no structure but "
        "the distances between Lanczos nodes, where these are wider."
    )
    return plotly_style.noted(figure, note + _coincidence(part), near=density_curves.near(part))


def log_densities(part: Any) -> go.Figure:
    """Densities per decade, on an axis that is logarithmic on both sides of zero."""
    found, origin = density_curves.logarithmic(part), density_curves.origin(part)
    figure = plotly_style.empty("eigenvalues per decade, share of all", height=460)
    for letter in _uppermost_last(found):
        _curve(figure, letter, found[letter], 0.0)
    _ticks(figure, part, lambda values: to_log(values, origin))
    edges = to_log(3 * np.array(_extremes(part)), origin) + np.array([-0.3, 0.3])
    places, labels = plotly_style.log_ticks(origin, float(np.abs(edges).max()))
    figure.update_xaxes(
        title_text="λ, logarithmic on both sides of zero",
        tickvals=places,
        ticktext=labels,
        tickangle=0,
        range=edges.tolist(),
    )
    figure.update_layout(yaxis={"rangemode": "tozero"})
    untold = math.log10(2)
    figure.add_vrect(
        -untold, untold, fillcolor=faint(MUTED, plotly_style.BAND), line_width=0, layer="below"
    )
    return plotly_style.noted(
        figure,
        f"Smoothed by bells of standard width {_widths(found)} decades: what is narrower, or on "
        "which side of zero it lies, so many Lanczos steps do not resolve. Within the grey strip "
        f"nothing can be told from zero.{_coincidence(part)}",
    )


def counts(part: Any, floor: float) -> go.Figure:
    """How many eigenvalues lie beyond λ and beyond -λ, where that can be told."""
    figure = plotly_style.empty("number of eigenvalues beyond λ")
    largest = max(getattr(part, letter).norm for letter in "HGR") or 1.0
    lowest = largest
    drawn = density_curves.drawn(part)
    for letter in _uppermost_last(drawn):
        d = drawn[letter]
        least = max(floor, d.floor)
        even = np.geomspace(min(10 * least or 1e-6 * largest, largest / 10), largest, COUNTED)
        for sign, style in ((1, "solid"), (-1, "dot")):
            own = sign * d.outliers - 2 * least  # where the count is one more
            thresholds = np.unique(np.r_[even, own[own > even[0]]])
            found = [_beyond(d, sign * x, least) for x in thresholds]
            told = np.array([e.value >= 0.5 and not number_format.is_untold(e) for e in found])
            if not told.any():
                continue
            x = thresholds[told]
            lowest = min(lowest, x[0])
            value, error = np.array([[e.value, e.stderr + e.depth] for e in found])[told].T
            low, high = np.maximum(value - error, 0.1), value + error
            plotly_style.band(figure, letter, x, low, high)
            figure.add_scatter(
                x=x,
                y=value,
                name=letter,
                legendgroup=letter,
                legendrank="HGR".index(letter),
                showlegend=sign > 0,
                mode="lines",
                line={"color": COLOURS[letter], "width": 2, "dash": style},
                text=[
                    _counted(e, sign * λ) for e, λ in zip(found, thresholds, strict=True) if λ in x
                ],
                hovertemplate=f"{letter}: %{{text}}<extra></extra>",
            )
    figure.update_layout(xaxis=plotly_style.log_axis(lowest / 1.2, 1.2 * largest))
    figure.update_layout(xaxis_title_text="λ", yaxis=plotly_style.log_axis(0.5, 2 * part.size))
    return figure


def ends(part: Any, end: str, floor: float) -> go.Figure:
    """The k eigenvalues of one end, from the outermost in; bars are what other data would do."""
    figure = plotly_style.empty(f"λ, {end} first")
    count = len(part.H.largest.values)
    shift = min(0.2, 0.02 * count + 0.1)
    largest = 0.0
    for offset, letter in zip((-shift, 0.0, shift), density_curves.drawn(part), strict=False):
        pairs, moved = getattr(getattr(part, letter), end), getattr(part.sampling[letter], end)
        order = slice(None, None, -1) if end == "largest" else slice(None)
        separate = pairs.separate[order] | (pairs.errors[order] == 0)
        values, errors, moved = pairs.values[order], pairs.errors[order], moved[order]
        texts = [
            _eigenvalue(letter, rank, *row, end=end)
            for rank, row in enumerate(zip(values, errors, moved, separate, strict=True), start=1)
        ]
        largest = max(largest, float(np.max(np.abs(values) + errors)))
        ranks = np.arange(1, count + 1) + offset
        for shown, symbol in ((separate, SYMBOLS[letter]), (~separate, BOUNDS[end])):
            first = shown is separate
            figure.add_scatter(
                x=ranks[shown],
                y=values[shown],
                error_y={
                    "array": np.nan_to_num(np.fmax(moved, errors)[shown]),
                    "color": faint(COLOURS[letter], 0.5),
                    "thickness": 1.5,
                    "width": 0,
                },
                name=letter,
                legendgroup=letter,
                showlegend=first == bool(separate.any()),
                mode="markers",
                marker={"color": COLOURS[letter], "symbol": symbol, "size": 8},
                text=[text for text, is_in in zip(texts, shown, strict=True) if is_in],
                hovertemplate="%{text}<extra></extra>",
            )
    figure.add_hline(0, line={"color": MUTED, "width": 1}, layer="below")
    if largest < 10 * floor:  # noise is not blown up to the height of the figure
        figure.update_yaxes(range=[-10 * floor, 10 * floor])
        figure.add_hrect(
            -floor, floor, fillcolor=faint(MUTED, plotly_style.BAND), line_width=0, layer="below"
        )
    figure.update_xaxes(
        title_text="rank", tickvals=plotly_style.ranks(count), range=[0.4, count + 0.6]
    )
    return figure


def overlaps(comparison: Any, chosen: Any) -> go.Figure:
    """The share of H's space of i top vectors that lies in G's, of one part beside the others."""
    figure = plotly_style.empty("share of H's top space in G's, %", height=350, lifted=8)
    lowest = 100.0
    for part in sorted(comparison.parts.values(), key=lambda part: part.name == chosen.name):
        shares = [100 * float(np.mean(np.cos(a) ** 2)) for a in part.angles_by_count]
        mine = part.name == chosen.name
        lowest = min(lowest, *shares)
        figure.add_scatter(
            x=np.arange(1, len(shares) + 1),
            y=shares,
            name=plotly_style.cut(part.name),
            showlegend=False,
            mode="lines+markers" if mine else "lines",
            line={"color": INK if mine else faint(MUTED, 0.6), "width": 2.5 if mine else 1.5},
            marker={"size": 6},
            hovertemplate=plotly_style.safe(part.name) + ", k = %{x}: %{y:.1f} %<extra></extra>",
        )
    count = len(chosen.angles_by_count)
    figure.update_xaxes(
        title_text="k", tickvals=plotly_style.ranks(count), range=[0.5, count + 0.5]
    )
    bottom = 10 * max(math.floor(lowest / 10) - 1, 0)
    figure.update_yaxes(range=[bottom - 0.03 * (100 - bottom), 100 + 0.03 * (100 - bottom)])
    return figure


def angles(part: Any) -> go.Figure:
    """Every principal angle between the spaces of i top vectors, for all i."""
    figure = plotly_style.empty("principal angles, degrees", height=350, lifted=8)
    each = [(i, a) for i, row in enumerate(part.angles_by_count, start=1) for a in np.degrees(row)]
    x, y = np.array(each).T
    figure.add_scatter(
        x=x,
        y=y,
        showlegend=False,
        mode="markers",
        marker={"color": faint(INK, 0.6), "size": 6},
        hovertemplate="k = %{x}: %{y:.1f}°<extra></extra>",
    )
    count = len(part.angles_by_count)
    figure.update_xaxes(
        title_text="k", tickvals=plotly_style.ranks(count), range=[0.5, count + 0.5]
    )
    figure.update_yaxes(range=[-3, 93], tickvals=[0, 30, 60, 90])
    return figure


def layer_extremes(comparison: Any) -> go.Figure:
    """The largest eigenvalue of every layer's own block."""
    layers = list(comparison.parts.values())
    row = {part.name: i for i, part in enumerate(layers)}
    figure = plotly_style.empty("", height=_height(layers))
    least = max(comparison.floor, 1e-300)
    seen: list[float] = []
    for letter in COLOURS:
        kept = [part for part in layers if getattr(part, letter).largest.values[-1] > least]
        pairs = [getattr(part, letter).largest for part in kept]
        moved = [part.sampling[letter].largest[-1] for part in kept]
        seen += [found.values[-1] for found in pairs]
        figure.add_scatter(
            x=[found.values[-1] for found in pairs],
            y=[row[part.name] for part in kept],
            name=letter,
            mode="markers",
            marker={"color": COLOURS[letter], "symbol": SYMBOLS[letter], "size": 10},
            text=[
                _eigenvalue(letter, 1, p.values[-1], p.errors[-1], m, True, "largest")
                for p, m in zip(pairs, moved, strict=True)
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    spread = max(seen, default=1.0) / min(seen, default=1.0)
    figure.update_xaxes(title_text="λ<sub>max</sub>", showgrid=True)
    if spread > WIDE:
        figure.update_layout(xaxis=plotly_style.log_axis(min(seen) / 1.5, max(seen) * 1.5))
    else:
        figure.update_xaxes(rangemode="tozero")
    _by_layer(figure, layers)
    return figure


def layer_shares(comparison: Any) -> go.Figure:
    """What of the trace and of the squared Frobenius norm of each layer's block is R's."""
    layers = list(comparison.parts.values())
    shares = _shares(comparison)
    row = {part.name: i for i, part in enumerate(layers)}
    figure = plotly_style.empty("", height=_height(layers))
    measures = {"trace": ("trace", INK, "circle"), "squared_norm": ("‖·‖²", MUTED, "diamond-open")}
    for measure, (label, colour, symbol) in measures.items():
        found = {name: getattr(share, measure) for name, share in shares.items()}
        found = {name: e for name, e in found.items() if math.isfinite(e.value)}
        figure.add_scatter(
            x=[100 * e.value for e in found.values()],
            y=[row[name] for name in found],
            error_x={
                "array": [100 * e.stderr for e in found.values()],
                "color": colour,
                "thickness": 1.5,
                "width": 0,
            },
            name=label,
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 9},
            text=[_share(e) for e in found.values()],
            hovertemplate=f"{label}: %{{text}}<extra></extra>",
        )
    figure.add_vline(0, line={"color": MUTED, "width": 1}, layer="below")
    figure.update_xaxes(title_text="share of R, %", showgrid=True)
    _by_layer(figure, layers)
    return figure


def _widths(found: Mapping[str, Curve]) -> str:
    """Each width with the operators that it is of."""
    named: dict[str, list[str]] = {}
    for letter, curve in found.items():
        named.setdefault(number_format.known(curve.width, 0.0, 2), []).append(letter)
    return typeset(
        ", ".join(f"{value} ({' and '.join(letters)})" for value, letters in named.items())
    )


def _uppermost_last(found: Iterable[str]) -> list[str]:
    """R, then G, then H over both; the legend has them the other way round."""
    return list(found)[::-1]


def _coincidence(part: Any) -> str:
    return " R vanishes here: the curves of H and G are the same." if part.agrees else ""


def _extremes(part: Any) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of all operators, and zero."""
    spectra = [getattr(part, letter) for letter in "HGR"]
    low = min(s.smallest.values[0] for s in spectra)
    high = max(s.largest.values[-1] for s in spectra)
    return min(float(low), 0.0), max(float(high), 0.0)


def _curve(figure: go.Figure, letter: str, curve: Curve, bottom: float) -> None:
    values, stderrs = curve.values, curve.stderrs
    low, high = np.maximum(values - stderrs, bottom), values + stderrs
    plotly_style.band(figure, letter, curve.x, low, high)
    told = [curve.points, stderrs]
    other = ""
    if np.isfinite(curve.sampling).all():
        told.append(curve.sampling)
        other = ", ± %{customdata[2]:.1g} other data"
    figure.add_scatter(
        x=curve.x.astype(np.float32),
        y=np.maximum(values, bottom).astype(np.float32),
        name=letter,
        legendgroup=letter,
        legendrank="HGR".index(letter),
        mode="lines",
        line={"color": COLOURS[letter], "width": 1.5},
        customdata=np.stack(told, axis=1).astype(np.float32),
        hovertemplate=(
            f"{letter}: %{{y:.3g}} at λ = %{{customdata[0]:.3g}}"
            f"<br>± %{{customdata[1]:.1g}} probes{other}<extra></extra>"
        ),
    )


def _ticks(figure: go.Figure, part: Any, place: Any) -> None:
    """A row of ticks an operator below the curves: the eigenvalues that are known one by one."""
    for letter in density_curves.drawn(part):
        spectrum = getattr(part, letter)
        values, texts = [], []
        for end, step in {"largest": -1, "smallest": 1}.items():
            pairs, moved = getattr(spectrum, end), getattr(part.sampling[letter], end)
            rows = zip(pairs.values, pairs.errors, moved, pairs.separate, strict=True)
            for rank, row in enumerate(list(rows)[::step], start=1):
                if row[3]:
                    values.append(row[0])
                    texts.append(_eigenvalue(letter, rank, *row, end=end))
        figure.add_scatter(
            x=place(np.array(values)),
            y=[letter] * len(values),
            yaxis="y2",
            legendgroup=letter,
            showlegend=False,
            mode="markers",
            marker={
                "symbol": "line-ns-open",
                "size": 11,
                "color": COLOURS[letter],
                "line": {"width": 1.5},
            },
            text=texts,
            hovertemplate="%{text}<extra></extra>",
        )
    strips = len(density_curves.drawn(part))
    figure.update_layout(
        yaxis={"domain": [0.06 * strips + 0.04, 1]},
        yaxis2={
            "domain": [0, 0.06 * strips],
            "categoryorder": "array",
            "categoryarray": [*density_curves.drawn(part)][::-1],
            "showgrid": False,
            "type": "category",
            "tickfont": {"color": INK},
            "ticks": "",
            "fixedrange": True,
            "range": [-0.5, strips - 0.5],
        },
        xaxis={"anchor": "y2"},
    )


def _eigenvalue(
    letter: str, rank: int, value: float, error: float, moved: float, separate: bool, end: str
) -> str:
    """What is said of an eigenvalue that is pointed at."""
    found = number_format.bounded(value, error, separate, ENDS[end])
    other = (
        f"± {number_format.margin(moved)} by other data"
        if math.isfinite(moved)
        else f"data: {SINGLE}"
    )
    return typeset(f"{letter}, {end} no. {rank}: {found}<br>{other}")


def _share(e: Estimate[float]) -> str:
    """What is said of a share that is pointed at."""
    other = f"± {number_format.margin(100 * e.sampling)} % by other data"
    return typeset(f"{number_format.shared(e)}<br>{other if math.isfinite(e.sampling) else SINGLE}")


def _counted(e: Estimate[float], threshold: float) -> str:
    """What is said of a count that is pointed at."""
    beyond = "above" if threshold > 0 else "below"
    other = (
        f", ± {number_format.margin(e.sampling)} other data" if math.isfinite(e.sampling) else ""
    )
    count = number_format.known(e.value, max(e.stderr, e.depth))
    return typeset(
        f"{count} {beyond} {number_format.known(threshold, 0, 3)}"
        f"<br>± {number_format.margin(e.stderr)} probes"
        f", ± {number_format.margin(e.depth)} depth{other}"
    )


def _beyond(d: Density, threshold: float, floor: float) -> Estimate[float]:
    """The number of eigenvalues beyond a threshold, as seen from zero."""
    if threshold > 0:
        return d.count_above(threshold, floor=floor)
    return d.count_below(threshold, floor=floor)


def _shares(comparison: Any) -> dict[str, Any]:
    whole = comparison.whole.name
    return {whole: comparison.shares.whole, **comparison.shares.layers}


def _height(layers: list[Any]) -> int:
    return 130 + 34 * len(layers)


def _by_layer(figure: go.Figure, layers: list[Any]) -> None:
    """Rows by their places, as two names that were cut may look the same."""
    figure.update_yaxes(
        tickvals=list(range(len(layers))),
        ticktext=[plotly_style.cut(part.name) for part in layers],
        range=[len(layers) - 0.4, -0.6],
        ticks="",
        tickfont={"color": INK},
    )

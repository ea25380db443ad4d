"""The interactive figures of the page, as plotly JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from hvp.comparison.results import Comparison, Part
from hvp.linalg.density import Density
from hvp.linalg.eigsh import Eigenpairs
from hvp.linalg.estimate import Estimate
from hvp.linalg.layer_traces import Share
from hvp.linalg.smoothing import to_log
from hvp.report import density_curves, number_format, plotly_style
from hvp.report.density_curves import Curve
from hvp.report.number_format import SINGLE, Eigenvalue, End, eigenvalues, typeset
from hvp.report.palette import COLOURS, GRID, INK, MUTED, faint

# Thresholds of a curve of counts.
NUM_THRESHOLDS = 60
# A larger ratio of eigenvalues gets a logarithmic axis.
MAX_LINEAR_RATIO = 30
# The step through pairs in ascending order that visits the outermost first.
ENDS: dict[End, int] = {"largest": -1, "smallest": 1}
SYMBOLS = {"H": "circle", "G": "square-open", "R": "diamond"}
BOUND_SYMBOLS: dict[End, str] = {"largest": "triangle-up-open", "smallest": "triangle-down-open"}
FAMILIES = (
    "densities, linear",
    "densities, logarithmic",
    "counts",
    "largest",
    "smallest",
    "overlaps",
    "angles",
)


def figures(comparison: Comparison) -> str:
    """All figures as JSON for the page: figure name -> part name (or "") -> data and layout."""
    found: dict[str, dict[str, Any]] = {
        "layers, λ": {"": layer_extremes(comparison)},
        "layers, shares": {"": layer_shares(comparison)},
    }
    for name, part in comparison.parts.items():
        figures_of_part = (
            densities(part, comparison.floor),
            log_densities(part, comparison.floor),
            counts(part, comparison.floor),
            ends(part, "largest", comparison.floor),
            ends(part, "smallest", comparison.floor),
            overlaps(comparison, part),
            angles(part),
        )
        for family, figure in zip(FAMILIES, figures_of_part, strict=True):
            found.setdefault(family, {})[name] = figure
    plain = {
        family: {name: figure.to_dict() for name, figure in members.items()}
        for family, members in found.items()
    }
    return plotly_style.for_page(plain)


def densities(part: Part, floor: float) -> go.Figure:
    """Densities per unit of λ with their standard errors, and a tick for each outlier."""
    found = density_curves.linear(part)
    figure = plotly_style.empty("eigenvalues per unit of λ, share of all", height=460)
    bottom = density_curves.BELOW_ONE * density_curves.alone(
        part.size, max(c.width for c in found.values())
    )
    for letter in _uppermost_last(found):
        _curve(figure, letter, found[letter], density_curves.DEEPER * bottom)
    _ticks(figure, part, floor, lambda values: values)
    top = max(float(curve.values.max()) for curve in found.values())
    figure.update_layout(yaxis=plotly_style.log_axis(bottom, 2 * top))
    figure.update_xaxes(title_text="λ")
    figure.add_vline(0, line={"color": GRID, "width": 1}, layer="below")
    note = (
        f"Smoothed with Gaussians of standard deviation {_widths(found)}. Regular waves are not "
        "structure of the spectrum: they appear where Lanczos nodes lie further apart than this."
    )
    return plotly_style.noted(figure, note + _coincidence(part), near=density_curves.near(part))


def log_densities(part: Part, floor: float) -> go.Figure:
    """Densities per decade, on an axis that is logarithmic on both sides of zero."""
    found, origin = density_curves.logarithmic(part), density_curves.origin(part)
    figure = plotly_style.empty("eigenvalues per decade, share of all", height=460)
    for letter in _uppermost_last(found):
        _curve(figure, letter, found[letter], 0.0)
    _ticks(figure, part, floor, lambda values: to_log(values, origin))
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
    strip = math.log10(2)
    figure.add_vrect(
        -strip, strip, fillcolor=faint(MUTED, plotly_style.BAND), line_width=0, layer="below"
    )
    return plotly_style.noted(
        figure,
        f"Smoothed with Gaussians of standard deviation {_widths(found)} decades: this many "
        "Lanczos steps resolve nothing narrower. Values inside the grey strip may be "
        f"zero.{_coincidence(part)}",
    )


def counts(part: Part, floor: float) -> go.Figure:
    """The numbers of eigenvalues above λ and below -λ, as far as they are known."""
    figure = plotly_style.empty("number of eigenvalues beyond λ")
    largest = max(spectrum.norm for spectrum in part.spectra.values()) or 1.0
    lowest = largest
    drawn = density_curves.drawn(part)
    for letter in _uppermost_last(drawn):
        d = drawn[letter]
        least = max(floor, d.floor)
        even = np.geomspace(
            min(10 * least or 1e-6 * largest, largest / 10), largest, NUM_THRESHOLDS
        )
        for sign, style in ((1, "solid"), (-1, "dot")):
            steps = sign * d.outliers - 2 * least  # the count grows by one at each
            thresholds = np.unique(np.r_[even, steps[steps > even[0]]])
            found = [_beyond(d, sign * x, least) for x in thresholds]
            is_known = np.array([e.value >= 0.5 and not number_format.is_unknown(e) for e in found])
            if not is_known.any():
                continue
            x = thresholds[is_known]
            lowest = min(lowest, x[0])
            value, error = np.array([[e.value, e.stderr + e.depth] for e in found])[is_known].T
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


def ends(part: Part, end: End, floor: float) -> go.Figure:
    """The k eigenvalues of one end, the outermost first, with bars for the sampling errors."""
    figure = plotly_style.empty(f"λ, {end} first")
    count = len(part.H.largest.values)
    shift = min(0.2, 0.02 * count + 0.1)
    largest = 0.0
    for offset, letter in zip((-shift, 0.0, shift), density_curves.drawn(part), strict=False):
        pairs = _pairs(part, letter, end)
        order = slice(None, None, -1) if end == "largest" else slice(None)
        values, errors = pairs.values[order], pairs.errors[order]
        sampling = _sampling(part, letter, end)[order]
        found = eigenvalues(pairs, end, floor)
        texts = [
            _eigenvalue_text(letter, end, rank, eigenvalue, error)
            for rank, (eigenvalue, error) in enumerate(zip(found, sampling, strict=True), start=1)
        ]
        resolved = np.array([not eigenvalue.bound for eigenvalue in found])
        largest = max(largest, float(np.max(np.abs(values) + errors)))
        ranks = np.arange(1, count + 1) + offset
        for shown, symbol in ((resolved, SYMBOLS[letter]), (~resolved, BOUND_SYMBOLS[end])):
            first = shown is resolved
            figure.add_scatter(
                x=ranks[shown],
                y=values[shown],
                error_y={
                    "array": np.nan_to_num(np.fmax(sampling, errors)[shown]),
                    "color": faint(COLOURS[letter], 0.5),
                    "thickness": 1.5,
                    "width": 0,
                },
                name=letter,
                legendgroup=letter,
                showlegend=first == bool(resolved.any()),
                mode="markers",
                marker={"color": COLOURS[letter], "symbol": symbol, "size": 8},
                text=[text for text, is_in in zip(texts, shown, strict=True) if is_in],
                hovertemplate="%{text}<extra></extra>",
            )
    figure.add_hline(0, line={"color": MUTED, "width": 1}, layer="below")
    if largest < 10 * floor:  # do not enlarge noise to the height of the figure
        figure.update_yaxes(range=[-10 * floor, 10 * floor])
        figure.add_hrect(
            -floor, floor, fillcolor=faint(MUTED, plotly_style.BAND), line_width=0, layer="below"
        )
    figure.update_xaxes(
        title_text="rank", tickvals=plotly_style.ranks(count), range=[0.4, count + 0.6]
    )
    return figure


def overlaps(comparison: Comparison, chosen: Part) -> go.Figure:
    """The share of the space of H's i top eigenvectors that lies in G's; other parts are grey."""
    figure = plotly_style.empty("share of H's top eigenspace in G's, %", height=350, lifted=8)
    lowest = 100.0
    for part in sorted(comparison.parts.values(), key=lambda part: part.name == chosen.name):
        shares = [100 * float(np.mean(np.cos(a) ** 2)) for a in part.angles_by_count]
        is_chosen = part.name == chosen.name
        lowest = min(lowest, *shares)
        figure.add_scatter(
            x=np.arange(1, len(shares) + 1),
            y=shares,
            name=plotly_style.cut(part.name),
            showlegend=False,
            mode="lines+markers" if is_chosen else "lines",
            line={
                "color": INK if is_chosen else faint(MUTED, 0.6),
                "width": 2.5 if is_chosen else 1.5,
            },
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


def angles(part: Part) -> go.Figure:
    """Every principal angle between the spaces of the i top eigenvectors, for all i."""
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


def layer_extremes(comparison: Comparison) -> go.Figure:
    """The largest eigenvalue of every layer's own block."""
    layers = list(comparison.parts.values())
    row = {part.name: i for i, part in enumerate(layers)}
    figure = plotly_style.empty("", height=_height(row))
    least = max(comparison.floor, 1e-300)
    seen: list[float] = []
    for letter in COLOURS:
        parts = [part for part in layers if part.spectra[letter].largest.values[-1] > least]
        found = [
            eigenvalues(part.spectra[letter].largest, "largest", comparison.floor)[0]
            for part in parts
        ]
        seen += [eigenvalue.value for eigenvalue in found]
        figure.add_scatter(
            x=[eigenvalue.value for eigenvalue in found],
            y=[row[part.name] for part in parts],
            name=letter,
            mode="markers",
            marker={"color": COLOURS[letter], "symbol": SYMBOLS[letter], "size": 10},
            text=[
                _eigenvalue_text(
                    letter, "largest", 1, eigenvalue, part.sampling[letter].largest[-1]
                )
                for part, eigenvalue in zip(parts, found, strict=True)
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    spread = max(seen, default=1.0) / min(seen, default=1.0)
    figure.update_xaxes(title_text="λ<sub>max</sub>", showgrid=True)
    if spread > MAX_LINEAR_RATIO:
        figure.update_layout(xaxis=plotly_style.log_axis(min(seen) / 1.5, max(seen) * 1.5))
    else:
        figure.update_xaxes(rangemode="tozero")
    _by_layer(figure, row)
    return figure


def layer_shares(comparison: Comparison) -> go.Figure:
    """The shares of R in the trace and in the squared Frobenius norm of each layer's block."""
    shares = _shares(comparison)
    row = {name: i for i, name in enumerate(shares)}
    figure = plotly_style.empty("", height=_height(row))
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
            text=[_share_text(e) for e in found.values()],
            hovertemplate=f"{label}: %{{text}}<extra></extra>",
        )
    figure.add_vline(0, line={"color": MUTED, "width": 1}, layer="below")
    figure.update_xaxes(title_text="share of R, %", showgrid=True)
    _by_layer(figure, row)
    return figure


def _widths(found: Mapping[str, Curve]) -> str:
    """The widths of the curves, each with the letters of its operators."""
    named: dict[str, list[str]] = {}
    for letter, curve in found.items():
        named.setdefault(number_format.known(curve.width, 0.0, 2), []).append(letter)
    return typeset(
        ", ".join(f"{value} ({' and '.join(letters)})" for value, letters in named.items())
    )


def _uppermost_last(found: Iterable[str]) -> list[str]:
    """Drawing order: R first, H last and on top. The legend has the reverse order."""
    return list(found)[::-1]


def _coincidence(part: Part) -> str:
    return " R vanishes here: the curves of H and G are the same." if part.agrees else ""


def _extremes(part: Part) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of all operators, and zero."""
    spectra = [part.spectra[letter] for letter in "HGR"]
    low = min(s.smallest.values[0] for s in spectra)
    high = max(s.largest.values[-1] for s in spectra)
    return min(float(low), 0.0), max(float(high), 0.0)


def _curve(figure: go.Figure, letter: str, curve: Curve, bottom: float) -> None:
    values, stderrs = curve.values, curve.stderrs
    low, high = np.maximum(values - stderrs, bottom), values + stderrs
    plotly_style.band(figure, letter, curve.x, low, high)
    hover_data = [curve.points, stderrs]
    sampling = ""
    if np.isfinite(curve.sampling).all():
        hover_data.append(curve.sampling)
        sampling = ", ± %{customdata[2]:.1g} sampling"
    figure.add_scatter(
        x=curve.x.astype(np.float32),
        y=np.maximum(values, bottom).astype(np.float32),
        name=letter,
        legendgroup=letter,
        legendrank="HGR".index(letter),
        mode="lines",
        line={"color": COLOURS[letter], "width": 1.5},
        customdata=np.stack(hover_data, axis=1).astype(np.float32),
        hovertemplate=(
            f"{letter}: %{{y:.3g}} at λ = %{{customdata[0]:.3g}}"
            f"<br>± %{{customdata[1]:.1g}} probes{sampling}<extra></extra>"
        ),
    )


def _ticks(
    figure: go.Figure,
    part: Part,
    floor: float,
    coordinate: Callable[[np.ndarray], np.ndarray],
) -> None:
    """A row of ticks for each operator below the curves: the separate eigenvalues."""
    for letter in density_curves.drawn(part):
        values, texts = [], []
        for end, step in ENDS.items():
            pairs = _pairs(part, letter, end)
            sampling = _sampling(part, letter, end)[::step]
            found = eigenvalues(pairs, end, floor)
            for i in map(int, np.flatnonzero(pairs.separate[::step])):
                values.append(found[i].value)
                texts.append(_eigenvalue_text(letter, end, i + 1, found[i], sampling[i]))
        figure.add_scatter(
            x=coordinate(np.array(values)),
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


def _pairs(part: Part, letter: str, end: End) -> Eigenpairs:
    found: Eigenpairs = getattr(part.spectra[letter], end)
    return found


def _sampling(part: Part, letter: str, end: End) -> np.ndarray:
    found: np.ndarray = getattr(part.sampling[letter], end)
    return found


def _eigenvalue_text(
    letter: str, end: End, rank: int, eigenvalue: Eigenvalue, sampling: float
) -> str:
    """The hover text of an eigenvalue."""
    text = f"{letter}, {end} no. {rank}: {eigenvalue.text()}<br>{_sampling_text(sampling)}"
    return typeset(text)


def _sampling_text(error: float, unit: str = "") -> str:
    """The sampling error in a hover text."""
    if math.isfinite(error):
        return f"± {number_format.margin(error)}{unit} sampling"
    return f"sampling error {SINGLE}"


def _share_text(e: Estimate[float]) -> str:
    """The hover text of a share of R."""
    return typeset(f"{number_format.shared(e)}<br>{_sampling_text(100 * e.sampling, ' %')}")


def _counted(e: Estimate[float], threshold: float) -> str:
    """The hover text of a count."""
    beyond = "above" if threshold > 0 else "below"
    sampling = (
        f", ± {number_format.margin(e.sampling)} sampling" if math.isfinite(e.sampling) else ""
    )
    count = number_format.known(e.value, max(e.stderr, e.depth))
    return typeset(
        f"{count} {beyond} {number_format.known(threshold, 0, 3)}"
        f"<br>± {number_format.margin(e.stderr)} probes"
        f", ± {number_format.margin(e.depth)} depth{sampling}"
    )


def _beyond(d: Density, threshold: float, floor: float) -> Estimate[float]:
    """The number of eigenvalues above a positive threshold, or below a negative one."""
    if threshold > 0:
        return d.count_above(threshold, floor=floor)
    return d.count_below(threshold, floor=floor)


def _shares(comparison: Comparison) -> dict[str, Share]:
    whole = comparison.whole.name
    return {whole: comparison.shares.whole, **comparison.shares.layers}


def _height(names: Collection[str]) -> int:
    return 130 + 34 * len(names)


def _by_layer(figure: go.Figure, names: Collection[str]) -> None:
    """Label the rows by position, since two shortened names may be equal."""
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[plotly_style.cut(name) for name in names],
        range=[len(names) - 0.4, -0.6],
        ticks="",
        tickfont={"color": INK},
    )

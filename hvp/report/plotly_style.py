"""The common style of the page's figures: template, axes, bands and names."""

from __future__ import annotations

import html
import json
import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from hvp.linalg.smoothing import to_log
from hvp.report.palette import COLOURS, GRID, INK, MUTED, PAPER, faint

# Opacity of the bands of standard errors.
BAND = 0.18
# Characters of the longest name beside an axis.
MAX_NAME_LENGTH = 18
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def script() -> str:
    """The source of plotly.js, for inclusion in the page."""
    return get_plotlyjs()


def for_page(plain: Any) -> str:
    """JSON without the characters that begin or end a tag."""
    text = json.dumps(
        plain,
        allow_nan=False,
        separators=(",", ":"),
        ensure_ascii=False,
        default=lambda array: array.tolist(),  # plotly packs all arrays but the empty ones
    )
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def template() -> go.layout.Template:
    """The layout that all figures share."""
    axis = {
        "gridcolor": GRID,
        "linecolor": MUTED,
        "tickcolor": MUTED,
        "tickfont": {"color": MUTED},
        "ticks": "outside",
        "ticklen": 4,
        "title": {"font": {"color": INK, "size": 13}, "standoff": 8},
        "zeroline": False,
        "automargin": True,
        "exponentformat": "power",
        "minexponent": 4,
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 12, "color": INK},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": {**axis, "showgrid": False, "showline": True},
            "yaxis": axis,
            "margin": {"l": 8, "r": 12, "b": 8},
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.0,
                "yanchor": "bottom",
                "font": {"size": 13},
                "itemwidth": 30,
            },
            "hoverlabel": {
                "bgcolor": PAPER,
                "bordercolor": MUTED,
                "font": {"family": FONT, "size": 12, "color": INK},
                "align": "left",
            },
            "hovermode": "closest",
            "dragmode": "zoom",
        }
    )


def safe(name: str) -> str:
    """A name in which plotly finds no tags."""
    return html.escape(name, quote=False)


def cut(name: str) -> str:
    """The name, shortened to fit beside an axis."""
    return safe(
        name if len(name) <= MAX_NAME_LENGTH else f"{name[:6]}…{name[7 - MAX_NAME_LENGTH :]}"
    )


def empty(title: str, height: int = 380, lifted: int = 30) -> go.Figure:
    """An empty figure; the title names the vertical axis and stands above the legend."""
    figure = go.Figure(layout={"template": go.layout.Template(), "height": height})
    figure.update_layout(margin_t=lifted + 34 if title else 40)
    if title:
        figure.add_annotation(
            text=title,
            x=0,
            y=1,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            yshift=lifted,
            showarrow=False,
            font={"size": 13, "color": INK},
        )
    return figure


def noted(figure: go.Figure, note: str, **more: Any) -> go.Figure:
    """The figure with a note that the page shows below it."""
    return figure.update_layout(meta={"note": note, **more})


def band(figure: go.Figure, letter: str, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Fill the area between two curves with the faint colour of an operator."""
    for edge, fill in ((low, None), (high, "tonexty")):
        figure.add_scatter(
            x=x.astype(np.float32),
            y=edge.astype(np.float32),
            legendgroup=letter,
            showlegend=False,
            hoverinfo="skip",
            mode="lines",
            line={"width": 0, "color": COLOURS[letter]},
            fill=fill,
            fillcolor=faint(COLOURS[letter], BAND),
        )


def log_ticks(origin: float, reach: float) -> tuple[list[float], list[str]]:
    """Ticks at powers of ten on both sides of zero, few enough to be readable."""
    first = math.ceil(math.log10(origin)) + 1
    last = max(math.floor(math.log10(origin) + reach), first)
    step = max(1, math.ceil((last - first + 1) / 3))
    powers = range(last, first - 1, -step)
    values = [-(10.0**p) for p in powers] + [0.0] + [10.0**p for p in reversed(powers)]
    labels = [f"{'−' if v < 0 else ''}{_label(abs(v))}" if v else "0" for v in values]
    return to_log(np.array(values), origin).tolist(), labels


def log_axis(low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis with ticks at powers of ten, few enough to be readable."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    values = [10.0**p for p in range(last, first - 1, -max(1, math.ceil((last - first) / 6)))]
    return {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": values,
        "ticktext": [_label(value) for value in values],
    }


def _label(value: float) -> str:
    if 1e-3 < value < 1e6:
        return f"{value:,g}"
    return f"10<sup>{str(round(math.log10(value))).replace('-', '−')}</sup>"


def ranks(count: int) -> list[int]:
    """Ticks from 1 to a count, few enough to be readable."""
    step = max(1, math.ceil(count / 10))
    return sorted({1, *range(step, count + 1, step)})

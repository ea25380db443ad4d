"""What the figures of the page are drawn with: a template, axes, bands and names, for plotly."""

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

# How much of a colour a band lets through, and the longest name beside an axis.
BAND = 0.18
LONGEST = 18
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def script() -> str:
    """The library that draws the figures, to be held in the page."""
    return get_plotlyjs()


def for_page(plain: Any) -> str:
    """JSON in which no tag can begin or end."""
    text = json.dumps(
        plain,
        allow_nan=False,
        separators=(",", ":"),
        ensure_ascii=False,
        default=lambda array: array.tolist(),  # plotly packs all arrays but the empty ones
    )
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def template() -> go.layout.Template:
    """What all figures have in common."""
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
    """A name that plotly, which knows some tags, shows as it is."""
    return html.escape(name, quote=False)


def cut(name: str) -> str:
    """The same, short enough to stand beside an axis."""
    return safe(name if len(name) <= LONGEST else f"{name[:6]}…{name[7 - LONGEST :]}")


def empty(title: str, height: int = 380, lifted: int = 30) -> go.Figure:
    """An empty figure whose vertical axis is named above it, and above the legend if it has one."""
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
    """The figure with what the page tells below it."""
    return figure.update_layout(meta={"note": note, **more})


def band(figure: go.Figure, letter: str, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """An operator's colour, faint, between two curves."""
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
    """Powers of ten on both sides of zero, few enough to be read."""
    first = math.ceil(math.log10(origin)) + 1
    last = max(math.floor(math.log10(origin) + reach), first)
    step = max(1, math.ceil((last - first + 1) / 3))
    powers = range(last, first - 1, -step)
    values = [-(10.0**p) for p in powers] + [0.0] + [10.0**p for p in reversed(powers)]
    labels = [f"{'−' if v < 0 else ''}{_label(abs(v))}" if v else "0" for v in values]
    return to_log(np.array(values), origin).tolist(), labels


def log_axis(low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis with few enough powers of ten to be read."""
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
    """Ticks from one to a count, few enough to be read."""
    step = max(1, math.ceil(count / 10))
    return sorted({1, *range(step, count + 1, step)})

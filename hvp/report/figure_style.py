"""The common style of all figures: settings of matplotlib, names, markers and ticks."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hvp.report.number_format import SUPERSCRIPTS, End, typeset
from hvp.report.palette import INK, MUTED

# Colour-blind readers can distinguish the colours; the markers differ for print without colour.
MARKERS = {"H": "o", "G": "s", "R": "D"}
NAMES = {"H": "H (Hessian)", "G": "G (Gauss-Newton)", "R": "R = H − G"}
# Opacity of bands of standard errors.
BAND = 0.3
# Characters of a name beside an axis.
MAX_NAME_LENGTH = 18
# The step through eigenvalues in ascending order that visits the outermost first.
STEPS: dict[End, int] = {"largest": -1, "smallest": 1}
RC_PARAMS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.labelsize": "medium",
    "xtick.labelsize": "medium",
    "ytick.labelsize": "medium",
    "legend.fontsize": "medium",
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
    "svg.hashsalt": "hvp",
    "savefig.facecolor": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
# Called with an artist and the text that appears where a reader points at it.
Hover = Callable[[Any, str], None]


def no_hover(artist: Any, text: str) -> None:
    """Texts are for pages; a picture has none."""


def style(size: float) -> Any:
    """The settings of matplotlib within a block, with a font of this size in points."""
    return matplotlib.rc_context({**RC_PARAMS, "font.size": size})


def short(name: str) -> str:
    """A name that fits beside an axis and that matplotlib does not take for mathematics."""
    half = MAX_NAME_LENGTH // 2
    shown = name if len(name) <= MAX_NAME_LENGTH else f"{name[: half - 1]}…{name[-half:]}"
    return shown.replace("$", r"\$")


def power(value: float) -> str:
    """A power of ten as a label: plain from 0.01 to 100, as 10⁻³ beyond.

    >>> power(0.01), power(1000.0), power(100.0)
    ('0.01', '10³', '100')
    """
    if 0.009 < value < 101:
        return f"{value:g}"
    return f"10{str(round(math.log10(value))).translate(SUPERSCRIPTS)}"


def write_out(axis: Axis) -> None:
    """Give each tick its own power of ten where numbers are large or small, not the axis one."""
    largest = max(map(abs, axis.get_view_interval()))
    if largest and not 1e-3 <= largest < 1e6:
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(FuncFormatter(lambda value, _: typeset(f"{value:g}")))


def powers(low: float, high: float, most: int = 6) -> list[float]:
    """Powers of ten from low to high, few enough to be readable."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    return [10.0**p for p in range(last, first - 1, -max(1, math.ceil((last - first) / most)))]


def fix_layout(figure: Figure) -> None:
    """Place the axes now: with a layout engine, matplotlib draws a figure twice to save it."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def svg(figure: Figure, **options: Any) -> str:
    """The text of an SVG file, the same for the same figure.

    matplotlib names parts by hashes of their places, whose last digits vary: they are numbered.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing, **options)
    numbers: dict[str, str] = {}

    def numbered(found: re.Match[str]) -> str:
        return f"{found[1]}{numbers.setdefault(found[2], f'part{len(numbers)}')}"

    return re.sub(r'(\bid="|#)([a-z][0-9a-f]{10})\b', numbered, buffer.getvalue())

"""The figure of a comparison for papers and talks: PNG and SVG, 4:3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from hvp.comparison.results import Comparison
from hvp.report import density_curves, density_panels, eigenvalue_panels, summary
from hvp.report.figure_style import style, svg
from hvp.report.palette import MUTED, PAPER

SIZE_INCHES, DPI, FONT_SIZE = (11.0, 8.25), 200, 9.5
MAX_TITLE_LENGTH = 60


def save_comparison(comparison: Comparison, *paths: Path) -> None:
    """Save the figure to files; the suffix of each path gives its format."""
    with style(FONT_SIZE):
        write(comparison_figure(comparison), *paths)


def write(figure: Figure, *paths: Path) -> None:
    """Write a figure to files; the suffix of each path gives its format."""
    for path in paths:
        if path.suffix == ".svg":
            path.write_text(svg(figure, facecolor=PAPER), encoding="utf-8")
        else:
            figure.savefig(path, dpi=DPI, facecolor=PAPER)
        figure.set_layout_engine("none")  # keep the layout for the next file


def comparison_figure(comparison: Comparison) -> Figure:
    """A figure that pyplot does not know."""
    return draw_comparison(lambda layout: Figure(figsize=SIZE_INCHES, layout=layout), comparison)


def draw_comparison(
    new_figure: Callable[[ConstrainedLayoutEngine], Figure], comparison: Comparison
) -> Figure:
    """Densities, below them extreme eigenvalues by rank, and those of layers where there are.

    The chain rule, where no spectrum was computed.
    """
    has_density = bool(comparison.parts and density_curves.drawn(comparison.whole))
    heights = [0.07, 0.5, 0.43] if has_density else [0.07, 0.93]
    with style(FONT_SIZE):
        figure = new_figure(ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
        head, *above, below = rows[:, 0]
        head.text(0.01, 0.72, _title(comparison), size=FONT_SIZE * 1.3, va="center")
        head.text(0.01, 0.18, _facts(comparison), color=MUTED, va="center")
        for row in above:
            _draw_densities(row, comparison)
        if comparison.parts:
            _draw_eigenvalues(below, comparison)
        else:
            eigenvalue_panels.chain_rule(below.subplots(), comparison)
    return figure


def _draw_densities(row: SubFigure, comparison: Comparison) -> None:
    whole = comparison.whole
    left, right = row.subplots(1, 2)
    density_panels.densities(left, whole)
    density_panels.log_densities(right, whole)
    legend = left.get_legend()
    legend.set(title=summary.outliers(comparison, whole).replace("; ", "\n"))
    legend.set_alignment("left")
    legend.get_title().set_color(MUTED)


def _draw_eigenvalues(row: SubFigure, comparison: Comparison) -> None:
    whole, *layers = comparison.parts.values()
    has_layers = len(layers) > 1 and any(part.norm > comparison.floor for part in layers)
    first, second, *third = row.subplots(1, 3 if has_layers else 2)
    outputs = summary.outputs_per_example(comparison)
    eigenvalue_panels.ranks(first, whole, "largest", comparison.floor, num_outputs=outputs)
    eigenvalue_panels.ranks(second, whole, "smallest", comparison.floor)
    for panel in third:
        eigenvalue_panels.layers(panel, comparison)


def _title(comparison: Comparison) -> str:
    name = comparison.title
    if len(name) > MAX_TITLE_LENGTH:
        name = f"{name[: MAX_TITLE_LENGTH - 1]}…"
    title = f"{name}: " if name else ""
    return f"{title}the spectra of the Hessian and the Gauss-Newton matrix".replace("$", r"\$")


def _facts(comparison: Comparison) -> str:
    accuracy = "" if comparison.accuracy is None else f", accuracy {comparison.accuracy:.1%}"
    return (
        f"{comparison.size:,} parameters, {comparison.num_examples:,} examples, "
        f"loss {comparison.loss:.4g}{accuracy}, {comparison.dtype}"
    )

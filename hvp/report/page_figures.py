"""The figures of the page as inline SVG, in the colours of the page, with their data as CSV."""

from __future__ import annotations

import csv
import functools
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hvp.comparison.loss_slice import LossSlice
from hvp.comparison.part import Part
from hvp.comparison.results import Comparison
from hvp.linalg.layer_shares import LayerShares
from hvp.report import density_curves, density_panels, eigenvalue_panels, slice_panels, summary
from hvp.report.density_curves import Curve
from hvp.report.figure_style import STEPS, Hover, fix_layout, style, svg
from hvp.report.number_format import End
from hvp.report.palette import LIGHT

# Inches of 72 pixels, and the size of the letters in pixels.
NARROW, WIDE, FONT_SIZE = (6.0, 4.4), (13.4, 5.2), 12.0
INCHES_PER_LAYER = 0.34
# Layers whose figures are on the page: those with the largest eigenvalues.
MAX_LAYERS = 8
RANK_HEADINGS = ("rank", "eigenvalue", "error", "sampling error", "kind")
# The least extent of a spectrum on the axis of several models, as a share of it.
MIN_EXTENT = 0.1
Draw = Callable[[Axes, Hover], Any]


@dataclass(frozen=True)
class PageFigure:
    """A figure: its drawings for wide and narrow pages, and its data.

    Attributes:
        name: of the files that a reader downloads.
        label: what it shows, for those who cannot see it.
        narrow: an <svg>.
        wide: another, or "" where one is enough.
        data: the text of a CSV file.
    """

    name: str
    label: str
    narrow: Markup
    wide: Markup
    data: str


def of_whole(comparison: Comparison) -> dict[str, PageFigure]:
    """The figures of all parameters, by name, as far as they were computed."""
    if not comparison.parts:
        return {}
    whole, floor = comparison.whole, comparison.floor
    outputs = summary.outputs_per_example(comparison)
    figures = [*_densities(whole, floor, is_whole=True)]
    figures += [_ranks(whole, end, floor, outputs) for end in STEPS]
    if comparison.slices is not None:
        figures += _slices(comparison.slices)
    if whole.angles_by_count:
        figures += _spaces(comparison)
    if comparison.shares is not None:
        figures += _shares(comparison, comparison.shares)
    return {figure.name: figure for figure in figures}


def _slices(found: LossSlice) -> Iterable[PageFigure]:
    for i, name in enumerate(found.names):
        yield _figure(
            f"slice{i + 1}",
            f"The loss along the eigenvector of the {name}, beside its parabola",
            functools.partial(_draw_slice, found, i),
            [
                ("t", "loss", "parabola"),
                *zip(found.steps[i], found.losses[i], found.parabolas[i], strict=True),
            ],
        )


def _draw_slice(found: LossSlice, i: int, panel: Axes, hover: Hover) -> None:
    slice_panels.loss_slice(panel, found, i, hover)


def _spaces(comparison: Comparison) -> Iterable[PageFigure]:
    whole = comparison.whole
    return (
        _figure(
            "overlaps",
            "Overlap of the top spaces of H and G",
            lambda panel, hover: eigenvalue_panels.overlaps(panel, comparison, whole, hover),
            [("number of vectors", "angle in radians"), *_angles(whole)],
        ),
        _figure(
            "angles",
            "Principal angles between the top spaces",
            lambda panel, hover: eigenvalue_panels.angles(panel, whole),
            [("number of vectors", "angle in radians"), *_angles(whole)],
        ),
    )


def _shares(comparison: Comparison, found: LayerShares) -> Iterable[PageFigure]:
    shares = {comparison.whole.name: found.whole, **found.layers}
    if not any(np.isfinite(share.trace.value) for share in shares.values()):
        return
    yield _figure(
        "shares",
        "R relative to H by layer",
        lambda panel, hover: eigenvalue_panels.layer_shares(panel, comparison, hover),
        [
            ("part", "trace", "standard error", "squared norm", "standard error"),
            *(
                (
                    name,
                    *(share.trace.value, share.trace.stderr),
                    *(share.squared_norm.value, share.squared_norm.stderr),
                )
                for name, share in shares.items()
            ),
        ],
        narrow=(NARROW[0], 1.3 + INCHES_PER_LAYER * len(shares)),
    )


def largest_of_models(comparisons: Sequence[Comparison]) -> PageFigure | None:
    """The largest eigenvalues of H of several models, None where no model has them."""
    with_H = [c for c in comparisons if c.parts and "H" in c.whole.spectra]
    if not with_H:
        return None
    rows: list[tuple[Any, ...]] = [("model", *RANK_HEADINGS)]
    for c in with_H:
        ranked = _rank_rows(c.whole, "H", "largest")[: eigenvalue_panels.MAX_RANKS]
        rows += [(c.title, *row) for row in ranked]
    return _figure(
        "largest-of-models",
        "The largest eigenvalues of H of all models by rank",
        lambda panel, hover: eigenvalue_panels.largest_of_models(panel, with_H, hover),
        rows,
        wide=WIDE,
    )


def densities_of_models(comparisons: Sequence[Comparison]) -> tuple[list[PageFigure | None], bool]:
    """The densities of each model, None where not computed, and whether all have the same axis.

    They have, unless a spectrum would be narrower than `MIN_EXTENT` of it.
    """
    found = {
        i: density_curves.linear(c.whole)
        for i, c in enumerate(comparisons)
        if c.parts and density_curves.drawn(c.whole)
    }
    own = [density_panels.curve_limits(curves) for curves in found.values()]
    common = min((low for low, _ in own), default=0.0), max((high for _, high in own), default=0.0)
    is_common = all(high - low >= MIN_EXTENT * (common[1] - common[0]) for low, high in own)
    limits = common if is_common else None

    def figure(i: int, c: Comparison) -> PageFigure:
        return _figure(
            f"model{i + 1}-density",
            f"Spectral densities of {c.title}",
            lambda panel, hover: density_panels.densities(panel, c.whole, hover, limits),
            _curves(found[i]),
        )

    return [figure(i, c) if i in found else None for i, c in enumerate(comparisons)], is_common


def of_layers(comparison: Comparison) -> dict[str, list[PageFigure]]:
    """The figures of the layers with the largest eigenvalues, by layer and in their order."""
    layers = list(comparison.parts.values())[1:]
    largest = sorted(layers, key=lambda part: -part.first.largest.values[-1])[:MAX_LAYERS]
    return {
        part.name: [
            *_densities(part, comparison.floor, is_whole=False, prefix=f"layer{i}-"),
            _ranks(part, "largest", comparison.floor, None, prefix=f"layer{i}-"),
        ]
        for i, part in enumerate(layers, start=1)
        if part in largest
    }


def _densities(
    part: Part, floor: float, *, is_whole: bool, prefix: str = ""
) -> Iterable[PageFigure]:
    if not density_curves.drawn(part):
        return
    yield _figure(
        f"{prefix}density",
        f"Spectral densities of {part.name}",
        lambda panel, hover: density_panels.densities(panel, part, hover),
        _curves(density_curves.linear(part)),
        wide=WIDE if is_whole else None,
    )
    if not is_whole:
        return
    yield _figure(
        f"{prefix}log-density",
        f"Spectral densities of {part.name} on a logarithmic axis",
        lambda panel, hover: density_panels.log_densities(panel, part, hover),
        _curves(density_curves.logarithmic(part)),
    )
    yield _figure(
        f"{prefix}counts",
        "Number of eigenvalues beyond a threshold",
        lambda panel, hover: density_panels.counts(panel, part, floor),
        density_panels.count_rows(part, floor),
    )


def _ranks(
    part: Part, end: End, floor: float, num_outputs: int | None, prefix: str = ""
) -> PageFigure:
    rows: list[tuple[Any, ...]] = [("matrix", *RANK_HEADINGS)]
    for name in density_curves.letters(part):
        rows += [(name, *row) for row in _rank_rows(part, name, end)]
    return _figure(
        f"{prefix}{end}",
        f"The {end} eigenvalues of {part.name} by rank",
        lambda panel, hover: eigenvalue_panels.ranks(
            panel, part, end, floor, num_outputs=num_outputs, hover=hover
        ),
        rows,
    )


def _rank_rows(part: Part, letter: str, end: End) -> list[tuple[Any, ...]]:
    """The eigenvalues of one end of a matrix, the outermost first: `RANK_HEADINGS`."""
    pairs, step = getattr(part.spectra[letter], end), STEPS[end]
    sampling = getattr(part.sampling[letter], end)[::step]
    kinds = ["separate" if separate else "bound" for separate in pairs.separate[::step]]
    numbers = zip(pairs.values[::step], pairs.errors[::step], sampling, kinds, strict=True)
    return [(rank, *row) for rank, row in enumerate(numbers, start=1)]


def _curves(found: Mapping[str, Curve]) -> list[tuple[Any, ...]]:
    heading = ("matrix", "eigenvalue", "per kernel width", "standard error", "sampling error")
    return [
        heading,
        *(
            (name, *row)
            for name, c in found.items()
            for row in zip(c.points, c.values, c.stderrs, c.sampling, strict=True)
        ),
    ]


def _angles(part: Part) -> list[tuple[int, float]]:
    return [(i, float(a)) for i, row in enumerate(part.angles_by_count, start=1) for a in row]


def _figure(
    name: str,
    label: str,
    draw: Draw,
    rows: list[tuple[Any, ...]],
    narrow: tuple[float, float] = NARROW,
    wide: tuple[float, float] | None = None,
) -> PageFigure:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    return PageFigure(
        name,
        label,
        _svg(f"{name}-0", draw, narrow),
        Markup() if wide is None else _svg(f"{name}-1", draw, wide),
        text.getvalue(),
    )


def _cell(value: Any) -> str:
    """A cell of CSV: empty for a number that is not known."""
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def _svg(name: str, draw: Draw, size: tuple[float, float]) -> Markup:
    """A drawing as an <svg> of the page: no colours, fonts or names of its own."""
    texts: list[str] = []

    def hover(artist: Any, text: str) -> None:
        artist.set_gid(f"hover-{len(texts)}")
        texts.append(text)

    with style(FONT_SIZE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots(), hover)
        fix_layout(figure)
        return Markup(inlined(svg(figure), name, texts))


def inlined(drawing: str, name: str, texts: list[str]) -> str:
    """The <svg> of matplotlib for the inside of a page, with texts for what is pointed at.

    Only tags are changed: what is between them may be the text of a user.
    """
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<(metadata|style|title)\b.*?</\1>|<!--.*?-->", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r">\s+<", "><", drawing)
    used = set(re.findall(r"(?:href=\"|url\()#([\w-]+)", drawing))

    def attribute(found: re.Match[str]) -> str:
        if found[1].startswith("hover-"):
            return f' data-hover="{escape(texts[int(found[1].removeprefix("hover-"))])}"'
        return f' id="{name}-{found[1]}"' if found[1] in used else ""

    def tag(found: re.Match[str]) -> str:
        text = re.sub(r' (?:xmlns(?::\w+)?|version)="[^"]*"', "", found[0])
        if text.startswith("<svg"):
            text = re.sub(r' (?:width|height)="[^"]*"', "", text)
        text = re.sub(r"font(?:: ([\d.]+px)|-family:) [^;\"]*;?", _size_only, text)
        text = re.sub(r"\s*\n\s*", "", text)
        text = re.sub(r' (?:d|x|y)="[^"]*"', lambda a: re.sub(r"(\.\d)\d+", r"\1", a[0]), text)
        text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
        for variable, colour in LIGHT.items():
            text = text.replace(colour, f"var(--{variable})")
        text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text.replace("xlink:href", "href"))
        return re.sub(r' id="([^"]*)"', attribute, text)

    return re.sub(r"<[^>]+>", tag, drawing).strip()


def _size_only(font: re.Match[str]) -> str:
    """The size of a font, without its family, which is that of the page."""
    return f"font-size: {font[1]};" if font[1] else ""

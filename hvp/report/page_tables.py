"""The tables of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hvp.comparison.results import Comparison
from hvp.report import entries, number_format
from hvp.report.number_format import NONE, typeset

# Digits of a heat map, and the decades of its colours.
HEAT_DIGITS, HEAT_DECADES = 3, 3
# Digits of eigenvalues, so that the table of all parts fits.
EIGENVALUE_DIGITS = 5


@dataclass(frozen=True)
class Table:
    """Cells as text; the first of each row is its heading.

    `heat` colours the cells after the headings: the class of a colour and its strength from 0 to
    100, or None.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    heat: tuple[tuple[tuple[str, int] | None, ...], ...] = ()


EMPTY = Table((), ())


def all_tables(c: Comparison) -> dict[str, Table]:
    """All tables of the page, by name."""
    return {
        "distances": _distances(c),
        "extremes": _extremes(c),
        "slices": _slices(c),
        "heat_map": _heat_map(c),
        "layers": _layers(c),
        "chain_rule": _chain_rule(c),
        "errors": _errors(c),
        "noise": _noise(c),
        "checks": _checks(c),
    }


def _table(headings: str, rows: Iterable[tuple[str, ...]], caption: str = "") -> Table:
    """A table from headings separated by bars."""
    cells = tuple((name, *map(typeset, row)) for name, *row in rows)
    return Table(tuple(headings.split("|")), cells, caption)


def _distances(c: Comparison) -> Table:
    parts = [part for part in c.parts.values() if part.distance is not None]
    rows = [(part.name, *entries.distance(c, part)) for part in parts]
    return _table(
        "part|distance of H and G|relative to ‖H‖",
        rows,
        "The area between the cumulative spectra of H and G: the mean distance by which the "
        "eigenvalues of one must be moved to give the other.",
    )


def _heat_map(c: Comparison) -> Table:
    """λ_max and the trace per parameter of each layer, in colours on logarithmic scales.

    Empty without traces.
    """
    if not c.traces:
        return EMPTY
    layers = next(iter(c.traces.values())).layers
    columns: list[tuple[str, str, dict[str, tuple[float, str]]]] = []
    for letter in c.traces:
        if all(name in c.parts and letter in c.parts[name].spectra for name in layers):
            cells = {}
            for name in layers:
                found = entries.eigenvalue(c, c.parts[name], letter, "largest")
                cells[name] = found.value, found.text(HEAT_DIGITS, with_error=False)
            columns.append((f"λ_max of {letter}", letter, cells))
    for letter, traces in c.traces.items():
        cells = {}
        for name, block in traces.layers.items():
            trace = entries.trace(c, c.parts.get(name), letter, block)
            value, error = trace.value / block.size, max(trace.stderr, trace.depth) / block.size
            cells[name] = value, number_format.known(value, error, HEAT_DIGITS)
        columns.append((f"trace of {letter} / P", letter, cells))
    shades = [_shades(cells, columns) for _, _, cells in columns]
    headings = "|".join(["layer", "P", *(heading for heading, _, _ in columns)])
    rows = [
        (name, f"{block.size:,}", *(cells[name][1] for _, _, cells in columns))
        for name, block in layers.items()
    ]
    heat = tuple(
        (
            None,
            *((letter, shade[name]) for (_, letter, _), shade in zip(columns, shades, strict=True)),
        )
        for name in layers
    )
    has_spectra = any(heading.startswith("λ") for heading, _, _ in columns)
    caption = (
        f"{'The largest eigenvalue and the' if has_spectra else 'The'} trace per parameter of each "
        "layer's own block. The stronger the colour, the larger, on a logarithmic scale of "
        f"{HEAT_DECADES} decades."
    )
    return replace(_table(headings, rows, caption), heat=heat)


def _shades(
    cells: Mapping[str, tuple[float, str]], columns: Iterable[tuple[str, str, Any]]
) -> dict[str, int]:
    """How dark each cell of a column is, from 0 to 100, on one scale for its kind of column."""
    kind = next(heading[0] for heading, _, others in columns if others is cells)
    values = [v for heading, _, o in columns if heading[0] == kind for v, _ in o.values()]
    largest = max(values)
    shades = {}
    for name, (value, _) in cells.items():
        depth = math.log10(value / largest) / HEAT_DECADES if value > 0 else -1.0
        shades[name] = round(100 * max(1 + depth, 0.0))
    return shades


def _extremes(c: Comparison) -> Table:
    rows = []
    for part in c.parts.values():
        for letter in part.spectra:
            cells = (
                found.text(EIGENVALUE_DIGITS) for found in entries.outer_and_inner(c, part, letter)
            )
            rows.append((f"{part.name}, {letter}", *cells))
    return _table(f"|largest|largest no. {c.k}|smallest no. {c.k}|smallest", rows)


def _slices(c: Comparison) -> Table:
    if c.slices is None:
        return EMPTY
    rows = [
        (f"v of the {name}", *entries.slice_numbers(c.slices, i))
        for i, name in enumerate(c.slices.names)
    ]
    return _table(
        "|vᵀHv|by the loss|difference|order",
        rows,
        "The curvature along v: by the product with H, and by differences of the loss alone. "
        "Order: the power of t by which the loss and its parabola part near 0; 3 or more where the "
        "gradient and H are right.",
    )


def _layers(c: Comparison) -> Table:
    if c.shares is None or "G" not in c.traces:
        return EMPTY
    rows = []
    for name, share in {c.whole.name: c.shares.whole, **c.shares.layers}.items():
        traces = [
            found.whole if share is c.shares.whole else found.layers[name]
            for found in c.traces.values()
        ]
        part = c.parts.get(name)
        rows.append(
            (
                name,
                f"{traces[0].size:,}",
                *(
                    number_format.estimated(entries.trace(c, part, letter, block))
                    for letter, block in zip(c.traces, traces, strict=True)
                ),
                NONE if part is None else entries.sampling_error(part.sampling["H"].trace),
                number_format.shared(share.trace),
                number_format.shared(share.squared_norm),
            )
        )
    return _table(
        "part|P|trace of H|trace of G|trace of R|sampling error, H|R / H, trace|R / H, ‖·‖²",
        rows,
        "Traces of each block, and the trace and squared Frobenius norm of R relative to those of "
        "H. Errors after ± are those of the random probes; the sampling error is that of the "
        "choice of examples.",
    )


def _chain_rule(c: Comparison) -> Table:
    return _table(
        "v|vᵀHv|vᵀGv|vᵀRv|difference|H and G",
        entries.chain_rule(c),
        "The chain rule for the kernel weights v of each layer: vᵀHv = vᵀGv + vᵀRv.",
    )


def _errors(c: Comparison) -> Table:
    rows = [(typeset(name), *cells) for name, *cells in entries.errors(c)]
    return _table("|value|probes|Krylov depth|sampling", rows)


def _noise(c: Comparison) -> Table:
    rows = [
        (
            f"products with {letter}",
            *(
                "not measured" if math.isnan(number) else number_format.margin(number)
                for number in (n.asymmetry, n.repeatability, n.shadow, n.floor)
            ),
        )
        for letter, n in c.noise.items()
    ]
    return _table("|asymmetry|repeatability|against float64|noise floor", rows)


def _checks(c: Comparison) -> Table:
    if c.certificate is None:
        return EMPTY
    rows = [check.row for check in c.certificate.checks]
    return _table(
        "certificate|relative error|at most|outcome",
        [(name, error or NONE, bound, outcome) for name, error, bound, outcome in rows],
        f"Along {c.certificate.num_directions} random directions, in {c.certificate.dtype}.",
    )

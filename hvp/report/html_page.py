"""The HTML page of a comparison: one file that loads nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from hvp.comparison.results import Comparison
from hvp.report import number_format, palette, plotly_figures, plotly_style, summary
from hvp.report.number_format import SINGLE, UNKNOWN, End, typeset
from hvp.report.summary import NONE


@dataclass(frozen=True)
class Table:
    """Cells as text; the first of each row is its heading."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


def save_page(comparison: Comparison, path: Path) -> None:
    """Write the page to a file."""
    path.write_text(page(comparison), encoding="utf-8")


def page(comparison: Comparison) -> str:
    """The page as HTML: text, tables, figures, and the script that draws them."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hvp.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["in_words"] = _has_words
    environment.filters["names"] = _names
    return environment.get_template("compare.html.j2").render(
        **_text(comparison),
        **_tables(comparison),
        plotly=Markup(plotly_style.script()),
        figures=Markup(plotly_figures.figures(comparison)),
        template=Markup(plotly_style.for_page(plotly_style.template().to_plotly_json())),
        night=Markup(plotly_style.for_page(palette.dark())),
    )


def _has_words(cell: str) -> bool:
    """Whether a cell holds words in place of a number."""
    return cell in (UNKNOWN, SINGLE, NONE, "not measured", "not defined")


def _names(text: str) -> Markup:
    """Escaped text with max and min of λ_max and λ_min as subscripts."""
    return Markup(re.sub(r"λ_(max|min)", r"λ<sub>\1</sub>", str(escape(text))))


def _text(c: Comparison) -> dict[str, Any]:
    return {
        "title": c.title or "A network",
        "facts": _facts(c),
        "headline": typeset(" ".join(summary.headline(c))),
        "sampling": typeset(summary.sampling(c)),
        "certificate": typeset(summary.certificate(c)),
        "is_certified": c.certificate.passed,
        "residual": summary.residual(c) or "The spectra of single layers were not computed.",
        "has_layers": len(c.parts) > 1,
        "key": _key(c),
        "parts": list(c.parts),
        "k": c.k,
        "findings": [typeset(text) for text in c.findings],
        "made": _made(c),
        "pins": _pins(c),
        "command": c.command,
        "version": c.versions["hvp"],
    }


def _facts(c: Comparison) -> list[str]:
    facts = [
        f"{c.size:,} parameters",
        f"{c.num_examples:,} examples",
        f"{c.loss_name.replace('_', ' ')} {c.loss:.4g}",
        f"|gradient| {c.gradient_norm:.3g}",
        c.dtype,
    ]
    if c.accuracy is not None:
        facts.insert(3, f"accuracy {c.accuracy:.1%}".replace("%", " %"))
    return [typeset(fact) for fact in facts]


def _key(c: Comparison) -> list[dict[str, str]]:
    """The main numbers: name, value and error."""

    def item(name: str, text: str, note: str = "") -> dict[str, str]:
        value, _, error = text.partition(" ± ")
        unit = " %" if error.endswith(" %") else ""
        error = note or (f"± {error}" if error else "")
        return {"name": name, "value": typeset(value + unit), "error": typeset(error)}

    found = []
    for letter in "HGR":
        largest = summary.eigenvalue(c, c.whole, letter, "largest")
        found.append(item(f"λ_max of {letter}", largest.text()))
    found.append(item("λ_min of H", summary.eigenvalue(c, c.whole, "H", "smallest").text()))
    for letter in "HG":
        trace = c.traces[letter].whole.trace
        found.append(item(f"trace of {letter}", number_format.estimated(trace)))
    found.append(item("share of R in the trace", number_format.shared(c.shares.whole.trace)))
    certain = summary.certainly_negative(c)
    bound_only = certain > 0 and number_format.is_unknown(c.negative)
    found.append(
        item(
            "negative eigenvalues of H",
            f"≥ {certain}" if bound_only else number_format.estimated(c.negative),
            f"total number {UNKNOWN}" if bound_only else "",
        )
    )
    return found


def _tables(c: Comparison) -> dict[str, Table]:
    return {
        "distances": _distances(c),
        "extremes": _extremes(c),
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
    rows = [(part.name, *summary.distance(c, part)) for part in c.parts.values()]
    return _table(
        "part|distance of H and G|relative to ‖H‖",
        rows,
        "The area between the cumulative spectra of H and G: the mean distance by which the "
        "eigenvalues of one must be moved to give the other.",
    )


def _extremes(c: Comparison) -> Table:
    rows = []
    for part in c.parts.values():
        for letter in "HGR":
            k = len(part.spectra[letter].largest.values)
            columns: tuple[tuple[End, int], ...] = (
                ("largest", 1),
                ("largest", k),
                ("smallest", k),
                ("smallest", 1),
            )
            cells = (summary.eigenvalue(c, part, letter, *column).text() for column in columns)
            rows.append((f"{part.name}, {letter}", *cells))
    return _table(f"|largest|largest no. {c.k}|smallest no. {c.k}|smallest", rows)


def _layers(c: Comparison) -> Table:
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
                *(number_format.estimated(block.trace) for block in traces),
                NONE if part is None else summary.sampling_error(part.sampling["H"].trace),
                number_format.shared(share.trace),
                number_format.shared(share.squared_norm),
            )
        )
    return _table(
        "part|P|trace of H|trace of G|trace of R|sampling error, H|R / H, trace|R / H, ‖·‖²",
        rows,
        "Traces, and the shares of R in the trace and in the squared Frobenius norm of H. "
        "Errors after ± are standard errors over the random probes; the sampling error is the "
        "standard error over the choice of examples.",
    )


def _chain_rule(c: Comparison) -> Table:
    return _table(
        "v|vᵀHv|vᵀGv|vᵀRv|difference|H and G",
        summary.chain_rule(c),
        "The chain rule for the kernel weights v of each layer: vᵀHv = vᵀGv + vᵀRv.",
    )


def _errors(c: Comparison) -> Table:
    return _table("|value|probes|Krylov depth|sampling", summary.errors(c))


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
    rows = [check.row for check in c.certificate.checks]
    return _table(
        "certificate|relative error|at most|outcome",
        [(name, error or NONE, bound, outcome) for name, error, bound, outcome in rows],
        f"Along {c.certificate.num_directions} random directions, in {c.certificate.dtype}.",
    )


def _made(c: Comparison) -> list[tuple[str, str]]:
    return [
        ("seed", str(c.seed)),
        ("eigenvalues at each end", str(c.k)),
        ("tolerance", typeset(f"{c.tol:g}")),
        ("products", f"{c.num_products:,}, in {c.seconds:,.0f} s"),
        ("batches", f"{c.num_batches:,}"),
        ("data, SHA-256", c.data_sha256),
        ("weights, SHA-256", c.weights_sha256),
        ("versions", ", ".join(f"{name} {number}" for name, number in c.versions.items())),
    ]


def _pins(c: Comparison) -> str:
    packages = {name: number for name, number in c.versions.items() if name != "python"}
    pins = " ".join(f"{name}=={number}" for name, number in packages.items())
    return f"python{'.'.join(c.versions['python'].split('.')[:2])} -m pip install {pins}"

"""The page that people look at: one file that holds all that it shows. The home of its template."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from hvp.report import number_format, palette, plotly_figures, plotly_style, summary
from hvp.report.number_format import SINGLE, UNTOLD, typeset
from hvp.report.summary import NONE


@dataclass(frozen=True)
class Table:
    """Cells as text; the first of each row is its heading."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


def save_page(comparison: Any, path: Path) -> None:
    """The page as a file."""
    path.write_text(page(comparison), encoding="utf-8")


def page(comparison: Any) -> str:
    """The page as HTML that fetches nothing: text, tables, figures, and what draws them."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hvp", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["wordy"] = _is_wordy
    environment.filters["names"] = _names
    return environment.get_template("compare.html.j2").render(
        **_text(comparison),
        **_tables(comparison),
        plotly=Markup(plotly_style.script()),
        figures=Markup(plotly_figures.figures(comparison)),
        template=Markup(plotly_style.for_page(plotly_style.template().to_plotly_json())),
        night=Markup(plotly_style.for_page(palette.dark())),
    )


def _is_wordy(cell: str) -> bool:
    """Whether a cell says why there is no number."""
    return cell in (UNTOLD, SINGLE, NONE, "not measured", "not defined")


def _names(text: str) -> Markup:
    """Escaped, with λ_max and λ_min as one writes them."""
    return Markup(re.sub(r"λ_(max|min)", r"λ<sub>\1</sub>", str(escape(text))))


def _text(c: Any) -> dict[str, Any]:
    return {
        "title": c.title or "A network",
        "facts": _facts(c),
        "headline": typeset(" ".join(summary.headline(c))),
        "sampling": typeset(summary.sampling(c)),
        "residual": summary.residual(c),
        "key": _key(c),
        "parts": list(c.parts),
        "k": c.k,
        "findings": [typeset(text) for text in c.findings],
        "made": _made(c),
        "pins": _pins(c),
        "command": c.command,
        "version": c.versions["hvp"],
    }


def _facts(c: Any) -> list[str]:
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


def _key(c: Any) -> list[dict[str, str]]:
    """The numbers that stand out: what they are, what they came to, how sure that is."""

    def item(name: str, text: str, note: str = "") -> dict[str, str]:
        value, _, error = text.partition(" ± ")
        unit = " %" if error.endswith(" %") else ""
        error = note or (f"± {error}" if error else "")
        return {"name": name, "value": typeset(value + unit), "error": typeset(error)}

    found = []
    for letter in "HGR":
        pairs = getattr(c.whole, letter).largest
        found.append(item(f"λ_max of {letter}", summary.eigenvalue(c, pairs, -1, "≥")))
    found.append(item("λ_min of H", summary.eigenvalue(c, c.whole.H.smallest, 0, "≤")))
    for letter in "HG":
        trace = c.traces[letter].whole.trace
        found.append(item(f"trace of {letter}", number_format.estimated(trace)))
    found.append(item("share of R in the trace", number_format.shared(c.shares.whole.trace)))
    sure = summary.certainly_negative(c)
    untold = number_format.is_untold(c.negative)
    found.append(
        item(
            "negative eigenvalues of H",
            f"≥ {sure}" if untold and sure else number_format.estimated(c.negative),
            f"how many in all {UNTOLD}" if untold and sure else "",
        )
    )
    return found


def _tables(c: Any) -> dict[str, Table]:
    return {
        "distances": _distances(c),
        "extremes": _extremes(c),
        "layers": _layers(c),
        "chain_rule": _chain_rule(c),
        "errors": _errors(c),
        "noise": _noise(c),
    }


def _table(headings: str, rows: Any, caption: str = "") -> Table:
    """Headings with bars between."""
    cells = tuple((name, *map(typeset, row)) for name, *row in rows)
    return Table(tuple(headings.split("|")), cells, caption)


def _distances(c: Any) -> Table:
    rows = [(part.name, *summary.distance(c, part)) for part in c.parts.values()]
    return _table(
        "part|distance of H and G|of ‖H‖",
        rows,
        "The area between the cumulative spectra of H and G: the mean distance over which "
        "eigenvalues must be moved to make one spectrum the other.",
    )


def _extremes(c: Any) -> Table:
    rows = []
    for part in c.parts.values():
        for letter in "HGR":
            ends = getattr(part, letter)
            inner = min(len(ends.largest.values), c.k)
            rows.append(
                (
                    f"{part.name}, {letter}",
                    summary.eigenvalue(c, ends.largest, -1, "≥"),
                    summary.eigenvalue(c, ends.largest, -inner, "≥", all_separate=True),
                    summary.eigenvalue(c, ends.smallest, inner - 1, "≤", all_separate=True),
                    summary.eigenvalue(c, ends.smallest, 0, "≤"),
                )
            )
    return _table(f"|largest|largest no. {c.k}|smallest no. {c.k}|smallest", rows)


def _layers(c: Any) -> Table:
    rows = []
    for name, share in {c.whole.name: c.shares.whole, **c.shares.layers}.items():
        traces = [
            found.whole if share is c.shares.whole else found.layers[name]
            for found in c.traces.values()
        ]
        rows.append(
            (
                name,
                f"{c.parts[name].size:,}",
                *(number_format.estimated(block.trace) for block in traces),
                summary.other_data(c.parts[name].sampling["H"].trace),
                number_format.shared(share.trace),
                number_format.shared(share.squared_norm),
            )
        )
    return _table(
        "part|P|trace of H|trace of G|trace of R|other data, H|R of trace|R of ‖·‖²",
        rows,
        "Traces, and the shares of R in the trace and in the squared Frobenius norm of H; "
        "± standard errors over the probes; other data: that of the trace of H, had other examples "
        "been drawn.",
    )


def _chain_rule(c: Any) -> Table:
    rows = [
        (
            row.layer,
            *(number_format.known(form, row.rounding) for form in (row.vHv, row.vGv, row.vRv)),
            f"{number_format.known(100 * row.difference, 0.0, 2)} %",
            "equal" if row.equal else "differ",
        )
        for row in c.chain_rule
    ]
    return _table(
        "v|vᵀHv|vᵀGv|vᵀRv|difference|H and G",
        rows,
        "The chain rule on each layer's own kernels v: vᵀHv = vᵀGv + vᵀRv.",
    )


def _errors(c: Any) -> Table:
    return _table("|value|probes|Krylov depth|other data", summary.errors(c))


def _noise(c: Any) -> Table:
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
    return _table("|asymmetry|repeatability|float64 shadow|floor", rows)


def _made(c: Any) -> list[tuple[str, str]]:
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


def _pins(c: Any) -> str:
    packages = {name: number for name, number in c.versions.items() if name != "python"}
    pins = " ".join(f"{name}=={number}" for name, number in packages.items())
    return f"python{'.'.join(c.versions['python'].split('.')[:2])} -m pip install {pins}"

"""The HTML page of a comparison: one file that loads nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from hvp.comparison.results import Comparison
from hvp.report import density_curves, number_format, page_figures, page_tables, palette, summary
from hvp.report.number_format import SINGLE, UNKNOWN, typeset
from hvp.report.summary import NONE


def save_page(comparison: Comparison, path: Path) -> None:
    """Write the page to a file."""
    path.write_text(page(comparison), encoding="utf-8")


def page(comparison: Comparison) -> str:
    """The page as HTML: text, tables and figures."""
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
        **page_tables.all_tables(comparison),
        figures=page_figures.of_whole(comparison),
        layer_figures=page_figures.of_layers(comparison),
        light=palette.LIGHT,
        dark=palette.DARK,
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
        "sampling": typeset(summary.sampling(c)) if c.parts else "",
        "unfinished": summary.unfinished(c),
        "certificate": typeset(summary.certificate(c)),
        "is_certified": c.passed,
        "residual": _about_residual(c),
        "has_layers": len(c.parts) > 1,
        "num_outputs": summary.outputs_per_example(c),
        "num_layers": len(c.parts) - 1,
        **_about_densities(c),
        "key": _key(c) if c.parts else [],
        "k": c.k,
        "findings": [typeset(text) for text in c.findings],
        "made": _made(c),
        "pins": _pins(c),
        "command": c.command,
        "version": c.versions["hvp"],
    }


def _about_residual(c: Comparison) -> str:
    found = summary.residual(c) if c.parts else ""
    return found or ("" if len(c.parts) > 1 else "The spectra of single layers were not computed.")


def _about_densities(c: Comparison) -> dict[str, Any]:
    """What the caption of the densities says; only what is known without one."""
    if not c.parts or not density_curves.drawn(c.whole):
        return {"vanishes": bool(c.parts) and c.whole.agrees}
    notes = [summary.outliers(c, c.whole), summary.zeros(c, c.whole)]
    return {
        "vanishes": c.whole.agrees,
        "about_densities": typeset(" ".join(f"{note}." for note in notes if note)),
        "width": typeset(number_format.known(density_curves.kernel_width(c.whole), 0.0, 2)),
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
    for letter in c.whole.spectra:
        largest = summary.eigenvalue(c, c.whole, letter, "largest")
        found.append(item(f"λ_max of {letter}", largest.text()))
    if "H" in c.whole.spectra:
        found.append(item("λ_min of H", summary.eigenvalue(c, c.whole, "H", "smallest").text()))
        rate = summary.stable_rate(c)
        found.append(item("2/λ_max of H, stable learning rate", rate or NONE))
    if "H" in c.traces:
        found.append(item("trace of H", number_format.estimated(c.traces["H"].whole.trace)))
    if c.shares is not None:
        found.append(item("share of R in the trace", number_format.shared(c.shares.whole.trace)))
    if c.negative is not None:
        certain = summary.certainly_negative(c)
        bound_only = certain > 0 and number_format.is_unknown(c.negative)
        found.append(
            item(
                "negative eigenvalues of H",
                f"≥ {certain}" if bound_only else number_format.counted(c.negative),
                f"total number {UNKNOWN}" if bound_only else "",
            )
        )
    return found


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

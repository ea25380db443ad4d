"""The HTML page of a comparison: one file that loads nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from hvp.comparison.results import Comparison
from hvp.report import (
    density_curves,
    main_numbers,
    number_format,
    page_figures,
    page_tables,
    palette,
    summary,
)
from hvp.report.number_format import NONE, SINGLE, UNKNOWN, typeset


def save_page(comparison: Comparison, path: Path, *, num_models: int = 1) -> None:
    """Write the page to a file."""
    path.write_text(page(comparison, num_models=num_models), encoding="utf-8")


def page(comparison: Comparison, *, num_models: int = 1) -> str:
    """The page as HTML: text, tables and figures.

    Where it is the page of one of several models, it links to the overview, a directory above.
    """
    return render(
        "compare.html.j2",
        **_text(comparison),
        **page_tables.all_tables(comparison),
        figures=page_figures.of_whole(comparison),
        layer_figures=page_figures.of_layers(comparison),
        num_models=num_models,
    )


def render(template: str, **values: Any) -> str:
    """A page from a template, in the colours of all pages."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hvp.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["in_words"] = _has_words
    environment.filters["names"] = _names
    return environment.get_template(template).render(
        **values,
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
        "headline": [typeset(" ".join(each)) for each in summary.paragraphs(c)],
        "sampling": typeset(summary.sampling(c)) if c.parts else "",
        "unfinished": summary.unfinished(c),
        "certificate": typeset(summary.certificate(c)),
        "is_certified": c.passed,
        "residual": _about_residual(c),
        "has_layers": len(c.parts) > 1,
        "num_outputs": summary.outputs_per_example(c),
        "num_layers": len(c.parts) - 1,
        **_about_densities(c),
        "key": main_numbers.key(c),
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
    outliers = summary.outliers(c, c.whole)
    return {
        "vanishes": c.whole.agrees,
        "about_densities": typeset(f"{outliers}." if outliers else ""),
        "width": typeset(number_format.known(density_curves.kernel_width(c.whole), 0.0, 2)),
    }


def _facts(c: Comparison) -> list[str]:
    size = main_numbers.size(c)
    return [
        f"{size['parameters']} parameters",
        f"{size['examples']} examples",
        f"{main_numbers.loss_name(c)} {size['loss']}",
        *([f"accuracy {size['accuracy']}"] if "accuracy" in size else []),
        typeset(f"|gradient| {c.gradient_norm:.3g}"),
        c.dtype,
    ]


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

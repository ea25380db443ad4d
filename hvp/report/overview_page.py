"""The page that compares several models: one file that loads nothing and links to their pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hvp.comparison.results import Comparison
from hvp.report import html_page, main_numbers, page_figures, summary
from hvp.report.main_numbers import MainNumber
from hvp.report.number_format import NONE, typeset
from hvp.report.page_figures import PageFigure

# What a model is, in the order of the table.
SIZES = ("parameters", "examples", "loss", "accuracy")
CERTIFICATE = "certificate"


@dataclass(frozen=True)
class Model:
    """A model on the page: its title, the link to its page, sentences, warnings and figure."""

    title: str
    link: str
    headline: str
    warnings: tuple[str, ...]
    density: PageFigure | None


def save_page(
    comparisons: Mapping[str, Comparison], path: Path, *, missing: Sequence[str] = ()
) -> None:
    """Write the page to a file."""
    path.write_text(page(comparisons, missing=missing), encoding="utf-8")


def page(comparisons: Mapping[str, Comparison], *, missing: Sequence[str] = ()) -> str:
    """The page as HTML, from the comparisons by the names of the directories of their pages.

    `missing` names the models that were not compared.
    """
    found = list(comparisons.values())
    densities, is_common_axis = page_figures.densities_of_models(found)
    return html_page.render(
        "overview.html.j2",
        title=", ".join(c.title for c in found),
        facts=_facts(found),
        models=[
            _model(c, directory, density)
            for (directory, c), density in zip(comparisons.items(), densities, strict=True)
        ],
        rows=rows(found),
        largest=page_figures.largest_of_models(found),
        num_densities=sum(density is not None for density in densities),
        is_common_axis=is_common_axis,
        missing=", ".join(missing),
        num_missing=len(missing),
        version=found[0].versions["hvp"],
    )


def rows(comparisons: Sequence[Comparison]) -> dict[str, list[MainNumber]]:
    """The rows of the table: a cell for each model, a dash for what was not computed."""
    losses = [main_numbers.loss_name(c) for c in comparisons]
    columns = []
    for c, loss in zip(comparisons, losses, strict=True):
        texts = {**main_numbers.size(c), "loss function": loss}
        columns.append(
            {
                **{name: MainNumber(text) for name, text in texts.items()},
                **main_numbers.key(c),
                **main_numbers.others(c),
                CERTIFICATE: MainNumber(main_numbers.certificate(c)),
            }
        )
    names = [*SIZES, *main_numbers.NAMES, CERTIFICATE]
    if len(set(losses)) > 1:
        names.insert(names.index("loss"), "loss function")
    return {name: [column.get(name, MainNumber(NONE)) for column in columns] for name in names}


def _facts(comparisons: Sequence[Comparison]) -> list[str]:
    """The number of models, and what they have in common."""
    facts = [f"{len(comparisons)} models"]
    for each in (
        [f"{c.num_examples:,} examples" for c in comparisons],
        [main_numbers.loss_name(c) for c in comparisons],
        [c.dtype for c in comparisons],
    ):
        facts += each[:1] if len(set(each)) == 1 else []
    return facts


def _model(c: Comparison, directory: str, density: PageFigure | None) -> Model:
    warnings = [] if c.passed else [summary.certificate(c)]
    if c.unfinished:
        warnings.append(summary.unfinished(c))
    return Model(
        c.title,
        f"{quote(directory, safe='')}/compare.html",
        typeset(" ".join(summary.headline(c))),
        tuple(typeset(text) for text in warnings),
        density,
    )

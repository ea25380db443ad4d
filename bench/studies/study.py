"""The result of a study, and the colours of its figure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from matplotlib.figure import Figure

from hvp.resuming.journal import Journal

Part = TypeVar("Part")
_journals: list[Journal] = []

# Okabe and Ito's palette, as in `hvp.plot`: colour-blind readers can distinguish them.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)
MARKERS = ("o", "s", "^", "D", "v", "P")
# The colours of the operators, the same in every study.
H, G, R = BLUE, VERMILION, GREEN


@dataclass(frozen=True)
class Row:
    """One claim.

    Attributes:
        claim: the claim in one line.
        published: the number or law in the paper or theory.
        here: the number found here, with its error if it has one.
        holds: whether the two agree; None if there is no criterion.
    """

    claim: str
    published: str
    here: str
    holds: bool | None


@dataclass(frozen=True, eq=False)
class Study:
    """The result of a study.

    Attributes:
        title: one line with the paper and the figure or section.
        rows: the table "published / here".
        figure: a matplotlib figure, for example from `figure`.
        remarks: sentences on the setting, on differences from the paper, on claims that fail.
    """

    title: str
    rows: tuple[Row, ...]
    figure: Figure
    remarks: tuple[str, ...] = ()


def figure(title: str, width: float = 9.0, height: float = 4.2) -> Figure:
    """An empty figure with constrained layout; sizes in inches."""
    canvas = Figure(figsize=(width, height), layout="constrained")
    canvas.suptitle(title, fontsize=12)
    return canvas


@contextlib.contextmanager
def kept_in(journal: Journal) -> Iterator[None]:
    """A block in which `kept` keeps parts of a study, and finds those of an earlier run."""
    _journals.append(journal)
    try:
        yield
    finally:
        _journals.pop()


def kept(name: str, compute: Callable[[], Part]) -> Part:
    """A part of a study, computed unless an earlier run that was killed has kept it."""
    return _journals[-1].stage(name, compute) if _journals else compute()

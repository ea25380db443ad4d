"""What a study gives, and the colours that its figure is drawn in."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure

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
# Of operators, the same in every study.
H, G, R = BLUE, VERMILION, GREEN


@dataclass(frozen=True)
class Row:
    """One claim.

    Attributes:
        claim: what is said, in a line.
        published: the number or law of the paper or theory.
        here: what was found, with errors where there are.
        holds: whether it agrees; None for a number beside a published one that cannot be judged.
    """

    claim: str
    published: str
    here: str
    holds: bool | None


@dataclass(frozen=True, eq=False)
class Study:
    """What a study found.

    Attributes:
        title: a line, with paper and figure.
        rows: the table "published / here".
        figure: made with `figure`, or any other of matplotlib.
        remarks: a sentence each: setting, what differs from the paper, why a claim does not hold.
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

"""Colours that colour-blind readers can distinguish (Okabe and Ito 2008), on white and on black."""

from __future__ import annotations

COLOURS = {"H": "#0072b2", "G": "#d55e00", "R": "#009e73"}
INK, MUTED, GRID, PAPER = "#1f2328", "#6a7078", "#e4e6e9", "#ffffff"
# What each becomes on a dark page.
DARK = {
    COLOURS["H"]: "#56b4e9",
    COLOURS["G"]: "#ff9a4d",
    COLOURS["R"]: "#2fd0a2",
    INK: "#e8e9eb",
    MUTED: "#9aa1aa",
    GRID: "#30353c",
    PAPER: "#15181c",
}


def faint(colour: str, share: float) -> str:
    """The colour let through by this share.

    >>> faint("#0072b2", 0.2)
    'rgba(0,114,178,0.2)'
    """
    return f"rgba({_parts(colour)},{share:g})"


def dark() -> dict[str, str]:
    """Every colour of a figure on white, solid and faint, and what it becomes on a dark page."""
    return DARK | {f"rgba({_parts(a)},": f"rgba({_parts(b)}," for a, b in DARK.items()}


def _parts(colour: str) -> str:
    return ",".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))

"""Colours that colour-blind readers can distinguish (Okabe and Ito 2008), on white and on black."""

from __future__ import annotations

COLOURS = {"H": "#0072b2", "G": "#d55e00", "R": "#009e73"}
INK, MUTED, GRID, PAPER = "#1f2328", "#6a7078", "#e4e6e9", "#ffffff"
# Of models that are compared, with markers besides.
MODELS = (INK, "#aa3377", "#997700", MUTED)
# By the names that they have in the style sheet of the page, by day and by night.
LIGHT = {
    **COLOURS,
    "ink": INK,
    "muted": MUTED,
    "rule": GRID,
    "paper": PAPER,
    "purple": MODELS[1],
    "ochre": MODELS[2],
}
DARK = {
    "H": "#56b4e9",
    "G": "#ff9a4d",
    "R": "#2fd0a2",
    "ink": "#e8e9eb",
    "muted": "#9aa1aa",
    "rule": "#30353c",
    "paper": "#15181c",
    "purple": "#e48bbb",
    "ochre": "#d6b13c",
}

"""What the tables say, and that nothing of it is cut off."""

import html
import re

import keras
import numpy as np
import pytest
from rich.console import Console

import hvp
from hvp.report import (
    entries,
    number_format,
    page_figures,
    page_tables,
    summary,
    terminal,
    terminal_tables,
)

layers = keras.layers
RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(12, 4)), RNG.normal(size=(12, 3))


def compared(activation, dtype, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,), dtype=dtype),
            layers.Dense(5, activation, dtype=dtype, name="hidden", **options),
            layers.Dense(3, dtype=dtype, name="last"),
        ]
    )
    lin = hvp.linearize(model, (X.astype(dtype), Y), "mse")
    return hvp.compare(lin, k=3, title="a[red]b", num_probes=2, num_steps=8)


@pytest.fixture(scope="module")
def tanh():
    return compared("tanh", "float64")


def lines(comparison, width):
    shown = terminal.Terminal(quiet=False)
    shown.console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    shown.show(comparison)
    return shown.console.export_text().splitlines()


@pytest.mark.parametrize("width", [56, 60, 70, *range(80, 120, 4)])
def test_no_number_is_cut_off(tanh, width):
    shown = lines(tanh, width)
    numbers = "".join(shown)
    for row in tanh.chain_rule:
        assert number_format.known(row.vHv, row.rounding) in numbers
    for name, value, *_ in entries.errors(tanh):
        assert not name.startswith(terminal_tables.SHOWN_RESULTS) or value in numbers
    assert not any("…" in line for line in shown)
    rows = [line for line in shown if " H  " in line and line.rstrip().endswith("%")]
    assert len(rows) == 3
    assert all(line.rstrip().endswith("%") for line in rows)
    assert any("a[red]b" in line for line in shown)


def test_what_the_whole_is_known_to_is_shown(tanh):
    shown = lines(tanh, 100)
    assert max(map(len, shown)) <= 100
    rows = {row[0]: row[1:] for row in entries.errors(tanh)}
    for name in ("trace of H", "trace of G", "trace of R", "distance of H and G"):
        (line,) = [line for line in shown if line.strip().startswith(name)]
        assert line.split()[len(name.split()) :][0] == rows[name][0]
    assert any(line.strip().startswith("negative eigenvalues of H") for line in shown)
    (line,) = [line for line in shown if line.strip().startswith("noise floor")]
    assert number_format.margin(tanh.floor) in line


def test_an_end_that_is_a_bound_is_shown_as_one(tanh):
    pairs = tanh.whole.G.smallest
    assert not pairs.separate[0]
    cells = terminal_tables.eigenvalue_cells(tanh, tanh.whole, "G", has_errors=True)
    assert cells[2].startswith("≤ ")
    assert cells[3].startswith("≤ ")


def test_the_reading_is_that_of_the_spectra_of_r(tanh):
    assert summary.residual(tanh) == "R vanishes on the block of last only."
    assert " ".join(" ".join(lines(tanh, 100)).split()).find(summary.residual(tanh)) > 0
    relu = compared("relu", "float64")
    assert summary.residual(relu) == (
        "R vanishes on every layer's own block, but not between layers."
    )


def test_a_form_that_happens_to_be_zero_is_not_read_as_a_block_without_r():
    zero = compared("tanh", "float64", kernel_initializer="zeros", bias_initializer="ones")
    assert zero.chain_rule[0].equal
    assert not zero.parts["hidden"].agrees
    assert "block of last only" in summary.residual(zero)


def test_an_eigenvalue_is_the_same_wherever_it_is_shown(tanh):
    rows = {row[0]: row[1:] for row in page_tables.all_tables(tanh)["extremes"].rows}
    figures = {tanh.whole.name: [*page_figures.of_whole(tanh).values()]}
    figures |= page_figures.of_layers(tanh)
    bounds = 0
    for name, part in tanh.parts.items():
        for letter in "HGR":
            k = len(part.spectra[letter].largest.values)
            places = [("largest", 1), ("largest", k), ("smallest", k), ("smallest", 1)]
            cells = terminal_tables.eigenvalue_cells(tanh, part, letter, has_errors=True)
            for place, page_cell, terminal_cell in zip(
                places, rows[f"{name}, {letter}"], cells, strict=True
            ):
                end, rank = place
                found = entries.eigenvalue(tanh, part, letter, end, rank)
                bounds += bool(found.bound)
                digits = page_tables.EIGENVALUE_DIGITS
                assert page_cell == number_format.typeset(found.text(digits))
                assert terminal_cell.replace("±", "± ") == found.text(terminal_tables.DIGITS)
                if (end == "smallest" and part is not tanh.whole) or (
                    letter == "R" and part.agrees
                ):
                    continue  # not drawn
                drawn = next(f for f in figures[name] if f.name.endswith(end))
                hover = map(html.unescape, re.findall(r'data-hover="([^"]*)"', drawn.narrow))
                start = f"{letter}, {end} no. {rank}: "
                (text,) = [text for text in hover if text.startswith(start)]
                shown = text.removeprefix(start).partition(";")[0]
                assert shown == number_format.typeset(found.text())
    assert bounds > 0
    errors = {row[0]: row[1] for row in entries.errors(tanh)}
    smallest = entries.eigenvalue(tanh, tanh.whole, "H", "smallest")
    assert errors["λ_min of H"] == smallest.text(with_error=False)

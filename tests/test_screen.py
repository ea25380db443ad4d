"""What the tables say, and that nothing of it is cut off."""

import keras
import numpy as np
import pytest
from rich.console import Console

import hvp
from hvp import screen

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
    return hvp.compare(lin, k=3, title="a[red]b")


@pytest.fixture(scope="module")
def tanh():
    return compared("tanh", "float64")


def lines(comparison, width):
    shown = screen.Screen(quiet=False)
    shown.console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    shown.show(comparison)
    return shown.console.export_text().splitlines()


@pytest.mark.parametrize("width", range(80, 120, 4))
def test_no_number_is_cut_off(tanh, width):
    shown = lines(tanh, width)
    assert not any("…" in line for line in shown)
    rows = [line for line in shown if " H " in line and "%" in line]
    assert len(rows) == 3
    assert all(line.rstrip().endswith("%") for line in rows)
    assert any("a[red]b" in line for line in shown)


def test_the_reading_is_that_of_the_spectra_of_r(tanh):
    assert screen._reading(tanh) == (
        "R = H - G vanishes on the own block of last; over the whole network it does not vanish."
    )
    relu = compared("relu", "float64")
    assert screen._reading(relu) == (
        "R = H - G vanishes on every layer's own block; over the whole network it does not vanish."
    )


def test_a_form_that_happens_to_be_zero_is_not_read_as_a_block_without_r():
    zero = compared("tanh", "float64", kernel_initializer="zeros", bias_initializer="ones")
    assert zero.chain_rule[0].equal
    assert not zero.parts["hidden"].agrees
    assert "own block of last;" in screen._reading(zero)

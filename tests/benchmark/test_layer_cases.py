"""Sizes as they are written, the networks that they give, and files as cases."""

import dataclasses

import keras
import numpy as np
import pytest

from hvp import InputError
from hvp.benchmark import file_case
from hvp.benchmark.layer_cases import parsed


@pytest.mark.parametrize(
    ("kind", "text", "parameters", "outputs"),
    [
        ("dense", "7x5x3", 8 * 5 + 6 * 3, 3),
        ("conv", "6x5x2x4×3", (9 * 2 + 1) * 4 + (9 * 4 + 1) * 3 + (3 + 1) * 10, 10),
        ("attention", "5x8x2", 4 * (8 * 8 + 8) + 9 * 10, 10),
        ("lstm", "4x3x5x2", 4 * (3 + 5 + 1) * 5 + 4 * (5 + 2 + 1) * 2 + 3 * 10, 10),
    ],
)
def test_sizes_are_those_of_the_network(kind, text, parameters, outputs):
    case = parsed(kind, text, 6, "auto", 0)
    loaded = case.load()
    assert loaded.model.count_params() == parameters
    assert loaded.model.output_shape == (None, outputs)
    x, y = loaded.data
    assert x.shape == (6, *loaded.model.input_shape[1:])
    assert y.shape == (6,)
    again = case.load()
    np.testing.assert_array_equal(again.data[0], x)
    for first, second in zip(again.model.get_weights(), loaded.model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("dense", "8"),
        ("dense", "8x"),
        ("dense", "8x-3"),
        ("dense", "0x3"),
        ("conv", "8x8x3"),
        ("attention", "8x9x2"),
        ("attention", "8x8x2x2"),
        ("lstm", "8 x 8 x y"),
    ],
)
def test_other_sizes_are_refused_with_an_example(kind, text):
    with pytest.raises(InputError, match=f"--{kind} with .* such as "):
        parsed(kind, text, 6, "auto", 0)


def test_a_model_from_files_takes_its_first_examples(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save(tmp_path / "net.keras")
    x, y = np.random.default_rng(0).normal(size=(9, 3)), np.arange(9) % 2
    np.savez(tmp_path / "data.npz", x=x.astype("float32"), y=y)
    case = file_case.of_files(
        tmp_path / "net.keras", str(tmp_path / "data.npz"), loss="mse", batch=4
    )
    assert (case.name, case.title) == ("net-batch-4", "net, batch 4")
    loaded = case.load()
    np.testing.assert_array_equal(loaded.data[0], x[:4].astype("float32"))
    np.testing.assert_array_equal(loaded.data[1], y[:4])
    more = dataclasses.replace(case, batch=10)
    with pytest.raises(InputError, match="--batch up to 9, got 10"):
        more.load()
    with pytest.raises(InputError):
        file_case.of_files(tmp_path / "none.keras", str(tmp_path / "data.npz"))

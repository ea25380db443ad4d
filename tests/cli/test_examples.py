"""Examples from files: weights, truth values, several inputs, images."""

import shlex

import keras
import numpy as np
import pytest
from support.command_line import arrays, compare, document, last_loss, model, succeeded

layers = keras.layers

pytestmark = pytest.mark.usefixtures("less_work")


@pytest.mark.sweep
def test_weights_and_truth_values_are_read(here):
    net, x = model(), arrays()["x"]
    net.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    net.save("net.keras")
    rng = np.random.default_rng(2)
    y, weight = rng.random((12, 3)) > 0.5, rng.random(12)
    np.savez("data.npz", x=x, y=y, sample_weight=weight)
    options = ("--layers", "last", "-k", 1, "--out", "out")
    result = compare("--model", "net.keras", "--data", "data.npz", *options)
    assert result.exit_code == 0, result.stderr
    found, expected = last_loss(here / "out", net, x, y, sample_weight=weight)
    assert found == expected


@pytest.mark.sweep
def test_several_inputs_and_outputs_have_names(here):
    rng = np.random.default_rng(2)
    x = {"left": rng.random((12, 3)), "right": rng.random((12, 2))}
    y = {"one": rng.random((12, 1)), "two": rng.random((12, 2))}
    weight = {"one": rng.random(12), "two": rng.random(12)}
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    hidden = layers.Dense(4, "tanh")(layers.Concatenate()([left, right]))
    ends = {"one": layers.Dense(1, name="one")(hidden), "two": layers.Dense(2, name="two")(hidden)}
    net = keras.Model([left, right], ends)
    net.compile(loss={"one": "mse", "two": "mae"})
    net.save("net.keras")
    named = {"x": x, "y": y, "sample_weight": weight}
    flat = {f"{kind}.{name}": a for kind, part in named.items() for name, a in part.items()}
    np.savez("data.npz", **flat)
    options = ("--layers", "one", "-k", 1, "--out", "out")
    result = compare("--model", "net.keras", "--data", "data.npz", *options)
    assert result.exit_code == 0, result.stderr
    found, expected = last_loss(here / "out", net, x, y, sample_weight=weight)
    assert found == expected


@pytest.mark.sweep
def test_images_are_rescaled(here):
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 256, (12, 2, 2), np.uint8), rng.integers(0, 3, 12).astype(np.uint8)
    net = keras.Sequential([keras.Input((2, 2)), layers.Flatten(), layers.Dense(3, name="last")])
    net.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.save("net.keras")
    np.savez("data.npz", x=x, y=y)
    typed = ("--model", "net.keras", "--data", "data.npz", "--rescale", "-k", 1)
    succeeded(compare(*typed, "--out", "out"))
    found, expected = last_loss(here / "out", net, x / 255, y)
    assert found == expected
    words = shlex.split(document(here / "out")["command"])
    assert words == ["hvp", "compare", *typed[:4], "-k", "1", "--rescale"]


@pytest.mark.sweep
def test_truth_values_are_inputs_and_class_numbers(inputs, here):
    x, y = arrays()["x"] > 0, arrays()["y"] > 1
    np.savez("data.npz", x=x, y=y)
    succeeded(compare(*inputs, "--layers", "last", "-k", 1, "--out", "out"))
    found, expected = last_loss(here / "out", model(), x.astype(np.float32), y.astype(int))
    assert found == expected

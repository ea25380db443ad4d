"""The command line in this process and in others, with small models and data to work on."""

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from hvp.cli import commands

layers = keras.layers
# The program as a script and as a module.
SCRIPT = str(Path(sys.executable).with_name("hvp"))
MODULE = (sys.executable, "-m", "hvp")
# The endings of the files of a comparison.
KINDS = ("html", "json", "npz", "png", "svg")


def run(*words):
    return CliRunner().invoke(commands.app, list(map(str, words)), prog_name="hvp")


def compare(*arguments):
    return run("compare", *arguments)


def succeeded(result):
    assert (result.exit_code, result.stderr) == (0, ""), result.exception


def assert_refused(result, text):
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("hvp: expected ")
    assert result.stderr.count("\n") == 1
    assert text in result.stderr


def files(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def document(directory):
    return json.loads((directory / "compare.json").read_text())


def without_times(plain):
    if isinstance(plain, dict):
        return {k: without_times(v) for k, v in plain.items() if k != "seconds"}
    return [without_times(v) for v in plain] if isinstance(plain, list) else plain


def model(compiled=True, **options):
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, "tanh", name="hidden", **options),
            layers.Dense(3, name="last", **options),
        ]
    )
    if compiled:
        net.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return net


def arrays():
    rng = np.random.default_rng(1)
    return {"x": rng.standard_normal((12, 4)).astype(np.float32), "y": rng.integers(0, 3, 12)}


def with_arrays(**changed):
    np.savez("data.npz", **{**arrays(), **changed})


def last_loss(directory, net, *data, **options):
    """The loss in the document, and that of Keras."""
    net.compile(loss=net.loss)
    found = net.evaluate(*data, verbose=0, return_dict=True, **options)["loss"]
    return document(directory)["loss"], pytest.approx(found, rel=1e-5)


def environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("TF_")}


def network(units=5):
    """A small classifier with two layers, for checkpoints of a training."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(units, "tanh", name="hidden"), keras.layers.Dense(3, name="last")]
    net = keras.Sequential([keras.Input((4,)), *layers])
    net.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return net

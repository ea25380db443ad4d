"""`hvp compare --workers`: the numbers of one process, and errors in one line."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")

from hvp.cli.commands import app  # noqa: E402

QUICK = ("--no-layers", "--parts", "ends", "-k", "2", "--quiet")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    stack = [keras.layers.Dense(5, "tanh", name="a"), keras.layers.Dense(3, name="b")]
    net = keras.Sequential([keras.Input((4,)), *stack])
    net.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.save("net.keras")
    rng = np.random.default_rng(0)
    np.savez("data.npz", x=rng.standard_normal((96, 4)), y=rng.integers(0, 3, 96))


def compare(*words):
    return CliRunner().invoke(app, ["compare", "net.keras", "--data", "data.npz", *QUICK, *words])


@pytest.mark.sweep
def test_the_command_line_divides_the_examples(tmp_path):
    documents = []
    for words in ((), ("--workers", "2")):
        result = compare(*words, "--out", str(tmp_path / str(len(words))))
        assert result.exit_code == 0, result.output
        documents.append(json.loads((tmp_path / str(len(words)) / "compare.json").read_text()))
    alone, shared = (numbers(document) for document in documents)
    assert alone.keys() == shared.keys()
    for name, value in alone.items():
        np.testing.assert_allclose(shared[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    assert not ray.is_initialized()


def numbers(document):
    """The eigenvalues of each matrix."""
    (part,) = document["parts"].values()
    return {
        f"{letter}, {end}": part[letter][end]["values"]
        for letter in "HGR"
        for end in ("largest", "smallest")
    }


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--address", "127.0.0.1:1"), "expected --workers with --address"),
        (("--workers", "0"), "expected at least one of --workers"),
        (("--workers", "2", "--address", "127.0.0.1:1"), "the address of a Ray cluster that runs"),
    ],
    ids=["no workers", "none", "no cluster"],
)
def test_what_cannot_be_is_one_line(words, line):
    result = compare(*words)
    assert result.exit_code == 2
    assert line in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1

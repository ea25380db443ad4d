"""Batches that fit into memory, also for losses that mix examples."""

from pathlib import Path

import keras
import numpy as np
import pytest
from support.command_line import assert_refused, compare, document, model, succeeded

import hvp
import hvp.report.terminal
from hvp.cli import linearizing, loading

pytestmark = pytest.mark.usefixtures("less_work")


@pytest.fixture
def mixing(here):
    """A Dice loss, which is no sum over examples."""
    net, x = model(), np.random.default_rng(3).standard_normal((100, 4)).astype(np.float32)
    net.compile(loss=keras.losses.Dice())
    net.save("net.keras")
    np.savez("data.npz", x=x, y=np.random.default_rng(4).random((100, 3)) > 0.5)
    return ("--model", "net.keras", "--data", "data.npz")


@pytest.mark.sweep
def test_a_loss_that_mixes_examples_takes_one_batch_and_says_so(mixing, here):
    result = compare(*mixing, "--layers", "last", "-k", 1, "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert "the loss mixes examples: all 100 are one batch" in " ".join(result.stdout.split())
    assert document(here / "out")["num_batches"] == 1


def test_a_loss_that_mixes_examples_in_smaller_batches_is_refused(mixing, here):
    result = compare(*mixing, "-k", 1, "--out", "out", "--batch-size", 10)
    assert_refused(result, "got 10 batches of a loss that mixes examples")
    assert result.stderr.endswith("; leave --batch-size out\n")


def test_a_loss_that_mixes_more_examples_than_fit_is_refused(mixing, here, monkeypatch):
    monkeypatch.setattr(linearizing, "_single_batch_bytes", lambda *job: (7 << 30, 2 << 30))
    result = compare(*mixing, "-k", 1, "--out", "out")
    assert_refused(result, "one batch would save about 7,168 MiB of 2,048; take fewer examples")


def test_the_memory_of_one_batch_grows_as_few_examples_say(mixing, monkeypatch):
    """Twice the examples save four times as much: all 100 save (100/32)² times that of 32."""
    monkeypatch.setattr(
        hvp.Linearization,
        "forecast",
        property(lambda lin: type("Forecast", (), {"kept": 1000 * lin.num_examples**2})),
    )
    options = linearizing.Options(None, None, None, None)
    arrays = loading.data_reader(Path("net.keras"), "data.npz")
    job = loading.load_job(Path("net.keras"), arrays, None)
    needed, budget = linearizing._single_batch_bytes(job, options, 100)
    assert needed == pytest.approx(1000 * 100**2)
    assert budget > 1 << 20


def test_values_that_take_much_memory_make_smaller_batches(inputs, here, monkeypatch):
    monkeypatch.setattr(linearizing, "MAX_BATCH_FRACTION", 1e-12)
    arrays = loading.data_reader(Path("net.keras"), "data.npz")
    found = []
    for batch_size in (12, None):
        options = linearizing.Options(None, None, None, batch_size)
        job = loading.load_job(Path("net.keras"), arrays, None)
        found.append(
            linearizing.linearized(job, options, hvp.report.terminal.Terminal(True)).num_batches
        )
    assert found == [1, 12]


@pytest.mark.sweep
def test_batches_have_the_size_that_is_asked_for(one_layer, here):
    succeeded(compare(*one_layer, "-k", 1, "--out", "out", "--batch-size", 4))
    assert document(here / "out")["num_batches"] == 3
    assert "--batch-size 4" in document(here / "out")["command"]

"""What all tests of the command line share: a process left as it was, small inputs, less work."""

import numpy as np
import pytest
import tensorflow as tf
from support.command_line import arrays, model

import hvp.comparison.run
import hvp.report.matplotlib_figure
import hvp.report.terminal
from hvp.comparison.plan import Effort


@pytest.fixture(autouse=True)
def process_left_as_it_was(monkeypatch):
    """Determinism holds for the rest of a process, and the other tests share this one."""
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)


@pytest.fixture(autouse=True)
def no_lines_of_progress(monkeypatch):
    monkeypatch.setattr(hvp.report.terminal, "SECONDS_BETWEEN_LINES", 1e6)


@pytest.fixture
def less_work(monkeypatch):
    """For tests of other things than densities, float64 and fine pictures, which take the most."""

    def few(effort, letter, of_layer):
        return min(effort.num_probes, 2), min(effort.num_steps, 4), 1

    monkeypatch.setattr(Effort, "resolution", few)
    monkeypatch.setattr(hvp.comparison.run, "in_float64", lambda lin: lin)
    monkeypatch.setattr(hvp.report.matplotlib_figure, "DPI", 40)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def inputs(here):
    model().save("net.keras")
    np.savez("data.npz", **arrays())
    return ("--model", "net.keras", "--data", "data.npz")


@pytest.fixture
def one_layer(inputs):
    """A comparison of the last layer alone, for tests in which no layer matters."""
    return (*inputs, "--layers", "last")

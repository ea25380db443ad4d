"""The scripts of `bench/studies/scripts`: that they are short, and run on a user's files."""

import csv
import re
import runpy
import sys
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest

import hvp

SCRIPTS = Path(__file__).parents[2] / "bench" / "studies" / "scripts"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, its data and two checkpoints, as files of a user."""
    place = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 5)), np.arange(60) % 3
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4, "tanh", name="hidden"), keras.layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5), loss)
    np.savez(place / "data.npz", x=x, y=y)
    model.save(place / "model.keras")
    for epoch in (1, 2):
        model.fit(x, y, verbose=0)
        model.save_weights(place / f"{epoch}.weights.h5")
    return place, hvp.linearize(model, (x, y))


@pytest.fixture
def run(files, tmp_path, monkeypatch, capsys):
    place, last = files
    monkeypatch.chdir(tmp_path)

    def call(name, *arguments):
        given = "model.keras", "data.npz", *arguments
        paths = [str(place / each) if "." in each and "0." not in each else each for each in given]
        monkeypatch.setattr(sys, "argv", [name, *paths])
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        plt.close("all")
        return capsys.readouterr().out, last

    return call


CHECKPOINTS = "1.weights.h5", "2.weights.h5"


def test_densities_are_drawn_and_counted(run, tmp_path):
    out, last = run("density_along_checkpoints", *CHECKPOINTS)
    values = np.linalg.eigvalsh(hvp.Hessian(last) @ np.eye(last.size))
    found = float(re.findall(r"h5: ([\d.]+)", out)[-1])
    assert found == pytest.approx(np.sum(values > 0.1), abs=6)
    assert (tmp_path / "density.png").stat().st_size > 5000


def test_overlaps_are_those_of_dense_algebra(run):
    out, last = run("overlap_along_checkpoints", "3", *CHECKPOINTS)
    H, G = (
        np.linalg.eigh(A(last) @ np.eye(last.size))[1][:, -3:]
        for A in (hvp.Hessian, hvp.GaussNewton)
    )
    expected = np.sum((H.T @ G) ** 2) / 3
    found = re.findall(r"overlap of the top 3 ([\d.]+)%", out)
    assert len(found) == 2
    assert float(found[-1]) / 100 == pytest.approx(expected, abs=2e-3)


def test_traces_are_a_table_and_a_file(run, tmp_path):
    out, _ = run("traces_by_layer")
    with open(tmp_path / "traces.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    traces = {(row["matrix"], row["layer"]): float(row["trace"]) for row in rows}
    assert {matrix for matrix, _ in traces} == {"H", "G", "R"}
    assert "hidden" in out
    parts = traces["G", "hidden"] + traces["R", "hidden"]
    assert traces["H", "hidden"] == pytest.approx(parts, rel=1e-3)


@pytest.mark.sweep
def test_batches_are_sharper_than_all_data(run):
    out, _ = run("sharpness_over_batch_sizes", "5", "30")
    found = [float(each) for each in re.findall(r": ([\d.]+) ±", out)]
    assert len(found) == 3
    assert found[0] > found[1] > found[2] > 0


def test_the_preconditioned_spectrum_is_beside_the_other(run, files):
    out, _ = run("preconditioned_spectrum", "0.1")
    place, _ = files
    arrays = np.load(place / "data.npz")
    model = keras.models.load_model(place / "model.keras")
    lin = hvp.linearize(model, (arrays["x"], arrays["y"]))
    dense = {A: A(lin) @ np.eye(lin.size) for A in (hvp.Hessian, hvp.GaussNewton)}
    roots = 1 / np.sqrt(np.diag(dense[hvp.GaussNewton]) + 0.1)
    expected = np.linalg.eigvalsh(roots[:, None] * dense[hvp.Hessian] * roots)[-1]
    found = float(re.search(r"preconditioned: the largest \[ *([\d.]+)", out)[1])
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_is_short(name):
    assert len((SCRIPTS / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 25


def test_all_scripts_are_tested():
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in NAMES if f'run("{name}"' not in text] == []

"""`hvp compare` on one model: what it computes, writes and prints."""

import html
import shlex
import subprocess

import keras
import matplotlib.image
import numpy as np
import pytest
from support.command_line import (
    KINDS,
    MODULE,
    SCRIPT,
    arrays,
    compare,
    document,
    environment,
    files,
    model,
    succeeded,
    without_times,
)

import hvp
from hvp import examples
from hvp.report import number_format

layers = keras.layers

pytestmark = pytest.mark.usefixtures("less_work")


@pytest.mark.sweep
def test_a_comparison_can_be_made_smaller(inputs, here):
    effort = ("--no-layers", "--probes", 2, "--steps", 4, "--examples", 5)
    result = compare(*inputs, "-k", 1, "--out", "found", *effort)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "net: 5 of 12 examples, chosen at random" in result.stdout
    found = document(here / "found")
    assert (found["num_examples"], list(found["parts"])) == (5, ["whole network"])
    assert [len(row) for row in found["parts"]["whole network"]["H"]["density"]["nodes"]] == [4, 4]
    again = "--probes 2 --steps 4 --no-layers --examples 5"
    assert sorted(again.split()) == sorted(found["command"].split("found/", 1)[0].split()[-7:])


def test_a_model_and_data_of_ones_own_are_compared(inputs, here):
    result = compare(*inputs, "-k", 2, "--out", "found", "--seed", 7)
    assert (result.exit_code, result.stderr) == (0, "")
    written = [f"found/compare.{kind}" for kind in KINDS]
    assert files(here) == ["data.npz", *written, "net.keras"]
    found = document(here / "found")
    assert found["title"] == "net"
    assert (found["size"], found["num_examples"], found["k"], found["seed"]) == (43, 12, 2, 7)
    assert list(found["parts"]) == ["whole network", "hidden", "last"]
    assert matplotlib.image.imread(here / "found/compare.png").std() > 0.01
    for words in ("43 parameters", "12 examples", *(f"wrote {path}" for path in written)):
        assert words in result.stdout


@pytest.mark.sweep
def test_what_is_shown_is_what_is_written(inputs, here):
    shown = compare(*inputs, "-k", 2, "--out", "out").stdout.splitlines()
    found = document(here / "out")
    (line,) = [line for line in shown if line.split()[:3] == ["whole", "network", "H"]]
    H = found["parts"]["whole network"]["H"]
    values = H["largest"]["values"][::-1] + H["smallest"]["values"][::-1]
    printed = [float(word) for word in line.split()[3:-1] if word[0] not in "±≥≤"]
    assert printed == pytest.approx(values, abs=1e-3 * values[0])
    assert line.split()[-1] == f"{found['parts']['whole network']['overlap']:.1%}"
    for row in found["chain_rule"]:
        cells = [line for line in shown if line.strip().startswith(row["layer"])][-1].split()
        forms = [number_format.known(row[form], row["rounding"]) for form in ("vHv", "vGv", "vRv")]
        assert all(form in cells for form in forms)
        assert cells[-1] == ("equal" if row["layer"] == "last" else "differ")


@pytest.fixture
def shown(here):
    """The lines on the screen for a model with long names and large numbers."""
    net = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, "tanh", name="a_layer_whose_name_is_rather_long_indeed"),
            layers.LayerNormalization(name="norm"),
            layers.Dense(3, name="last"),
        ]
    )
    net.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.save("net.keras")
    scaled = arrays()
    np.savez("data.npz", x=scaled["x"] * 1e3, y=scaled["y"])
    result = compare("--model", "net.keras", "--data", "data.npz", "--out", "out")
    assert result.exit_code == 0
    return result.stdout.splitlines()


def test_what_is_shown_fits_into_100_columns(shown):
    table = [line for line in shown if line.startswith((" ", "─"))]
    assert len(table) > 20
    assert max(map(len, table)) <= 100
    first = {line.split()[0] for line in table if line.strip()}
    assert {"whole", "norm", "last"} <= first
    assert any(word.startswith("a_layer_w") for word in first)
    lines = [line for line in shown if not line.startswith((" ", "─", "note: "))]
    assert any("53 parameters" in line for line in lines)
    assert max(map(len, lines)) <= 100


@pytest.mark.sweep
def test_quiet_prints_nothing(one_layer, here):
    result = compare(*one_layer, "-k", 1, "--quiet", "--out", "out")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert (here / "out/compare.json").is_file()


@pytest.mark.sweep
def test_the_default_is_both_activations_on_the_embedded_digits(here, monkeypatch):
    x, y = examples.mnist()
    monkeypatch.setattr(examples, "mnist", lambda: (x[::25], y[::25]))
    monkeypatch.setattr(examples, "EPOCHS", 1)
    result = compare("-k", 2, "--layers", "dense3")
    assert (result.exit_code, result.stderr) == (0, "")
    assert files(here) == [
        "hvp-compare/compare.html",
        *(f"hvp-compare/{name}/compare.{kind}" for name in ("relu", "tanh") for kind in KINDS),
    ]
    for name in ("relu", "tanh"):
        found = document(here / "hvp-compare" / name)
        assert (found["title"], found["num_examples"], found["dtype"]) == (name, 200, "float32")
        assert f"wrote hvp-compare/{name}/compare.json" in result.stdout


@pytest.mark.sweep
def test_options_choose_layers_loss_and_precision(inputs, here):
    options = ("--layers", "last", "--loss", "mean_absolute_error", "--dtype", "float64", "-k", 1)
    np.savez("data.npz", x=arrays()["x"], y=np.zeros((12, 3)))
    succeeded(compare(*inputs, *options, "--out", "out"))
    found = document(here / "out")
    outputs = model()(arrays()["x"]).numpy()
    assert found["loss"] == pytest.approx(np.abs(outputs).mean(), rel=1e-5)
    assert (found["dtype"], found["size"], found["accuracy"]) == ("float64", 18, None)


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("chosen", "sizes"),
    [
        (("h*",), {"hidden": 25}),
        pytest.param(("last", "hidden"), {"hidden": 25, "last": 18}, marks=pytest.mark.sweep),
        (("last,hidden",), {"hidden": 25, "last": 18}),
        pytest.param(("*/bias",), {"hidden": 5, "last": 3}, marks=pytest.mark.sweep),
    ],
)
def test_layers_are_names_or_globs_and_may_be_several(inputs, here, chosen, sizes):
    options = [word for layer in chosen for word in ("--layers", layer)]
    succeeded(compare(*inputs, *options, "-k", 1, "--out", "out", "-q"))
    found = {name: part["size"] for name, part in document(here / "out")["parts"].items()}
    everything = sum(sizes.values()) == 43
    together = found.pop("whole network" if everything else "selected layers")
    assert together == sum(sizes.values())
    assert found == sizes


@pytest.mark.sweep
def test_the_command_that_was_typed_is_kept_as_a_shell_takes_it(inputs, here):
    typed = (*inputs, "-k", 1, "--layers", "h*", "--layers", "last", "--out", "the out", "-q")
    succeeded(compare(*typed))
    words = ["hvp", "compare", *inputs, "--layers", "h*", "--layers", "last", "-k", "1"]
    command = document(here / "the out")["command"]
    assert shlex.split(command) == words
    assert "'h*'" in command
    assert command in html.unescape((here / "the out/compare.html").read_text())


@pytest.mark.sweep
@pytest.mark.parametrize(("chosen", "P", "most"), [("last/bias", 3, 2), ("one", 1, 1)])
def test_more_eigenvalues_than_there_are_become_all_but_one(inputs, here, chosen, P, most):
    if P == 1:
        layer = layers.Dense(1, use_bias=False, name="one")
        net = keras.Sequential([keras.Input((4,)), layers.Dense(1, name="first"), layer])
        net.compile(loss="mse")
        net.save("net.keras")
    result = compare(*inputs, "--layers", chosen, "--out", "out")
    succeeded(result)
    parameters = "one parameter" if P == 1 else f"{P} parameters"
    line = f"net: -k {most} instead of 10, as it has {parameters}"
    assert result.stdout.splitlines()[0] == line
    assert (document(here / "out")["k"], document(here / "out")["size"]) == (most, P)


@pytest.mark.sweep
def test_a_home_directory_is_found_as_a_shell_does(one_layer, here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    succeeded(compare(*one_layer, "-k", 1, "--out=~/found", "-q"))
    assert document(here / "home" / "found")["k"] == 1
    assert not (here / "~").exists()


@pytest.mark.sweep
def test_findings_name_options(one_layer, here, monkeypatch):
    finding = hvp.errors.Finding("note", "memory", "full", remedy="raise cache= if memory allows")
    monkeypatch.setattr(hvp.Linearization, "findings", property(lambda lin: (finding,)))
    result = compare(*one_layer, "-k", 1, "--out", "out")
    line = "note: memory: full; free memory, or take fewer examples"
    assert line in result.stdout
    assert document(here / "out")["findings"] == [line]


@pytest.mark.sweep
def test_a_failed_certificate_keeps_the_results_and_exits_1(one_layer, here, monkeypatch):
    original = hvp.Linearization.hvp
    monkeypatch.setattr(hvp.Linearization, "hvp", lambda lin, v: 1.01 * original(lin, v))
    result = compare(*one_layer, "-k", 1, "--out", "out")
    assert result.exit_code == 1
    assert result.stderr.startswith("hvp: net: The certificate failed: Hv by differences")
    assert result.stderr.count("\n") == 1
    assert "The certificate failed" in " ".join(result.stdout.split())
    assert files(here / "out") == sorted(f"compare.{kind}" for kind in KINDS)
    assert not document(here / "out")["certificate"]["passed"]
    assert compare(*one_layer, "-k", 1, "--out", "out", "-q").exit_code == 1


@pytest.mark.sweep
def test_the_same_seed_gives_the_same_bits_in_two_processes_and_quietly(one_layer, here):
    options = ("compare", *one_layer, "-k", "2", "--quiet")
    started = [
        subprocess.Popen(
            (*program, *options, "--out", out),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        for program, out in (((SCRIPT,), "first"), (MODULE, "second"))
    ]
    for process in started:
        assert process.communicate() == (b"", b"")
        assert process.returncode == 0
    first, second = (without_times(document(here / out)) for out in ("first", "second"))
    assert first == second
    assert first["parts"]["selected layers"]["H"]["largest"]["values"][-1] > 0

"""The command line: what it writes and prints, and that bad input is one line and nothing else."""

import html
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

import hvp.comparison.run
import hvp.report.matplotlib_figure
import hvp.report.terminal
from hvp import ConvergenceError, examples
from hvp.cli import commands, comparing, linearizing, loading
from hvp.comparison.plan import Effort
from hvp.comparison.run import Run
from hvp.report import number_format

layers = keras.layers
SCRIPT = str(Path(sys.executable).with_name("hvp"))
KINDS = ("html", "json", "npz", "png", "svg")
MODULE = (sys.executable, "-m", "hvp")


@pytest.fixture(autouse=True)
def process_left_as_it_was(monkeypatch):
    """Determinism holds for the rest of a process, and the other tests share this one."""
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)


@pytest.fixture(autouse=True)
def no_lines_of_progress(monkeypatch):
    monkeypatch.setattr(hvp.report.terminal, "SECONDS_BETWEEN_LINES", 1e6)


@pytest.fixture(autouse=True)
def less_work(monkeypatch):
    """Densities, float64 and fine pictures are not what is tested here, and take the most time."""

    def few(effort, letter, of_layer):
        return min(effort.num_probes, 2), min(effort.num_steps, 4), 1

    monkeypatch.setattr(Effort, "resolution", few)
    monkeypatch.setattr(hvp.comparison.run, "in_float64", lambda lin: lin)
    monkeypatch.setattr(hvp.report.matplotlib_figure, "DPI", 40)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(*arguments):
    return CliRunner().invoke(commands.app, ["compare", *map(str, arguments)])


def succeeded(result):
    assert (result.exit_code, result.stderr) == (0, ""), result.exception


def files(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


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


@pytest.fixture
def inputs(here):
    model().save("net.keras")
    np.savez("data.npz", **arrays())
    return ("--model", "net.keras", "--data", "data.npz")


@pytest.fixture
def one_layer(inputs):
    """A comparison of the last layer alone, for tests in which no layer matters."""
    return (*inputs, "--layers", "last")


def document(directory):
    return json.loads((directory / "compare.json").read_text())


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


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--probes", 0), "expected --probes of at least 1, got 0"),
        (("--steps", 1), "expected --steps of at least 2, got 1"),
        (("--examples", 0), "expected --examples of at least 1, got 0"),
    ],
)
def test_a_comparison_of_nothing_is_refused(inputs, options, line):
    result = compare(*inputs, *options)
    assert (result.exit_code, result.stderr) == (2, f"hvp: {line}; leave it out\n")


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


@pytest.fixture
def two_models(inputs):
    """Two models on the same data; of each, the last layer alone is compared."""
    Path("others").mkdir()
    model(kernel_initializer="ones").save("others/-wide.keras")
    options = ("--data", "data.npz", "--layers", "last", "-k", 1, "--out", "out")
    return ("net.keras", "./others/../others/-wide.keras", *options)


def test_several_models_get_a_directory_each_and_a_page_that_compares_them(two_models, here):
    result = compare(*two_models)
    succeeded(result)
    written = [f"{name}/compare.{kind}" for name in ("-wide", "net") for kind in KINDS]
    assert files(here / "out") == [*written[:5], "compare.html", *written[5:]]
    assert result.stdout.count("wrote out/") == 11
    page = (here / "out/compare.html").read_text()
    for name in ("net", "-wide"):
        found = document(here / "out" / name)
        assert (found["title"], found["size"], found["num_examples"]) == (name, 18, 12)
        assert f'<a href="{name}/compare.html">{name}</a>' in page
        assert (
            'One of 2 models: <a href="../compare.html">'
            in (here / "out" / name / "compare.html").read_text()
        )
        words = shlex.split(found["command"])
        assert words[:4] == ["hvp", "compare", "net.keras", "others/../others/-wide.keras"]


@pytest.mark.sweep
def test_one_model_by_its_name_is_as_by_the_option(inputs, here):
    options = (*inputs[2:], "--layers", "last", "-k", 1)
    succeeded(compare(inputs[1], *options, "--out", "first"))
    succeeded(compare(*inputs[:2], *options, "--out", "second"))
    assert files(here / "first") == [f"compare.{kind}" for kind in KINDS]
    first, second = (without_times(document(here / out)) for out in ("first", "second"))
    assert first.pop("command") == "hvp compare net.keras --data data.npz --layers last -k 1"
    second.pop("command")
    assert first == second
    assert "One of" not in (here / "first/compare.html").read_text()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("net.keras", "--model", "net.keras"), "models by their names or by --model, got both"),
        (
            ("net.keras", "others/NET.keras"),
            "models with different names, as results are named after them, got 'net.keras' and "
            "'others/NET.keras'; rename one",
        ),
        (("net.keras", "--activation", "relu"), "expected --model or --activation, got both"),
        (("net.keras", "none.keras"), "got no file 'none.keras'"),
    ],
)
def test_models_that_cannot_be_compared_are_one_line(inputs, here, words, text):
    assert_refused(compare(*words, *inputs[2:], "--out", "out"), text)
    assert not (here / "out").exists()


def test_a_model_that_cannot_take_the_data_is_refused_before_any_is_compared(inputs, here):
    keras.Sequential([keras.Input((9,)), layers.Dense(3)]).save("other.keras")
    options = ("--loss", "mse", "--out", "out")
    assert_refused(compare("net.keras", "other.keras", *inputs[2:], *options), "expected ")
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConvergenceError("expected errors up to 1e-9, got 1"), 1, "expected errors up to 1e-9"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_models_that_are_finished_are_written(two_models, here, monkeypatch, error, code, line):
    step = Run.step

    def of_the_first(run):
        if of_the_first.runs.setdefault(id(run), len(of_the_first.runs)) > 0:
            raise error
        kept.append(run)  # so that no other one gets its id
        return step(run)

    of_the_first.runs, kept = {}, []
    monkeypatch.setattr(Run, "step", of_the_first)
    result = compare(*two_models)
    assert result.exit_code == code
    assert result.stderr.startswith(f"hvp: {line}")
    assert files(here / "out") == [f"net/compare.{kind}" for kind in KINDS]
    assert document(here / "out/net")["unfinished"] == []


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


def last_loss(directory, net, *data, **options):
    """The loss in the document, and that of Keras."""
    net.compile(loss=net.loss)
    found = net.evaluate(*data, verbose=0, return_dict=True, **options)["loss"]
    return document(directory)["loss"], pytest.approx(found, rel=1e-5)


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


@pytest.fixture
def mixing(here):
    """A Dice loss, which is no sum over examples."""
    net, x = model(), np.random.default_rng(3).standard_normal((100, 4)).astype(np.float32)
    net.compile(loss=keras.losses.Dice())
    net.save("net.keras")
    np.savez("data.npz", x=x, y=np.random.default_rng(4).random((100, 3)) > 0.5)
    return ("--model", "net.keras", "--data", "data.npz")


def run_check(*arguments):
    return CliRunner().invoke(commands.app, ["check", *map(str, arguments)])


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


def test_batches_have_the_size_that_is_asked_for(one_layer, here):
    succeeded(compare(*one_layer, "-k", 1, "--out", "out", "--batch-size", 4))
    assert document(here / "out")["num_batches"] == 3
    assert "--batch-size 4" in document(here / "out")["command"]


@keras.saving.register_keras_serializable("test_cli")
class Root(layers.Layer):
    """Square roots of weights that are zero: their derivative is infinite."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1],), initializer="zeros", name="kernel")

    def call(self, x):
        return x + keras.ops.sqrt(self.kernel)


def test_a_check_of_products_that_are_not_finite_is_a_failed_line(inputs):
    net = keras.Sequential([keras.Input((4,)), layers.Dense(3), Root(name="root")])
    net.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.save("net.keras")
    result = run_check(*inputs)
    assert (result.exit_code, result.stderr) == (1, "")
    (line,) = [line for line in result.stdout.splitlines() if "all products are finite" in line]
    assert "failed" in line


def test_a_model_of_half_precision_is_checked_in_double(inputs):
    model(dtype="float16").save("net.keras")
    assert_refused(run_check(*inputs), "got float16; cast them before, or give --dtype float64")
    result = run_check(*inputs, "--dtype", "float64", "--layers", "last")
    assert (result.exit_code, result.stderr) == (0, "")


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


def test_quiet_prints_nothing(one_layer, here):
    result = compare(*one_layer, "-k", 1, "--quiet", "--out", "out")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert (here / "out/compare.json").is_file()


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


@pytest.mark.parametrize("word", ["version", "--version"])
def test_the_version_is_printed(word):
    result = CliRunner().invoke(commands.app, [word])
    assert (result.exit_code, result.stdout) == (0, f"{hvp.__version__}\n")


def test_without_a_command_help_is_printed():
    result = CliRunner().invoke(commands.app, [])
    assert (result.exit_code, result.stderr) == (2, "")
    assert {"version", "compare", "check"} <= set(result.stdout.split())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("foo",), "no such command 'foo'; see hvp --help"),
        (("compare", "--modle", "x"), "no such option: --modle"),
        (("check", "x"), "got unexpected extra argument"),
        (("compare", "--model"), "option '--model' requires an argument; see hvp"),
        (("compare", "-k", "ten"), "'-k': expected a whole number, got 'ten'; see hvp compare"),
        (("check", "--seed", "1.5"), "'--seed': expected a whole number, got '1.5'; see hvp check"),
        (("compare", "--out", ""), "'--out': expected a path, got ''; see hvp compare --help"),
    ],
)
def test_a_line_that_no_command_takes_is_answered_by_one_line(here, words, line):
    result = CliRunner().invoke(commands.app, list(words), prog_name="hvp")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("hvp: ")
    assert line in result.stderr
    assert result.stderr.endswith("--help\n")
    assert result.stderr.count("\n") == 1
    assert files(here) == []


@keras.saving.register_keras_serializable("test_cli")
class Counter(layers.Layer):
    """A layer with a trainable integer."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), dtype="int32", initializer="ones", name="count")

    def call(self, x):
        return x * keras.ops.cast(self.count, x.dtype)


def saved(net):
    net.save("net.keras")


def with_arrays(**changed):
    np.savez("data.npz", **{**arrays(), **changed})


def with_value(value):
    x = arrays()["x"]
    x[3, 2] = value
    with_arrays(x=x)


def with_counter():
    net = keras.Sequential([keras.Input((4,)), Counter(), layers.Dense(3)])
    net.compile(loss="sparse_categorical_crossentropy")
    saved(net)


def with_lambda():
    saved(keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x), layers.Dense(3)]))


def damaged():
    np.savez_compressed("data.npz", x=np.arange(4000.0).reshape(1000, 4), y=np.zeros(1000, int))
    content = bytearray(Path("data.npz").read_bytes())
    content[200:400] = bytes(200)
    Path("data.npz").write_bytes(content)


BAD_DATA = {
    "missing": (
        lambda: Path("data.npz").unlink(),
        "expected an .npz file, got no file 'data.npz'",
    ),
    "a directory": (
        lambda: (Path("data.npz").unlink(), Path("data.npz").mkdir()),
        "expected an .npz file, got a directory 'data.npz'",
    ),
    "a pipe": (lambda: (Path("data.npz").unlink(), os.mkfifo("data.npz")), "got a pipe"),
    "text": (lambda: Path("data.npz").write_text("hello"), "got a text file 'data.npz'"),
    "empty file": (lambda: Path("data.npz").write_bytes(b""), "got an empty file"),
    "damaged": (damaged, "expected an .npz file, got a damaged one, 'data.npz'"),
    "one array": (
        lambda: (np.save("one.npy", np.ones(3)), os.replace("one.npy", "data.npz")),
        "got a single array",
    ),
    "no y": (lambda: np.savez("data.npz", x=arrays()["x"]), "expected arrays x and y, got ['x']"),
    "no x": (lambda: np.savez("data.npz", a=[1], y=[1]), "expected arrays x and y, got ['a', 'y']"),
    "objects": (lambda: with_arrays(y=np.array([{}] * 12)), "got Python objects"),
    "text array": (lambda: with_arrays(y=np.array(["one"] * 12)), "expected a numeric array y"),
    "unknown array": (
        lambda: with_arrays(sample_weights=np.ones(12)),
        "expected arrays x, y and sample_weight, or x.NAME, y.NAME and sample_weight.NAME for "
        "several inputs and outputs, got ['sample_weights', 'x', 'y'] in 'data.npz'; rename or "
        "leave out sample_weights",
    ),
    "complex": (lambda: with_arrays(x=1j * arrays()["x"]), "complex64"),
    "NaN": (lambda: with_value(np.nan), "expected finite data, got NaN or infinity in example 3"),
    "infinity": (lambda: with_value(np.inf), "got NaN or infinity in example 3"),
    "NaN in y": (lambda: with_arrays(y=np.full(12, np.nan)), "got NaN or infinity in example 0"),
    "lengths": (lambda: with_arrays(y=arrays()["y"][:11]), "got lengths [11, 12]"),
    "empty": (
        lambda: with_arrays(x=np.zeros((0, 4)), y=np.zeros(0, int)),
        "expected at least one example, got an empty data set",
    ),
    "scalars": (lambda: with_arrays(x=np.float32(1), y=np.int64(1)), "got a scalar"),
    "width": (
        lambda: with_arrays(x=np.zeros((12, 5), np.float32)),
        "expected x of shape (N, 4), as the model takes it, got (N, 5)",
    ),
    "length of y": (
        lambda: with_arrays(y=np.zeros((12, 7))),
        "expected y of shape (N,), by the model's outputs and its loss, got y of shape (N, 7)",
    ),
    "one-hot": (
        lambda: with_arrays(y=np.eye(3)[arrays()["y"]]),
        "got y of shape (N, 3), one-hot; use CategoricalCrossentropy(from_logits=True), or",
    ),
    "label beyond": (
        lambda: with_arrays(y=np.full(12, 3)),
        "expected labels from 0 to 2, as the model has 3 outputs, got labels from 3 to 3",
    ),
    "label below": (lambda: with_arrays(y=np.arange(12) % 3 - 1), "got labels from -1 to 1"),
}
BAD_MODELS = {
    "missing": (lambda: Path("net.keras").unlink(), "expected a .keras file, got no file"),
    "text": (lambda: Path("net.keras").write_text("hello"), "expected a .keras file, got a text"),
    "no loss": (lambda: saved(model(compiled=False)), "compiled without one; give --loss NAME"),
    "float16": (lambda: saved(model(dtype="float16")), "got float16; cast them before, or give --"),
    "integer": (with_counter, "int32"),
    "code": (with_lambda, "load_model('net.keras', safe_mode=False); hvp.compare("),
}
BAD_OPTIONS = {
    "numbers": (
        ("--loss", "categorical_crossentropy"),
        "expected one-hot y of shape (N, 3), for categorical_crossentropy, got y of shape (N,), "
        "class numbers; give --loss sparse_categorical_crossentropy, or",
    ),
    "rescale": (("--rescale",), "expected images of uint8 for --rescale, got x of float32"),
    "layer": (("--layers", "attic"), "expected a layer, a parameter or a glob among hidden, last"),
    "loss": (("--loss", "nonsense"), "expected a loss that Keras knows, got 'nonsense'"),
    "batch size": (("--batch-size", "0"), "expected a --batch-size of at least 1, got 0"),
    "activation": (("--activation", "relu"), "expected --model or --activation, got both"),
}


def assert_refused(result, text):
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("hvp: expected ")
    assert result.stderr.count("\n") == 1
    assert text in result.stderr


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_one_line_and_nothing_written(inputs, here, case):
    spoil, text = BAD_DATA[case]
    spoil()
    before = files(here)
    assert_refused(compare(*inputs, "-k", 2, "--out", "out"), text)
    assert files(here) == before
    assert not (here / "out").exists()


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_bad_model_is_one_line_and_nothing_written(inputs, here, case):
    spoil, text = BAD_MODELS[case]
    spoil()
    assert_refused(compare(*inputs, "-k", 2, "--out", "out"), text)
    assert not (here / "out").exists()


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_is_one_line_and_nothing_written(inputs, here, case):
    options, text = BAD_OPTIONS[case]
    assert_refused(compare(*inputs, *options, "--out", "out"), text)
    assert not (here / "out").exists()


def test_pickled_objects_are_never_unpickled(inputs, here):
    class Trap:
        def __reduce__(self):
            return Path.touch, (here / "sprung",)

    with_arrays(y=np.array([Trap()] * 12))
    assert_refused(compare(*inputs, "--out", "out"), "got Python objects")
    assert not (here / "sprung").exists()


@pytest.mark.parametrize(
    "options", [("--dtype", "float16"), ("--activation", "gelu"), ("-k", "0"), ("--seed", "-1")]
)
def test_a_value_that_an_option_cannot_take_is_a_usage_error(here, options):
    result = compare(*options)
    assert result.exit_code == 2
    assert options[0] in result.stderr
    assert "Traceback" not in result.stderr
    assert files(here) == []


@pytest.mark.parametrize("width", [4, 28])
def test_forgotten_data_are_asked_for(inputs, width):
    """A model for other inputs, or with fewer outputs than there are digits."""
    net = keras.Sequential([keras.Input((width, width)), layers.Flatten(), layers.Dense(3)])
    net.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.save("net.keras")
    line = "expected --data, as this model cannot take the built-in digits, got none; give its x"
    assert_refused(compare(*inputs[:2], "-q"), line)


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


def test_truth_values_are_inputs_and_class_numbers(inputs, here):
    x, y = arrays()["x"] > 0, arrays()["y"] > 1
    np.savez("data.npz", x=x, y=y)
    succeeded(compare(*inputs, "--layers", "last", "-k", 1, "--out", "out"))
    found, expected = last_loss(here / "out", model(), x.astype(np.float32), y.astype(int))
    assert found == expected


def test_rescaling_without_data_is_refused(here):
    assert_refused(compare("--rescale"), "expected --data with --rescale, got --rescale alone")


def test_findings_name_options(one_layer, here, monkeypatch):
    finding = hvp.errors.Finding("note", "memory", "full", remedy="raise cache= if memory allows")
    monkeypatch.setattr(hvp.Linearization, "findings", property(lambda lin: (finding,)))
    result = compare(*one_layer, "-k", 1, "--out", "out")
    line = "note: memory: full; free memory, or take fewer examples"
    assert line in result.stdout
    assert document(here / "out")["findings"] == [line]


def test_data_without_a_model_is_refused(inputs):
    result = compare("--data", "data.npz")
    assert_refused(result, "expected --model with --data, got --data alone")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(inputs, here, seed):
    assert_refused(compare(*inputs, "--seed", seed), "expected a --seed from 0 to 4294967295")


@pytest.mark.parametrize("name", [f"compare.{kind}" for kind in KINDS])
def test_a_directory_in_the_place_of_a_result_is_refused_before_any_work(inputs, here, name):
    (here / "out" / name).mkdir(parents=True)
    result = compare(*inputs, "--out", "out")
    assert result.exit_code == 2
    assert result.stderr.startswith("hvp: expected a directory to write to, got 'out'")
    assert [path.name for path in (here / "out").iterdir()] == [name]


@pytest.mark.parametrize("out", ["taken", "taken/below"])
def test_an_out_that_is_a_file_is_refused(inputs, here, out):
    Path("taken").write_text("mine")
    assert_refused(compare(*inputs, "--out", out), "expected a directory to write to")
    assert (here / "taken").read_text() == "mine"


def test_a_home_directory_is_found_as_a_shell_does(one_layer, here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    succeeded(compare(*one_layer, "-k", 1, "--out=~/found", "-q"))
    assert document(here / "home" / "found")["k"] == 1
    assert not (here / "~").exists()


def test_a_name_that_is_too_long_is_refused(inputs, here):
    before = files(here)
    assert_refused(compare("--out", "x" * 300), "File name too long; choose another --out")
    assert_refused(compare("--model", "x" * 300), "(File name too long)")
    assert_refused(compare(*inputs[:2], "--data", "x" * 300), "(File name too long)")
    assert files(here) == before


def test_a_comparison_starts_from_an_earlier_one(one_layer, here):
    effort = (*one_layer, "-k", 1, "--parts", "ends", "-q")
    succeeded(compare(*effort, "--out", "first"))
    succeeded(compare(*effort, "--out", "second", "--start-from", "first/compare.json"))
    first, second = document(here / "first"), document(here / "second")
    ends = [found["parts"]["selected layers"]["H"]["largest"] for found in (first, second)]
    assert ends[1]["values"] == pytest.approx(ends[0]["values"], abs=1e-5)
    assert second["command"] == f"{first['command']} --start-from first/compare.json"


def test_several_models_start_from_their_own_comparisons(inputs, here):
    starts = (("a", "b"), ("first/a", "first/b"))
    for name in starts[0]:
        model().save(f"{name}.keras")
    options = ("--data", "data.npz", "--layers", "last", "-k", 1, "--parts", "ends", "-q")
    succeeded(compare("a.keras", "b.keras", *options, "--out", "first"))
    for path in ("first", "first/compare.html"):
        found = comparing.starts(Path(path), starts[0])
        assert [each.vectors.keys() for each in found] == [
            comparing.starts(Path(name), ["x"])[0].vectors.keys() for name in starts[1]
        ]


def test_a_start_that_does_not_fit_is_refused(one_layer, inputs, here):
    effort = ("-k", 1, "--parts", "ends", "-q")
    assert_refused(
        compare(*inputs, *effort, "--start-from", "nowhere.json"),
        "expected a compare.json, got no file 'nowhere.json'; check the path",
    )
    succeeded(compare(*one_layer, *effort, "--out", "first"))
    assert_refused(
        compare(*inputs, *effort, "--start-from", "first"),
        "expected a --start-from with layer hidden of shapes (4, 5) (5,), got shapes none; "
        "leave --start-from out",
    )
    (here / "first/compare.npz").unlink()
    assert_refused(
        compare(*inputs, *effort, "--start-from", "first"),
        "expected a compare.npz beside the compare.json, got no 'first/compare.npz'; "
        "leave --start-from out",
    )


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


def test_no_convergence_is_one_line_and_exit_code_1(inputs, here, monkeypatch):
    def give_up(*arguments, **options):
        raise ConvergenceError("expected errors up to 1e-9, got 1;\nloosen tol")

    monkeypatch.setattr(Run, "step", give_up)
    result = compare(*inputs, "--out", "out")
    assert result.exit_code == 1
    assert result.stderr == "hvp: expected errors up to 1e-9, got 1; loosen tol\n"
    assert not (here / "out").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(one_layer, here, monkeypatch):
    def fill(comparison, path, *others):
        path.write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hvp.report.matplotlib_figure, "save_comparison", fill)
    before = files(here)
    result = compare(*one_layer, "-k", 1, "--out", "out")
    assert (result.exit_code, result.stderr) == (1, "hvp: out: No space left on device\n")
    assert files(here) == before


class Full:
    """A standard output that takes nothing."""

    def __init__(self, original):
        self.original = original

    def write(self, text):
        raise OSError(28, "No space left on device")

    def __getattr__(self, name):
        return getattr(self.original, name)


@pytest.mark.parametrize("command", ["compare", "check"])
def test_results_are_kept_where_standard_output_is_full(one_layer, here, command, monkeypatch):
    original = linearizing.linearized

    def filled(job, options, terminal):
        sys.stdout = Full(sys.stdout)
        terminal.say("a note before the work")
        return original(job, options, terminal)

    monkeypatch.setattr(linearizing, "linearized", filled)
    options = ("-k", "1", "--out", "out") if command == "compare" else ()
    result = CliRunner().invoke(commands.app, [command, *one_layer, *options])
    line = "hvp: standard output: No space left on device\n"
    assert (result.exit_code, result.stderr) == (1, line)
    assert (command == "compare") == (here / "out/compare.json").is_file()


@pytest.mark.parametrize(
    ("output", "code", "line"),
    [
        (">/dev/full", 1, "hvp: standard output: No space left on device\n"),
        (">&-", 1, "hvp: standard output: Bad file descriptor\n"),
        (">&- 2>&-", 1, ""),
    ],
)
def test_an_output_that_takes_nothing_is_one_line(output, code, line):
    command = f"exec {shlex.join(MODULE)} version {output}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", line)


def test_lines_tell_the_progress_where_there_is_no_terminal(one_layer, here, monkeypatch):
    monkeypatch.setattr(hvp.report.terminal, "SECONDS_BETWEEN_LINES", 0.05)
    result = compare(*one_layer, "-k", 1, "--out", "out")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert all(re.match(r"hvp: \d+ s: \w|net: ", line) for line in lines)
    assert any(": net: linearising" in line for line in lines)
    assert any(re.search(r"net: spectra, \d+ of \d+ \(.*, product \d+", line) for line in lines)
    assert compare(*one_layer, "-k", 1, "--out", "out", "-q").stderr == ""


def test_an_interruption_while_writing_leaves_nothing(one_layer, here, monkeypatch):
    def interrupt(comparison, path, *others):
        path.write_bytes(b"half a picture")
        raise KeyboardInterrupt

    monkeypatch.setattr(hvp.report.matplotlib_figure, "save_comparison", interrupt)
    before = files(here)
    result = compare(*one_layer, "-k", 1, "--out", "out")
    assert (result.exit_code, result.stderr) == (130, "hvp: interrupted\n")
    assert files(here) == before


def environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("TF_")}


@pytest.mark.parametrize(
    ("words", "shown"), [(("compare", "--help"), "--activation"), (("--version",), hvp.__version__)]
)
def test_help_and_version_import_neither_tensorflow_nor_what_numbers_need(words, shown):
    command = (sys.executable, "-X", "importtime", "-m", "hvp", *words)
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert shown in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"hvp.cli", "typer"} <= imported
    assert not imported & {"tensorflow", "keras", "scipy", "matplotlib", "numpy"}


def without_times(plain):
    if isinstance(plain, dict):
        return {k: without_times(v) for k, v in plain.items() if k != "seconds"}
    return [without_times(v) for v in plain] if isinstance(plain, list) else plain


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


def test_bad_input_is_one_line_without_tensorflows_chatter(inputs, here):
    with_arrays(y=np.full(12, 9))
    command = (SCRIPT, "compare", *inputs, "--out", "out", "--quiet")
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hvp: expected labels from 0 to 2")
    assert done.stderr.count("\n") == 1
    assert not (here / "out").exists()


@pytest.mark.parametrize("command", ["compare", "check"])
def test_a_wrong_file_is_reported_before_tensorflow_is_imported(inputs, here, command):
    typed = ["hvp", command, "--model", "net.keras", "--data", "none.npz"]
    program = (
        f"import sys; sys.argv = {typed}\n"
        "from hvp.cli import main\n"
        "try: main()\n"
        "finally: assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True)
    line = "hvp: expected an .npz file, got no file 'none.npz'; check the path\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


# A shell may have started the tests with Ctrl-C ignored, which children inherit.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from hvp.cli import main
main()
"""


@pytest.mark.parametrize(
    ("stage", "number", "code", "word"),
    [
        ("importing TensorFlow", signal.SIGINT, 130, "interrupted"),
        ("relu: training", signal.SIGTERM, 143, "terminated"),
        pytest.param("relu: spectra", signal.SIGINT, 130, "interrupted", marks=pytest.mark.sweep),
    ],
)
def test_a_signal_ends_the_work_and_leaves_no_file(here, stage, number, code, word):
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        (sys.executable, "-c", INTERRUPTIBLE, "compare", "--out", "new/out"),
        stdout=subprocess.PIPE,
        stderr=end,
        env={**environment(), "TERM": "xterm"},
    )
    os.close(end)
    shown = read_until(terminal, stage)
    process.send_signal(number)
    shown += read_until(terminal, None)
    os.close(terminal)
    forecast = process.communicate()[0]
    assert forecast.startswith(b"relu: 24,790" if stage == "relu: spectra" else b"")
    assert process.returncode == code
    assert shown.rstrip().endswith(f"hvp: {word}")
    assert "Traceback" not in shown
    assert list(here.iterdir()) == []


@pytest.mark.sweep
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_comparison_writes_what_is_finished(inputs, here, number, code):
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        (sys.executable, "-c", INTERRUPTIBLE, "compare", "-k", "2", "--out", "out",
         "--steps", "10000", "--probes", "10000", "--budget", "none"),
        stdout=subprocess.PIPE,
        stderr=end,
        env={**environment(), "TERM": "xterm"},
    )  # fmt: skip
    os.close(end)
    read_until(terminal, "ends of R: λ_max")
    process.send_signal(number)
    read_until(terminal, None)
    os.close(terminal)
    shown = process.communicate()[0].decode()
    assert process.returncode == code
    assert "Interrupted: " in shown
    assert files(here / "out") == [f"relu/compare.{kind}" for kind in KINDS]
    found = document(here / "out" / "relu")
    assert "whole network: density of H" in found["unfinished"]
    assert found["parts"]["whole network"]["H"]["density"] is None
    assert found["parts"]["whole network"]["R"]["largest"]["values"][-1] > 0


def read_until(terminal, text, patience=120):
    """What appears on the terminal until `text` does, or until it closes."""
    shown, end = "", time.monotonic() + patience
    while time.monotonic() < end and (text is None or text not in shown):
        if select.select([terminal], [], [], 1)[0]:
            try:
                shown += os.read(terminal, 4096).decode(errors="replace")
            except OSError:  # Linux's word for a closed terminal
                return shown
    assert text is None or text in shown
    return shown


def test_the_entry_point_says_which_package_is_missing(here):
    for package in ("typer", "rich", "matplotlib"):
        program = (
            f"import sys; sys.modules[{package!r}] = None; sys.argv = ['hvp', 'compare', '-q']; "
            "from hvp.cli import main; main()"
        )
        done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True)
        line = (
            "hvp: expected the packages of the extra 'report', "
            f"got no module {package}; pip install 'hvp[report]'\n"
        )
        assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert files(here) == []

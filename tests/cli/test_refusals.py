"""Bad data, models, options and directories: one line, and nothing is written."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
from support.command_line import KINDS, arrays, assert_refused, compare, files, model, with_arrays

layers = keras.layers

pytestmark = pytest.mark.usefixtures("less_work")


@keras.saving.register_keras_serializable("tests")
class Counter(layers.Layer):
    """A layer with a trainable integer."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), dtype="int32", initializer="ones", name="count")

    def call(self, x):
        return x * keras.ops.cast(self.count, x.dtype)


def saved(net):
    net.save("net.keras")


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


def test_rescaling_without_data_is_refused(here):
    assert_refused(compare("--rescale"), "expected --data with --rescale, got --rescale alone")


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


def test_a_name_that_is_too_long_is_refused(inputs, here):
    before = files(here)
    assert_refused(compare("--out", "x" * 300), "File name too long; choose another --out")
    assert_refused(compare("--model", "x" * 300), "(File name too long)")
    assert_refused(compare(*inputs[:2], "--data", "x" * 300), "(File name too long)")
    assert files(here) == before

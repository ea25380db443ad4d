"""Examples from arrays in files, folders of images, Keras's data sets and functions."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvp.errors import InputError
from hvp.objective.data_sources import KERAS_DATA_SETS, reader

layers = keras.layers
X, Y = np.arange(12.0, dtype=np.float32).reshape(6, 2), np.arange(6) % 3


def model(*shape):
    return keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(3)])


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(source, *shape):
    return reader(source)(model(*shape or (2,)))


def test_two_arrays_are_mapped_into_memory():
    np.save("x.npy", X)
    np.save("y.npy", Y)
    x, y = read("x.npy, y.npy")
    assert isinstance(x, np.memmap)
    assert (x == X).all()
    assert (y == Y).all()


def test_an_npz_file_is_read():
    np.savez("data.npz", x=X, y=Y)
    assert [part.shape for part in read("data.npz")] == [(6, 2), (6,)]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_of_images_is_read_in_the_models_size_and_colours(channels):
    for number, name in enumerate(("cat", "dog")):
        for i in range(2):
            Path("images", name).mkdir(parents=True, exist_ok=True)
            picture = np.full((5, 4, 3), 100 * number + i, np.uint8)
            png = tf.io.encode_png(picture)
            tf.io.write_file(f"images/{name}/{i}.png", png)
    x, y = read("images", 5, 4, channels)
    assert x.shape == (4, 5, 4, channels)
    assert y.tolist() == [0, 0, 1, 1]
    assert x.mean(axis=(1, 2, 3)) == pytest.approx([0, 1, 100, 101], abs=1.0)


CODE = """
import numpy as np
X, Y = np.arange(12.0).reshape(6, 2), np.arange(6) % 3
def whole(): return X, Y
def batches():
    for i in (0, 4): yield X[i:i + 4], Y[i:i + 4]
def named():
    for i in (0, 4): yield {"a": X[i:i + 4]}, Y[i:i + 4]
def number(): return 3
def nothing(): return iter(())
def uneven():
    yield X, Y
    yield X[:, :1], Y
answer = 42
"""


@pytest.fixture
def module(here, request, monkeypatch):
    monkeypatch.syspath_prepend(here)
    name = f"code_{request.node.name.translate(str.maketrans('[]-', '___'))}".rstrip("_")
    (here / f"{name}.py").write_text(CODE)
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize("function", ["whole", "batches"])
def test_a_function_gives_arrays_or_batches(module, function):
    x, y = read(f"{module}:{function}")
    assert (x == X).all()
    assert (y == Y).all()


def test_batches_of_named_inputs_are_joined(module):
    x, _ = read(f"{module}:named")
    assert (x["a"] == X).all()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("number", "expected a function that gives"),
        ("nothing", "with no batch"),
        ("uneven", "expected batches of one structure and shape"),
        ("answer", "expected a function answer in"),
        ("missing", "expected a function missing in"),
    ],
)
def test_what_a_function_gives_otherwise_is_refused(module, function, words):
    with pytest.raises(InputError, match=words):
        read(f"{module}:{function}")


def test_a_module_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="expected a module that can be imported, got 'nowhere'"):
        read("nowhere:data")


def test_a_data_set_of_keras_is_read_from_its_cache_alone(here, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(here))
    with pytest.raises(InputError, match=r"run keras.datasets.mnist.load_data\(\) once"):
        read("mnist")
    (here / "datasets").mkdir()
    (here / "datasets" / "mnist.npz").touch()
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: ((X, Y), (X[:1], Y[:1])))
    x, y = read("mnist")
    assert x is X
    assert y is Y


@pytest.mark.parametrize("name", KERAS_DATA_SETS)
def test_the_data_sets_are_those_of_keras(name):
    assert callable(getattr(keras.datasets, name).load_data)


def test_other_files_are_refused_at_once(here):
    np.savez("data.npz", x=X, y=Y)
    np.save("x.npy", X)
    np.save("y.npy", Y[:4])
    np.save("words.npy", np.array(["a"] * 6))
    (here / "images").mkdir()
    for source, words in {
        "x.npy": "expected an .npz file, got a single array",
        "x.npy,data.npz": "expected a single array, as np.save writes it, got an .npz file",
        "x.npy,none.npy": "got no file 'none.npy'; check the path",
        "x.npy,y.npy": r"expected arrays of one length, got lengths \[4, 6\]",
        "x.npy,words.npy": "expected a numeric array y, got text",
        "x.npy,": "expected a single array, as np.save writes it, got a directory",
        "none": "got no file 'none'",
    }.items():
        with pytest.raises(InputError, match=words.replace(".npz", r"\.npz")):
            reader(source)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((4,), "expected a model that takes images of one size"),
        ((5, 4, 2), "expected a model of images with 1, 3 or 4 channels last, got 2"),
        ((5, 4, 3), "expected a folder with a folder of images for each class"),
    ],
)
def test_a_folder_for_another_model_or_without_images_is_refused(here, shape, words):
    (here / "images").mkdir()
    with pytest.raises(InputError, match=words):
        read("images", *shape)

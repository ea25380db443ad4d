"""Batches in a fixed order, and what cannot be read as such."""

import os
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvp
from hvp import examples
from hvp.objective import batches, files

X, Y = np.arange(14.0).reshape(7, 2), np.arange(7)


# --- batches ---


@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(None, [7]), (7, [7]), (100, [7]), (6, [3, 4]), (3, [2, 2, 3]), (1, [1] * 7)],
)
def test_arrays_are_cut_into_parts_as_equal_as_possible(batch_size, sizes):
    parts = list(batches.as_batches((X, Y), batch_size))
    assert [len(y) for _, y in parts] == sizes
    assert np.concatenate([x for x, _ in parts]).tolist() == X.tolist()
    assert np.concatenate([y for _, y in parts]).tolist() == Y.tolist()


def test_dicts_single_arrays_tensors_and_absent_weights_are_cut_alike():
    assert [len(part["a"]) for part in batches.as_batches({"a": X, "b": Y}, 4)] == [3, 4]
    assert [len(part) for part in batches.as_batches(X, 4)] == [3, 4]
    assert [len(part) for part in batches.as_batches(tf.constant(X), 4)] == [3, 4]
    assert [part[2] for part in batches.as_batches((X, Y, None), 4)] == [None, None]


def test_batches_given_are_taken_as_they_are():
    given = [(X[:5], Y[:5]), (X[5:], Y[5:])]
    assert [len(y) for _, y in batches.as_batches(given, 3)] == [5, 2]


def test_datasets_and_re_iterables_are_read_again_and_again():
    class Again:
        def __iter__(self):
            yield from [(X[:4], Y[:4]), (X[4:], Y[4:])]

    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    for source in (Again(), dataset):
        again = batches.as_batches(source, None)
        for _ in range(2):
            assert [np.asarray(y).tolist() for _, y in again] == [[0, 1, 2, 3], [4, 5, 6]]


def test_a_data_set_makes_no_batch_before_it_is_asked_for():
    made = []

    def numbers():
        for number in range(5):
            made.append(number)
            yield np.zeros((2, 1)) + number

    signature = tf.TensorSpec((2, 1), tf.float64)
    dataset = tf.data.Dataset.from_generator(numbers, output_signature=signature)
    for count, _ in enumerate(batches.as_batches(dataset, None), 1):
        time.sleep(0.05)  # TensorFlow reads ahead in a thread
        assert len(made) == count


@pytest.mark.parametrize(
    "source", [((X, Y) for _ in range(1)), iter([(X, Y)]), map(id, []), zip(X, Y, strict=True)]
)
def test_what_can_be_read_only_once_is_refused(source):
    with pytest.raises(hvp.InputError, match="can be read only once; pass list"):
        batches.as_batches(source, None)


def test_a_function_is_called_for_each_reading():
    def made():
        yield from [(X[:4], Y[:4]), (X[4:], Y[4:])]

    again = batches.as_batches(made, None)
    for _ in range(2):
        assert [y.tolist() for _, y in again] == [[0, 1, 2, 3], [4, 5, 6]]


def test_a_function_that_gives_the_same_iterator_again_is_refused():
    given = iter([(X, Y)])
    again = batches.as_batches(lambda: given, None)
    list(again)
    with pytest.raises(hvp.InputError, match="the same list_iterator, which can be read only once"):
        list(again)


def test_a_function_that_gives_no_batches_is_refused():
    with pytest.raises(hvp.InputError, match="an iterator over batches, got one that gives 5"):
        list(batches.as_batches(lambda: 5, None))


def test_a_function_that_gives_other_batches_later_is_refused():
    given = iter([[(X, Y)], [(X, Y + 1)]])
    again = batches.as_batches(lambda: next(given), None)
    assert len(list(again)) == 1
    with pytest.raises(hvp.InputError, match="another batch 1 than at first"):
        list(again)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_mapped_files_are_cut_like_arrays(tmp_path, mode):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode=mode)
    if mode == "c":
        mapped[0] = 5.0  # in memory alone
    expected = batches.as_batches((np.array(mapped[1:]), Y[1:]), 4)
    found = batches.as_batches((mapped[1:], Y[1:]), 4)
    for _ in range(2):
        for (x, y), (expected_x, expected_y) in zip(found, expected, strict=True):
            assert type(x) is np.ndarray
            assert x.tolist() == expected_x.tolist()
            assert y.tolist() == expected_y.tolist()
    if mode == "c":
        assert mapped[0].tolist() == [5.0, 5.0]


def test_a_mapped_file_that_changes_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", X)
    again = batches.as_batches((np.load(tmp_path / "x.npy", mmap_mode="r"), Y), 4)
    list(again)
    np.load(tmp_path / "x.npy", mmap_mode="r+")[6] = 0.0
    with pytest.raises(hvp.InputError, match="another batch 2 than at first"):
        list(again)


def test_mapped_files_of_bad_arrays_are_one_clear_line(tmp_path):
    np.save(tmp_path / "x.npy", np.where(X == 9, np.nan, X))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    with pytest.raises(hvp.InputError, match="NaN or infinity in example 1 of batch 2"):
        list(batches.as_batches((mapped, Y), 4))
    with pytest.raises(hvp.InputError, match=r"got lengths \[5, 7\]"):
        batches.as_batches((mapped[:5], Y), 4)


def _nan_in_the_second_batch():
    return [(X, Y), (np.where(X == 9, np.nan, X), Y)]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((X[:5], Y), r"expected arrays of one length, got lengths \[5, 7\]"),
        ((X[:0], Y[:0]), "expected at least one example, got an empty data set"),
        ((np.where(X == 9, np.nan, X), Y), "got NaN or infinity in example 4; clean"),
        ((X, np.where(Y == 3, np.inf, Y)), "got NaN or infinity in example 3; clean"),
        ((X, 3.0), "expected arrays with a first axis of examples, got a scalar"),
        ((None,), "expected data, got no array in them"),
        ([(X[:5], Y)], r"got lengths \[5, 7\]"),
        (_nan_in_the_second_batch(), "got NaN or infinity in example 4"),
        (5, "expected arrays, a tf.data.Dataset, an iterable of batches or a function.*, got int"),
        (None, "got NoneType"),
    ],
)
def test_bad_data_is_one_clear_line(given, text):
    with pytest.raises(hvp.InputError, match=text):
        list(batches.as_batches(given, None))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused(batch_size):
    with pytest.raises(hvp.InputError, match="expected a batch size of at least 1, got"):
        batches.as_batches((X, Y), batch_size)


# --- the embedded digits ---


def test_mnist_is_five_hundred_of_each_digit_between_zero_and_one():
    x, y = examples.mnist()
    assert x.shape == (5000, 28, 28)
    assert x.dtype == np.float32
    assert (x.min(), x.max()) == (0.0, 1.0)
    assert np.bincount(y).tolist() == [500] * 10


def test_the_licence_is_in_the_directory_of_the_digits():
    text = "".join(p.read_text() for p in Path(examples.__file__).parent.glob("mnist/*[!z]"))
    for word in ("LeCun", "Cortes", "Burges", "CC BY-SA 3.0"):
        assert word in text


# --- files ---


def test_a_file_gives_its_arrays_back(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    for path in (tmp_path / "d.npz", str(tmp_path / "d.npz")):
        x, y = files.load_arrays(path)
        assert x.tolist() == X.tolist()
        assert y.tolist() == Y.tolist()


def test_a_file_gives_weights_and_named_arrays(tmp_path):
    np.savez(tmp_path / "d.npz", **{"x.b": X, "x.a": 2 * X, "y": Y > 3, "sample_weight": Y})
    x, y, weight = files.load_arrays(tmp_path / "d.npz")
    assert x["a"].tolist() == (2 * X).tolist()
    assert x["b"].tolist() == X.tolist()
    assert y.dtype == bool
    assert weight.tolist() == Y.tolist()


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": X}, r"expected arrays x and y, got \['x'\] in"),
        ({"x": X, "labels": Y}, r"expected arrays x and y, got \['labels', 'x'\]"),
        ({"x": X, "y": Y[:5]}, r"expected arrays of one length, got lengths \[5, 7\]"),
        ({"x": X * np.nan, "y": Y}, "NaN or infinity in example 0"),
        ({"x": X, "y": Y + np.inf}, "NaN or infinity in example 0"),
        ({"x": X[:0], "y": Y[:0]}, "at least one example"),
        ({"x": X.astype(str), "y": Y}, "expected a numeric array x, got text"),
        ({"x": X, "y": 1j * Y}, "expected a numeric array y, got dtype complex"),
        ({"x": X, "y": Y, "more": X}, r"got \['more', 'x', 'y'\].*rename or leave out more"),
        ({"x": X, "y": Y, "y.one": X}, r"got \['x', 'y', 'y.one'\].*rename or leave out y"),
        ({"x": X, "y.": Y}, "rename or leave out y."),
        ({"x": X, "y": Y, "sample_weight": Y[:5]}, r"got lengths \[5, 7\]"),
        ({"x": X, "y": np.array(3)}, "first axis of examples, got a scalar"),
    ],
)
def test_a_file_with_bad_arrays_is_one_clear_line(tmp_path, arrays, text):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(hvp.InputError, match=text):
        files.load_arrays(tmp_path / "d.npz")


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_pickled_objects_are_never_unpickled(tmp_path, suffix):
    trap = np.array([Trap(tmp_path / "sprung")] * 7, dtype=object)
    path = tmp_path / f"d.{suffix}"
    if suffix == "npz":
        np.savez(path, x=trap, y=Y, allow_pickle=True)
    else:
        np.save(path, trap, allow_pickle=True)
    with pytest.raises(hvp.InputError, match=r"Python objects|a single array"):
        files.load_arrays(path)
    assert not (tmp_path / "sprung").exists()


WORDS = np.array([["a", "b"], ["b", "x"], ["c", "a"], ["a", "a"]])


@pytest.mark.parametrize(
    "words", [WORDS, WORDS.astype(object), WORDS.astype(bytes), tf.constant(WORDS)], ids=str
)
def test_strings_are_looked_up_in_the_model(words):
    look_up = keras.layers.StringLookup(vocabulary=["a", "b", "c"])
    stack = [keras.layers.Embedding(4, 3), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((2,), dtype="string"), look_up, *stack])
    numbers = keras.Sequential([keras.Input((2,), dtype="int64"), *stack])
    targets = np.array([[1.0], [2.0], [0.5], [-1.0]])
    lin = hvp.linearize(model, (words, targets), "mse", batch_size=2)
    expected = hvp.linearize(numbers, (np.asarray(look_up(words)), targets), "mse")
    block = np.random.default_rng(0).normal(size=(lin.size, 3)).astype(lin.dtype)
    assert np.allclose(lin.hvp(block), expected.hvp(block), rtol=1e-4, atol=1e-6)
    again = hvp.linearize(model, (words, targets), "mse", batch_size=2)
    assert again.data_digest == lin.data_digest


def test_text_is_vectorised_in_the_model():
    text = np.array([["a b c"], ["b b"], ["c a"], ["d"]])
    vectorise = keras.layers.TextVectorization(
        vocabulary=["a", "b", "c"], output_mode="int", output_sequence_length=3
    )
    stack = [keras.layers.Embedding(6, 3), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((1,), dtype="string"), vectorise, *stack])
    numbers = keras.Sequential([keras.Input((3,), dtype="int64"), *stack])
    targets = np.array([[1.0], [2.0], [0.5], [-1.0]])
    dataset = tf.data.Dataset.from_tensor_slices((text, targets)).batch(2)
    lin = hvp.linearize(model, dataset, "mse")
    expected = hvp.linearize(numbers, (np.asarray(vectorise(text)), targets), "mse")
    v = np.ones(lin.size, lin.dtype)
    assert np.allclose(lin.hvp(v), expected.hvp(v), rtol=1e-4, atol=1e-6)


def test_objects_other_than_strings_are_refused():
    with pytest.raises(hvp.InputError, match="arrays of numbers or strings, got dtype object"):
        batches.check_arrays(np.array([{}, {}], dtype=object))

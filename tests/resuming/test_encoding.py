"""Results as JSON and bytes: the same value comes back, and nothing is run."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import hvp
from hvp.linalg.estimate import Estimate
from hvp.resuming import encoding

CLASSES = encoding.known([Estimate])
arrays = st_numpy.arrays(
    st.sampled_from(["?", "<i4", "<i8", "<u2", ">f8", "<f2", "<f4", "<f8", "<c8"]),
    st_numpy.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4),
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | arrays
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.tuples(st.text(), st.text()), inner)
        | st.frozensets(st.text())
        | st.builds(Estimate, inner, inner)
    ),
    max_leaves=12,
)


def again(value):
    text, buffers = encoding.encode(value, CLASSES)
    contents = [bytes(buffer) for buffer in buffers]

    def read(target):
        target[:] = contents.pop(0)

    found = encoding.decode(text, read, CLASSES)
    assert contents == []
    return found


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, Estimate):
        return same(vars(a), vars(b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@settings(max_examples=40, deadline=None)
@given(values)
def test_a_value_comes_back_as_it_was(value):
    assert same(again(value), value)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.bool_])
def test_a_scalar_of_numpy_keeps_its_type(kind):
    assert same(again(kind(1.1)), kind(1.1))


def test_the_order_of_an_array_stays():
    array = np.arange(6.0).reshape(2, 3)
    assert again(array).flags.c_contiguous
    assert again(array.T).flags.f_contiguous
    assert np.array_equal(again(array[:, ::2]), array[:, ::2])


class Stranger:
    pass


@pytest.mark.parametrize("value", [Stranger(), np.array([None]), object, 1j, len])
def test_what_is_no_data_is_refused(value):
    with pytest.raises(hvp.InputError):
        encoding.encode([value], CLASSES)


@pytest.mark.parametrize(
    "text",
    [
        '{"class": ["Stranger", {"dict": []}]}',
        '{"class": ["os.system", {"dict": [["command", "true"]]}]}',
        '{"array": ["|O", [1], "C"]}',
        '{"reduce": []}',
        "{}",
        pickle.dumps(1).hex(),
    ],
)
def test_what_was_not_written_is_not_read(text):
    with pytest.raises((ValueError, KeyError, TypeError)):
        encoding.decode(text, lambda target: None, CLASSES)


def test_the_digest_tells_calls_apart():
    v = np.arange(4.0)
    calls = [
        ("hvp", [v]),
        ("gnvp", [v]),
        ("hvp", [v + 0.0 + 1e-300]),
        ("hvp", [v[::-1]]),
        ("hvp", [v.astype(np.float32)]),
        ("hvp", [v.reshape(2, 2)]),
        ("hvp", [v.reshape(2, 2).T]),
        ("hvp", [v, v]),
        ("hvp", [v, "H"]),
        ("hvp", [v, "G"]),
        ("hvp", [np.array([-0.0, 1, 2, 3])]),
    ]
    assert len({encoding.digest(*call) for call in calls}) == len(calls)
    block = np.arange(6.0).reshape(2, 3)
    assert encoding.digest("A", [block]) == encoding.digest("A", [np.asfortranarray(block)])

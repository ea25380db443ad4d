"""Memory shared between NumPy and TensorFlow: nothing that is not finite, nothing overwritten."""

import contextlib
import gc

import numpy as np
import pytest
import tensorflow as tf
from support.programs import drawn

from hvp.errors import InputError
from hvp.linearization import transfer
from hvp.linearization.transfer import (
    ALIGNMENT_BYTES,
    CHUNK_ENTRIES,
    SHARED_BYTES,
    THREADED_BYTES,
    TransferBuffers,
)

DTYPES = [np.float32, np.float64]


def address(tensor):
    return np.asarray(memoryview(tensor)).ctypes.data


def entries(dtype, *, small=False):
    """So many as make a large vector that is no whole number of chunks, or a small one."""
    return 50 if small else max(SHARED_BYTES // np.dtype(dtype).itemsize, 2 * CHUNK_ENTRIES) + 77


@contextlib.contextmanager
def lent(buffers, array):
    """The array's tensor and buffer."""
    with buffers.lend([array]) as (buffered,):
        yield buffered


def copied(array, buffers=None):
    with lent(buffers or TransferBuffers(), array) as (tensor, _):
        return tensor.numpy()


# --- looked through ---

SPOTS = [0, 1, CHUNK_ENTRIES - 1, CHUNK_ENTRIES, CHUNK_ENTRIES + 1, 2 * CHUNK_ENTRIES, -2, -1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("small", [False, True])
def test_what_is_not_finite_is_found_anywhere(small, dtype, bad):
    buffers = TransferBuffers()
    array = np.ones(entries(dtype, small=small), dtype)
    for spot in [0, 1, 25, -1] if small else SPOTS:
        array[spot] = bad
        with pytest.raises(InputError), lent(buffers, array):
            pass
        array[spot] = 1
    assert (copied(array, buffers) == array).all()


LAYOUTS = {
    "rows": lambda a: a,
    "columns": np.asfortranarray,
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every other column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "a transpose": lambda a: a.T.copy().T,
    "broadcast": lambda a: np.broadcast_to(a[:, :1], a.shape),
}


@pytest.mark.parametrize("lay", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("width", [1, 3])
def test_blocks_of_any_layout_are_copied_and_looked_through(lay, width):
    rows = CHUNK_ENTRIES // width + 50
    array = np.arange(rows * width, dtype=float).reshape(rows, width)
    buffers = TransferBuffers()
    assert (copied(lay(array), buffers) == lay(array)).all()
    for row in (0, rows // 2, CHUNK_ENTRIES // width - 1, CHUNK_ENTRIES // width, rows - 1):
        for bad in (np.nan, np.inf):
            wrong = array.copy()
            wrong[row, 0] = bad
            with pytest.raises(InputError), lent(buffers, lay(wrong)):
                pass


@pytest.mark.parametrize(
    "shape", [(THREADED_BYTES // 8 + 77,), (THREADED_BYTES // 24 + 77, 3)], ids=str
)
def test_huge_arrays_are_copied_by_several_threads(shape):
    array, buffers = drawn(*shape), TransferBuffers()
    assert (copied(array, buffers) == array).all()
    for row in (0, len(array) // 2 - 1, len(array) // 2, len(array) // 2 + 1, -1):
        wrong = array.copy()
        wrong[row] = np.inf
        with pytest.raises(InputError), lent(buffers, wrong):
            pass


@pytest.mark.parametrize("spot", [0, CHUNK_ENTRIES, -1])
def test_a_strided_vector_is_looked_through(spot):
    array = np.ones(2 * entries(float))[::2]
    array[spot] = np.nan
    with pytest.raises(InputError), lent(TransferBuffers(), array):
        pass


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_numbers_whose_squares_overflow_are_finite(dtype, small):
    huge = np.finfo(dtype).max
    array = np.full(entries(dtype, small=small), huge)
    array[::3] = -huge
    with np.errstate(over="ignore"):
        assert (copied(array) == array).all()
        array[-1] = np.inf
        with pytest.raises(InputError), lent(TransferBuffers(), array):
            pass


def test_nothing_is_as_finite_as_anything():
    for shape in [(0,), (0, 3)]:
        assert copied(np.zeros(shape)).shape == shape


# --- buffers ---


@pytest.mark.parametrize("shape", [(SHARED_BYTES // 4 + 3,), (SHARED_BYTES // 8, 3)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_are_aligned_and_lie_in_their_buffer(dtype, shape):
    array = drawn(*shape).astype(dtype)
    with lent(TransferBuffers(), array) as (tensor, buffer):
        assert address(tensor) % ALIGNMENT_BYTES == 0
        assert address(tensor) == buffer.ctypes.data
        assert tensor.shape == shape
        assert tensor.dtype == dtype
        assert (tensor.numpy() == array).all()
        assert not np.may_share_memory(buffer, array)


def addresses(buffers, *vectors):
    found = []
    for array in vectors:
        with lent(buffers, array) as (tensor, _):
            found.append(address(tensor))
            assert (tensor.numpy() == array).all()
    return found


def test_one_buffer_serves_for_vectors_one_after_the_other():
    vectors = [np.full(SHARED_BYTES, float(i)) for i in range(4)]
    assert len(set(addresses(TransferBuffers(), *vectors))) == 1


def test_a_vector_that_was_refused_gives_its_buffer_back():
    buffers = TransferBuffers()
    (first,) = addresses(buffers, np.ones(SHARED_BYTES))
    with pytest.raises(InputError), lent(buffers, np.full(SHARED_BYTES, np.nan)):
        pass
    with pytest.raises(KeyError), lent(buffers, np.ones(SHARED_BYTES)):
        raise KeyError
    assert addresses(buffers, np.zeros(SHARED_BYTES)) == [first]


def test_vectors_used_at_once_have_buffers_of_their_own():
    buffers = TransferBuffers()
    one, two = np.zeros(SHARED_BYTES), np.ones(SHARED_BYTES)
    with lent(buffers, one) as (first, _), lent(buffers, two) as (second, _):
        inside = {address(first), address(second)}
        assert len(inside) == 2
        assert (first.numpy() == one).all()
        assert (second.numpy() == two).all()
    assert set(addresses(buffers, one, two, one)) <= inside


@pytest.mark.parametrize(
    "other",
    [np.ones(SHARED_BYTES + 1), np.ones(SHARED_BYTES, np.float32), np.ones((SHARED_BYTES, 1))],
    ids=["longer", "single", "a block"],
)
def test_a_vector_of_another_kind_has_a_buffer_of_its_kind(other):
    buffers = TransferBuffers()
    with lent(buffers, np.zeros(SHARED_BYTES)):
        pass
    with lent(buffers, other) as (tensor, _):
        assert tensor.shape == other.shape
        assert tensor.dtype == other.dtype
        assert (tensor.numpy() == 1).all()


def test_buffers_of_other_kinds_are_not_collected():
    buffers = TransferBuffers()
    for size in range(SHARED_BYTES, SHARED_BYTES + 20):
        addresses(buffers, np.ones(size, np.float32))
    assert len(buffers._free) == 1


def test_what_is_computed_from_a_buffer_stays_when_it_is_used_again():
    buffers = TransferBuffers()
    with lent(buffers, np.full(SHARED_BYTES, 3.0)) as (tensor, _):
        doubled = 2 * tensor
    addresses(buffers, np.zeros(SHARED_BYTES))
    assert (doubled.numpy() == 6).all()


# --- results ---


def large(value=1.0):
    return tf.fill([SHARED_BYTES // 8 + 1], tf.constant(value, tf.float64)) * 1


def test_a_large_tensor_is_its_own_array_which_may_be_written():
    tensor = large()
    array = transfer.shared(tensor, apart_from=np.empty(0))
    assert array.ctypes.data == address(tensor)
    array += 1
    assert (array == 2).all()


def test_the_array_outlives_the_tensor():
    kept = []
    for i in range(4):
        tensor = large(float(i))
        kept.append(transfer.shared(tensor, apart_from=np.empty(0)))
        del tensor
        gc.collect(1)
        large(-1.0)
    assert all((array == i).all() for i, array in enumerate(kept))


@pytest.mark.parametrize("shape", [(5,), (5, 2), ()], ids=str)
def test_a_small_tensor_is_copied(shape):
    tensor = tf.ones(shape, tf.float64)
    array = transfer.shared(tensor, apart_from=np.empty(0))
    assert array.shape == shape
    array += 1
    assert (tensor.numpy() == 1).all()


def test_what_lies_in_a_buffer_is_copied():
    buffers = TransferBuffers()
    parts = {"whole": lambda t: t, "shaped": lambda t: tf.reshape(t, [2, -1])}
    parts["aligned part"] = lambda t: tf.slice(t, [64], [SHARED_BYTES])
    for part in parts.values():
        with lent(buffers, np.ones(2 * SHARED_BYTES)) as (tensor, buffer):
            result = transfer.shared(part(tensor), apart_from=buffer)
            assert not np.may_share_memory(result, buffer)
        addresses(buffers, np.zeros(2 * SHARED_BYTES))
        assert (result == 1).all()
        result += 1


def test_what_does_not_lie_in_the_buffer_is_not_copied():
    with lent(TransferBuffers(), np.ones(SHARED_BYTES)) as (tensor, buffer):
        doubled = 2 * tensor
        result = transfer.shared(doubled, apart_from=buffer)
        assert result.ctypes.data == address(doubled)
    assert (result == 2).all()


# --- columns and differences ---

SHAPES = [(5, 3), (CHUNK_ENTRIES // 3 + 7, 3), (1, 4), (4, 1), (0, 3), (3, 0)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_columns_of_a_block_are_rows(shape):
    block = np.arange(np.prod(shape), dtype=float).reshape(shape)
    wide = np.repeat(block, 2, axis=1)[:, ::2]
    for each in (block, np.asfortranarray(block), wide, block[::-1]):
        rows = transfer.columns(each)
        assert rows.shape == shape[::-1]
        assert (rows == each.T).all()
        if rows.size:
            assert all(row.flags.c_contiguous for row in rows)


def test_columns_that_lie_one_behind_the_other_are_not_copied():
    block = np.asfortranarray(drawn(50, 3))
    assert np.shares_memory(transfer.columns(block), block)


@pytest.mark.parametrize("shape", [(7,), (CHUNK_ENTRIES + 5,), (CHUNK_ENTRIES, 2)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_difference_is_relative_to_the_second(dtype, shape):
    a, b = drawn(*shape).astype(dtype), drawn(*shape, seed=1).astype(dtype)
    expected = np.linalg.norm(a.astype(float) - b) / np.linalg.norm(b.astype(float))
    assert transfer.difference(tf.constant(a), tf.constant(b)) == pytest.approx(expected, rel=1e-5)
    assert transfer.difference(tf.constant(a), tf.constant(a)) == 0


def test_zeros_do_not_differ():
    assert transfer.difference(tf.zeros([3]), tf.zeros([3])) == 0


def test_an_infinite_difference_is_one():
    assert not transfer.difference(tf.constant([1.0, np.inf]), tf.constant([1.0, 2.0])) <= 1


def test_nan_differs():
    assert not transfer.difference(tf.constant([1.0, np.nan]), tf.constant([1.0, 2.0])) <= 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_numbers_are_taken_without_a_warning(dtype):
    array = np.full(3, np.finfo(dtype).max)
    with np.errstate(all="raise"):
        assert (copied(array) == array).all()

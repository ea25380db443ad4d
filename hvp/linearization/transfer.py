"""NumPy arrays to TensorFlow and back: checked, cut into columns, copied once at most."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, DTypeLike

from hvp.errors import InputError

# TensorFlow reads memory whose address is a multiple of this, and copies other arrays.
ALIGNMENT_BYTES = 64
# Smaller tensors are copied: it costs less than to share their memory.
SHARED_BYTES = 1 << 20
# Entries that fit into the cache of a core.
CHUNK_ENTRIES = 1 << 17
# Larger arrays are read and copied by several threads. Two are enough to reach the speed of the
# memory.
THREADED_BYTES, NUM_THREADS = 1 << 24, 2
# Rows of the block with which the time to cut out a column is measured, at most.
MEASURED_ROWS = 1 << 20
Result = TypeVar("Result")


def check_array(v: ArrayLike, rows: int, dtype: DTypeLike) -> np.ndarray:
    """A vector of shape (rows,) or a block (rows, K) of real numbers, as an array of this dtype.

    Raises InputError for another shape and for what is not an array of real numbers. Whether the
    entries are finite is checked when they are copied.
    """
    try:
        array = np.asarray(v)
    except ValueError as error:
        remedy = "join arrays by np.concatenate([array.ravel() for array in v])"
        raise InputError("a vector or a block", "a ragged list", remedy) from error
    if array.ndim not in (1, 2) or array.shape[0] != rows:
        raise InputError(
            f"a vector of shape ({rows},) or a block ({rows}, K)", array.shape, "check its length"
        )
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise InputError("a real vector", f"dtype {array.dtype}", "take its real part")
    with np.errstate(over="ignore"):  # an overflow gives infinity, which is refused later
        return array.astype(dtype, copy=False)


def check_vector(v: ArrayLike, size: int, dtype: DTypeLike) -> np.ndarray:
    """Parameters as an array (size,). Raises InputError as `check_array` does, and for a block."""
    vector = check_array(v, size, dtype)
    if vector.ndim != 1:
        raise InputError(f"parameters of shape ({size},)", vector.shape, "pass one vector")
    return vector


def as_columns(vectors: np.ndarray | tf.Tensor) -> np.ndarray:
    """A vector (n,) as a block (n, 1), a block as it is."""
    return np.asarray(vectors).reshape(len(vectors), -1)


def partition(block: np.ndarray, width: int) -> list[np.ndarray]:
    """The columns of a block (P, K) as vectors, or as blocks of at most `width` columns.

    The widths are powers of two, since TensorFlow traces a product anew for each width.
    """
    if width == 1:
        return list(columns(block))
    parts, start, count = [], 0, block.shape[1]
    while start < count:
        taken = min(width, 1 << ((count - start).bit_length() - 1))
        part = block[:, start : start + taken]
        parts.append(part if taken > 1 else part[:, 0])
        start += taken
    return parts


def group_by_call(parts: list[np.ndarray], *, saved: bool) -> list[list[np.ndarray]]:
    """The parts that are multiplied in one call.

    With saved tensors each part has a call of its own, which needs the least memory. Without them
    all parts share one call, so that the known part of each batch is computed once.
    """
    return [[part] for part in parts] if saved else [parts]


def concatenate(groups: Iterable[list[np.ndarray]], count: int) -> np.ndarray:
    """Groups of vectors and blocks as one block of `count` columns in Fortran order.

    Each group is freed before the next is computed.
    """
    rows, start = None, 0
    for group in groups:
        while group:
            result = group.pop(0)
            if result.shape[1:] == (count,):
                return result
            if rows is None:
                rows = np.empty((count, len(result)), result.dtype)
            stop = start + (1 if result.ndim == 1 else result.shape[1])
            write_columns(as_columns(result), rows[start:stop])
            start = stop
            del result
    assert rows is not None
    return rows.T


class _TensorMemory:
    """The memory of a tensor, offered to NumPy as writable."""

    def __init__(self, tensor: tf.Tensor):
        self.tensor = tensor
        interface = dict(np.asarray(memoryview(tensor)).__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def shared(tensor: tf.Tensor, apart_from: np.ndarray) -> np.ndarray:
    """The memory of a large tensor as a writable array, a copy of a small one.

    No other object may use the tensor later. If it lies in the buffer `apart_from`, it is copied.
    """
    view = np.asarray(memoryview(tensor))
    if view.nbytes < SHARED_BYTES:
        return view.copy()
    array = np.asarray(_TensorMemory(tensor))
    return array.copy() if np.may_share_memory(array, apart_from) else array


def is_finite(array: np.ndarray) -> bool:
    """Whether no entry is NaN or infinite."""
    entries = array.ravel(order="K")
    size = len(entries)
    return all(_in_threads(lambda a, b: _is_finite(entries[a:b]), size, entries.nbytes))


def _is_finite(entries: np.ndarray) -> bool:
    # NaN and infinity survive a sum of squares, which is fast; so does an overflow, hence the
    # second look.
    return math.isfinite(np.vdot(entries, entries)) or bool(np.isfinite(entries).all())


def difference(first: tf.Tensor, second: tf.Tensor) -> float:
    """‖first - second‖ / ‖second‖ in float64, NaN if either has NaN. Works in chunks."""
    a, b = (np.asarray(memoryview(tensor)).reshape(-1) for tensor in (first, second))
    chunks = [slice(start, start + CHUNK_ENTRIES) for start in range(0, len(a), CHUNK_ENTRIES)]
    with np.errstate(all="ignore"):
        distance = sum(np.sum(np.square(a[c] - b[c], dtype=np.float64)) for c in chunks)
        size = sum(np.sum(np.square(b[c], dtype=np.float64)) for c in chunks)
        return 0.0 if distance == 0 else float(np.sqrt(np.divide(distance, size)))


def nbytes(tensor: tf.Tensor) -> int:
    """The bytes of a tensor, or of all tensors in the list that a loop has stacked."""
    if tensor.dtype != tf.variant:
        return int(tensor.shape.num_elements()) * tensor.dtype.size
    try:
        count = int(tf.raw_ops.TensorListLength(input_handle=tensor))
        shape = tf.raw_ops.TensorListElementShape(input_handle=tensor, shape_type=tf.int64)
    except tf.errors.InvalidArgumentError:  # an optional value, not a list
        return 0
    # A list does not give its dtype: an entry takes eight bytes at most.
    return count * math.prod(max(n, 1) for n in np.atleast_1d(shape).tolist()) * 8


def columns(block: np.ndarray) -> np.ndarray:
    """The columns of a block (P, K) as the rows of an array (K, P)."""
    if block.flags.f_contiguous:
        return block.T
    rows = np.empty(block.shape[::-1], block.dtype)
    write_columns(block, rows)
    return rows


def write_columns(block: np.ndarray, rows: np.ndarray) -> None:
    """Write the columns of a block (P, K) into the rows of an array (K, P)."""

    def write(begin: int, end: int) -> None:
        length = max(CHUNK_ENTRIES // max(block.shape[1], 1), 1)
        for start in range(begin, end, length):
            chunk = slice(start, min(start + length, end))
            rows[:, chunk] = block[chunk].T

    _in_threads(write, len(block), block.nbytes)


def seconds_per_column(rows: int, count: int, dtype: DTypeLike) -> float:
    """Seconds to cut a column out of a block (rows, count) and to write one into another block."""
    few = min(rows, MEASURED_ROWS)
    block = np.ones((few, count), dtype)
    begin = time.perf_counter()
    cut = columns(block)
    write_columns(cut.T, np.empty_like(cut))
    return (time.perf_counter() - begin) / count * rows / few


class BufferedTensor(NamedTuple):
    """A tensor and the NumPy buffer whose memory it reads."""

    tensor: tf.Tensor
    buffer: np.ndarray


class TransferBuffers:
    """Buffers that TensorFlow reads as tensors. Each is used again for later vectors."""

    def __init__(self) -> None:
        self._free: list[BufferedTensor] = []

    @contextlib.contextmanager
    def lend(self, arrays: Sequence[np.ndarray]) -> Iterator[list[BufferedTensor]]:
        """Copies of the arrays in buffers that do not change inside the `with` block.

        Raises InputError for an entry that is not finite.
        """
        lent = [self._buffer(array.shape, array.dtype) for array in arrays]
        try:
            for array, (_, buffer) in zip(arrays, lent, strict=True):
                _copy_finite(array, buffer)
            yield lent
        finally:
            self._free.extend(lent)

    def _buffer(self, shape: tuple[int, ...], dtype: np.dtype) -> BufferedTensor:
        try:
            free = self._free.pop()
        except IndexError:
            pass
        else:
            if free.buffer.shape == shape and free.buffer.dtype == dtype:
                return free
        buffer = _aligned(shape, dtype)
        return BufferedTensor(tf.experimental.dlpack.from_dlpack(buffer.__dlpack__()), buffer)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_BYTES
    return memory[start : start + size].view(dtype).reshape(shape)


def _copy_finite(source: np.ndarray, target: np.ndarray) -> None:
    """Copy by chunks of rows, each checked while it is in the cache."""

    def copy(begin: int, end: int) -> None:
        rows = max(CHUNK_ENTRIES // math.prod(source.shape[1:]), 1)
        for start in range(begin, end, rows):
            chunk = slice(start, min(start + rows, end))
            np.copyto(target[chunk], source[chunk])
            if not _is_finite(target[chunk]):
                raise InputError(
                    "a finite vector", "NaN or infinity in v", "check where it comes from"
                )

    _in_threads(copy, len(source), source.nbytes)


def _in_threads(function: Callable[[int, int], Result], rows: int, nbytes: int) -> list[Result]:
    """The results of `function(begin, end)` for all rows: once, or in each thread for its range."""
    if nbytes < THREADED_BYTES:
        return [function(0, rows)]
    edges = [rows * i // NUM_THREADS for i in range(NUM_THREADS + 1)]
    return list(_pool().map(function, edges[:-1], edges[1:]))


def limit_threads(most: int) -> None:
    """Use at most so many threads from now on. It is called before the first array comes."""
    global NUM_THREADS
    NUM_THREADS = min(NUM_THREADS, most)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads that stay: to start them takes a millisecond."""
    return ThreadPoolExecutor(NUM_THREADS, "hvp-transfer")


# A forked process has none of the threads.
os.register_at_fork(after_in_child=_pool.cache_clear)

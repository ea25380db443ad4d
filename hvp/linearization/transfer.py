"""Arrays and tensors that share memory, so that a product copies a large vector once at most."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# TensorFlow reads memory that begins at such an address, and copies other arrays.
ALIGNMENT = 64
# Below so many bytes a copy costs less than what avoids it.
LARGE = 1 << 20
# Entries that fit into a core's cache.
CHUNK = 1 << 17
# From so many bytes a copy is worth threads of its own; a few read as fast as the memory is.
HUGE, COPIERS = 1 << 24, 2


class _Owner:
    """Memory of a tensor as NumPy asks for it."""

    def __init__(self, tensor: tf.Tensor):
        self.tensor = tensor
        interface = dict(np.asarray(memoryview(tensor)).__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def shared(tensor: tf.Tensor, apart_from: np.ndarray) -> np.ndarray:
    """A large tensor's own memory as an array that may be written; of a small one a copy.

    The tensor must be nobody else's, but it may lie in the buffer `apart_from`: then it is copied.
    """
    small = np.asarray(memoryview(tensor))
    if small.nbytes < LARGE:
        return small.copy()
    array = np.asarray(_Owner(tensor))
    return array.copy() if np.may_share_memory(array, apart_from) else array


def difference(first: tf.Tensor, second: tf.Tensor) -> float:
    """‖first - second‖ / ‖second‖, NaN where one has NaN; takes no tensor of their size."""
    a, b = (np.asarray(memoryview(tensor)).reshape(-1) for tensor in (first, second))
    chunks = [slice(start, start + CHUNK) for start in range(0, len(a), CHUNK)]
    with np.errstate(all="ignore"):
        distance = sum(np.sum(np.square(a[c] - b[c], dtype=np.float64)) for c in chunks)
        size = sum(np.sum(np.square(b[c], dtype=np.float64)) for c in chunks)
        return 0.0 if distance == 0 else float(np.sqrt(np.divide(distance, size)))


def nbytes(tensor: tf.Tensor) -> int:
    """What a tensor takes, or the tensors of a list that a loop has stacked."""
    if tensor.dtype != tf.variant:
        return int(tensor.shape.num_elements()) * tensor.dtype.size
    try:
        count = int(tf.raw_ops.TensorListLength(input_handle=tensor))
        shape = tf.raw_ops.TensorListElementShape(input_handle=tensor, shape_type=tf.int64)
    except tf.errors.InvalidArgumentError:  # an optional value, no list
        return 0
    # Lists do not tell their precision; eight bytes an entry are the most that they take.
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
        length = max(CHUNK // max(block.shape[1], 1), 1)
        for start in range(begin, end, length):
            chunk = slice(start, min(start + length, end))
            rows[:, chunk] = block[chunk].T

    _in_threads(write, len(block), block.nbytes)


class Staged(NamedTuple):
    """A tensor and the buffer that it lies in."""

    tensor: tf.Tensor
    buffer: np.ndarray


class TransferBuffers:
    """Buffers that TensorFlow reads as tensors, taken in turns and written anew for each vector."""

    def __init__(self) -> None:
        self._free: list[Staged] = []

    def take(self, arrays: Sequence[np.ndarray]) -> list[Staged]:
        """The arrays in buffers that stay as they are until they are given back.

        Raises FloatingPointError where an entry is not finite.
        """
        staged = [self._taken(array.shape, array.dtype) for array in arrays]
        try:
            for array, (_, buffer) in zip(arrays, staged, strict=True):
                _copy_finite(array, buffer)
        except FloatingPointError:
            self.give_back(staged)
            raise
        return staged

    def give_back(self, staged: Sequence[Staged]) -> None:
        self._free.extend(staged)

    def _taken(self, shape: tuple[int, ...], dtype: np.dtype) -> Staged:
        try:
            staged = self._free.pop()
        except IndexError:
            pass
        else:
            if staged.buffer.shape == shape and staged.buffer.dtype == dtype:
                return staged
        buffer = _aligned(shape, dtype)
        return Staged(tf.experimental.dlpack.from_dlpack(buffer.__dlpack__()), buffer)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _copy_finite(source: np.ndarray, target: np.ndarray) -> None:
    """Copy by chunks of rows, each looked through while it is in the cache."""

    def copy(begin: int, end: int) -> None:
        rows = max(CHUNK // math.prod(source.shape[1:]), 1)
        for start in range(begin, end, rows):
            chunk = slice(start, min(start + rows, end))
            np.copyto(target[chunk], source[chunk])
            if not np.isfinite(target[chunk]).all():
                raise FloatingPointError

    _in_threads(copy, len(source), source.nbytes)


def _in_threads(copy: Callable[[int, int], None], rows: int, nbytes: int) -> None:
    """Copy so many rows, each thread from one to another where they are much."""
    if nbytes < HUGE:
        copy(0, rows)
        return
    edges = [rows * i // COPIERS for i in range(COPIERS + 1)]
    with ThreadPoolExecutor(COPIERS) as pool:
        list(pool.map(copy, edges[:-1], edges[1:]))

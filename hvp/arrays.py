"""Arrays and tensors that share memory, so that a product copies a large vector once at most."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

# TensorFlow reads memory that begins at such an address, and copies other arrays.
ALIGNMENT = 64
# Below so many bytes a copy costs less than what avoids it.
LARGE = 1 << 20
# Entries that fit into a core's cache.
CHUNK = 1 << 17


class _Owner:
    """Memory of a tensor as NumPy asks for it."""

    def __init__(self, tensor: tf.Tensor):
        self.tensor = tensor
        interface = dict(np.asarray(memoryview(tensor)).__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def shared(tensor: tf.Tensor, apart_from: np.ndarray | None) -> np.ndarray:
    """A large tensor's own memory as an array that may be written; of a small one a copy.

    The tensor must be nobody else's, but it may lie in the buffer `apart_from`: then it is copied.
    """
    if tensor.shape.num_elements() * tensor.dtype.size < LARGE:
        return tensor.numpy()
    array = np.asarray(_Owner(tensor))
    in_buffer = apart_from is not None and np.may_share_memory(array, apart_from)
    return array.copy() if in_buffer else array


def difference(first: tf.Tensor, second: tf.Tensor) -> float:
    """‖first - second‖ / ‖second‖, NaN where one has NaN; takes no tensor of their size."""
    a, b = (np.asarray(memoryview(tensor)).reshape(-1) for tensor in (first, second))
    chunks = [slice(start, start + CHUNK) for start in range(0, len(a), CHUNK)]
    with np.errstate(all="ignore"):
        distance = sum(np.sum(np.square(a[c] - b[c], dtype=np.float64)) for c in chunks)
        size = sum(np.sum(np.square(b[c], dtype=np.float64)) for c in chunks)
        return 0.0 if distance == 0 else float(np.sqrt(np.divide(distance, size)))


def columns(block: np.ndarray) -> np.ndarray:
    """The columns of a block (P, K) as the rows of an array (K, P)."""
    if block.flags.f_contiguous:
        return block.T
    result = np.empty(block.shape[::-1], block.dtype)
    rows = max(CHUNK // max(block.shape[1], 1), 1)
    for start in range(0, len(block), rows):
        result[:, start : start + rows] = block[start : start + rows].T
    return result


class Staging:
    """Buffers that TensorFlow reads as tensors, taken in turns and written anew for each vector."""

    def __init__(self) -> None:
        self._free: list[tuple[np.ndarray, tf.Tensor]] = []

    @contextlib.contextmanager
    def tensor(self, array: np.ndarray) -> Iterator[tuple[tf.Tensor, np.ndarray]]:
        """The array as a tensor while the context lasts, and the buffer that the tensor lies in.

        Raises FloatingPointError where an entry is not finite.
        """
        pair = self._taken(array.shape, array.dtype)
        try:
            _copy_finite(array, pair[0])
            yield pair[1], pair[0]
        finally:
            self._free.append(pair)

    def _taken(self, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, tf.Tensor]:
        try:
            buffer, tensor = self._free.pop()
        except IndexError:
            pass
        else:
            if buffer.shape == shape and buffer.dtype == dtype:
                return buffer, tensor
        buffer = _aligned(shape, dtype)
        return buffer, tf.experimental.dlpack.from_dlpack(buffer.__dlpack__())


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _copy_finite(source: np.ndarray, target: np.ndarray) -> None:
    """Copy by chunks of rows, each looked through while it is in the cache."""
    rows = max(CHUNK // math.prod(source.shape[1:]), 1)
    for start in range(0, len(source), rows):
        chunk = target[start : start + rows]
        np.copyto(chunk, source[start : start + rows])
        # NaN and infinity survive a sum of squares; so does an overflow, hence the second look.
        flat = chunk.reshape(-1)
        with np.errstate(over="ignore"):
            suspect = not np.isfinite(flat @ flat)
        if suspect and not np.isfinite(flat).all():
            raise FloatingPointError

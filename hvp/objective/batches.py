"""Data as batches that can be read again and again, in the same order.

A batch is any nest of arrays that share their first axis, the examples.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.errors import InputError, shown
from hvp.objective.mapped_files import is_mapped, read_part
from hvp.objective.shapes import check_shapes

BATCH_SIZE = 1024
# Without it, TensorFlow adds a prefetch of its own, which holds as many batches as it likes.
_NOT_READ_AHEAD = tf.data.Options()
_NOT_READ_AHEAD.experimental_optimization.inject_prefetch = False
# For sampling errors, the data are cut into about this many batches of at least so many examples.
NUM_BATCHES, MIN_EXAMPLES = 10, 32


def batch_size_for_sampling_errors(x: Any) -> int:
    """The number of examples in a batch that gives enough batches for sampling errors.

    `x` is an array or a nest of arrays.

    >>> [batch_size_for_sampling_errors(np.zeros((N, 2))) for N in (5000, 12)]
    [500, 32]
    """
    count = num_examples(x)
    return min(BATCH_SIZE, max(MIN_EXAMPLES, -(-count // NUM_BATCHES)))


def num_examples(x: Any) -> int:
    """The length of the first axis of the first array in a nest; 1 for a scalar."""
    return math.prod(np.shape(tf.nest.flatten(x)[0])[:1])


def as_batches(
    data: Any, batch_size: int | None, may_miss: Callable[[Any], Any] = lambda batch: []
) -> Iterable[Any]:
    """`data` as batches that can be read again and again in the same order.

    Arrays (a tuple, a dict or a single array) are cut into parts of at most `batch_size` examples,
    of sizes that are as equal as possible; with `batch_size=None` they are one batch. Parts of
    memory-mapped files are read when they are needed. A `tf.data.Dataset`, another iterable of
    batches, or a function that gives an iterator of them each time, is used as it is; a data set
    reads no batch ahead unless it says so with `prefetch`. Raises InputError for data that can be
    read only once, are empty, differ in length or contain NaN or infinity. The arrays that
    `may_miss` gives of a batch may contain NaN.
    """
    if batch_size is not None and not (isinstance(batch_size, int) and batch_size >= 1):
        raise InputError("a batch size of at least 1", shown(batch_size), "leave it out")
    if isinstance(data, tuple | dict | np.ndarray | tf.Tensor):
        if any(map(is_mapped, tf.nest.flatten(data))):
            return _Checked(_MappedParts(data, batch_size), may_miss)
        check_arrays(data, may_miss(data))
        return [_part(data, start, stop) for start, stop in _edges(data, batch_size)]
    if callable(data) and not isinstance(data, Iterable):
        return _Checked(_Restarted(data), may_miss)
    if not isinstance(data, Iterable):
        raise InputError(
            "arrays, a tf.data.Dataset, an iterable of batches or a function that gives one",
            type(data).__name__,
            "pass (x, y)",
        )
    if isinstance(data, tf.data.Dataset) and data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise InputError("a finite data set", "one that repeats for ever", "remove repeat()")
    if isinstance(data, tf.data.Dataset):
        _refuse_single_examples(data)
        data = data.with_options(_NOT_READ_AHEAD)
    if isinstance(data, Iterator):
        raise InputError(
            "data that can be read again",
            f"a {type(data).__name__}, which can be read only once",
            "pass list(data), or the function that makes it",
        )
    return _Checked(data, may_miss)


def _refuse_single_examples(data: tf.data.Dataset) -> None:
    """Raise InputError where the elements have no first axis in common, as single examples."""
    specs = tf.nest.flatten(data.element_spec)
    shapes = [spec.shape for spec in specs if isinstance(spec, tf.TensorSpec)]
    lengths = {shape[0] for shape in shapes if shape.rank}
    if any(shape.rank == 0 for shape in shapes) or len(lengths - {None}) > 1:
        raise InputError(
            "a data set of batches",
            f"single examples of shapes {', '.join(map(str, shapes))}",
            "call .batch(256) on it",
        )


class _Restarted:
    """The batches of a function that gives an iterator over them from the first on, each time."""

    def __init__(self, function: Callable[[], Iterable[Any]]):
        self._function = function
        self._last: Any = None

    def __iter__(self) -> Iterator[Any]:
        found = self._function()
        if not isinstance(found, Iterable):
            raise InputError(
                "a function that gives an iterator over batches",
                f"one that gives {shown(found)}",
                "write it with yield",
            )
        if isinstance(found, Iterator) and found is self._last:
            raise InputError(
                "a function that gives a new iterator each time",
                f"the same {type(found).__name__}, which can be read only once",
                "make it inside of the function",
            )
        self._last = found
        return iter(found)


class _MappedParts:
    """Arrays of which some are memory-mapped files, read and cut part by part."""

    def __init__(self, arrays: Any, batch_size: int | None):
        _length(arrays)
        self._arrays, self._edges = arrays, _edges(arrays, batch_size)

    def __iter__(self) -> Iterator[Any]:
        return (_part(self._arrays, start, stop) for start, stop in self._edges)


class _Checked:
    """An iterable that raises InputError where a batch differs from the first reading.

    It holds the batch that it has given until the next one is asked for, and no other.
    """

    def __init__(self, source: Iterable[Any], may_miss: Callable[[Any], Any]):
        self._source, self._may_miss = source, may_miss
        self._sums: list[int] | None = None

    def __iter__(self) -> Iterator[Any]:
        sums: list[int] = []
        for batch in self._source:
            if self._sums is None:  # a batch with the same sum has been checked
                check_arrays(batch, self._may_miss(batch), f" of batch {len(sums) + 1}")
            sums.append(_checksum(batch))
            if self._sums is not None and self._sums[: len(sums)] != sums:
                self._refuse(len(sums))
            yield batch
            del batch
        if self._sums is not None and len(sums) < len(self._sums):
            self._refuse(len(sums) + 1)
        self._sums = sums

    def _refuse(self, number: int) -> None:
        raise InputError(
            "the same data each time they are read",
            f"another batch {number} than at first",
            "remove shuffling and random augmentation, or call cache() after them",
        )


def _checksum(batch: Any) -> int:
    total = 0
    for leaf in tf.nest.flatten(batch):
        array = as_array(leaf)
        total = zlib.crc32(content(array), zlib.crc32(repr(array.shape).encode(), total))
    return total


def content(array: np.ndarray) -> bytes | memoryview:
    """The bytes of the entries of an array of numbers or of strings; they are not copied.

    NumPy keeps strings of other lengths as references: theirs are copied.
    """
    if array.dtype == object:
        return repr(array.tolist()).encode()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def as_array(leaf: Any) -> np.ndarray:
    """A leaf of a batch as an array, which shares the memory of a tensor of plain numbers."""
    if isinstance(leaf, tf.Tensor) and np.dtype(leaf.dtype.as_numpy_dtype).kind in "biufc":
        return np.asarray(memoryview(leaf))
    return np.asarray(leaf)


def _edges(arrays: Any, batch_size: int | None) -> list[tuple[int, int]]:
    """Where the parts of arrays begin and end."""
    length = num_examples(arrays)
    count = 1 if batch_size is None else -(-length // batch_size)
    return list(itertools.pairwise(length * part // count for part in range(count + 1)))


def _part(arrays: Any, start: int, stop: int) -> Any:
    """Some examples of a nest of arrays; those of mapped files are read into memory."""

    def cut(array: Any) -> Any:
        return read_part(array, start, stop) if is_mapped(array) else array[start:stop]

    return tf.nest.map_structure(lambda a: None if a is None else cut(a), arrays)


def check_arrays(batch: Any, may_miss: Any = (), where: str = "") -> int:
    """The number of examples in a nest of arrays. Raises InputError for invalid arrays.

    Those in the nest `may_miss` may contain NaN. `where` follows the number of an example.
    """
    length = _length(batch)
    excused = {id(leaf) for leaf in tf.nest.flatten(may_miss)}
    for leaf in _leaves(batch):
        array = _dense(leaf)
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            bad = np.isinf(array) if id(leaf) in excused else ~np.isfinite(array)
            if not bad.any():
                continue
            example = int(np.argwhere(bad)[0][0])
            found = f"NaN or infinity in example {example}{where}"
            raise InputError("finite data", found, "clean the data")
    return length


def _length(batch: Any) -> int:
    """The number of examples, from shapes and types alone. Raises InputError for wrong ones."""
    leaves = _leaves(batch)
    if not leaves:
        raise InputError("data", "no array in them", "pass (x, y)")
    return check_shapes([_dense(leaf).shape for leaf in leaves])


def _leaves(batch: Any) -> list[Any]:
    return [leaf for leaf in tf.nest.flatten(batch) if leaf is not None]


def _dense(leaf: Any) -> np.ndarray:
    remedy = "convert it to a dense array of numbers"
    if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
        raise InputError("dense arrays", type(leaf).__name__, remedy)
    try:
        array = as_array(leaf)
    except ValueError as error:
        raise InputError("dense arrays", f"a ragged {type(leaf).__name__}", remedy) from error
    is_text = array.dtype == object and all(isinstance(e, str | bytes) for e in array.flat)
    if array.dtype.kind in "OMm" and not is_text:
        raise InputError("arrays of numbers or strings", f"dtype {array.dtype}", remedy)
    if array.dtype.kind in "fc" and array.dtype.itemsize > 8 * (1 + (array.dtype.kind == "c")):
        raise InputError("numbers of 64 bits at most", f"dtype {array.dtype}", "cast them")
    return array

"""Results as JSON and raw bytes, and back. They are data: nothing is unpickled, no code is run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hvp.errors import InputError, shown

# Booleans, integers, floats and complex numbers: what raw bytes say all about.
ARRAY_KINDS = "biufc"
# What JSON holds exactly.
SCALAR_KINDS = "biuf"
# A digest has to tell vectors from each other, not to withstand an attack: SHA-1 is the fastest of
# the standard library, a third of the time of SHA-256.
DIGEST = "sha1"

Classes = Mapping[str, type]


def known(classes: Iterable[type]) -> Classes:
    """The dataclasses that a result may consist of, by name."""
    return {each.__name__: each for each in classes}


def digest(name: str, arguments: Sequence[Any]) -> bytes:
    """A digest of a call: of its name, and of the bytes, shapes and dtypes of its arguments."""
    found = hashlib.new(DIGEST, name.encode(), usedforsecurity=False)
    for each in arguments:
        is_array = isinstance(each, np.ndarray)
        found.update(f"\0{(each.dtype.str, each.shape) if is_array else each!r}\0".encode())
        if is_array:
            # Column by column, which is how solvers hold their blocks.
            found.update(_bytes(np.asfortranarray(each)))
    return found.digest()


def encode(value: Any, classes: Classes) -> tuple[str, list[memoryview]]:
    """A value as JSON, and the bytes of its arrays in order.

    It may consist of None, booleans, numbers, texts, arrays, tuples, lists, dicts, sets, and
    dataclasses that are `known`. Raises InputError for anything else.
    """
    arrays: list[memoryview] = []
    return json.dumps(_plain(value, classes, arrays)), arrays


def decode(text: str, read: Callable[[memoryview], None], classes: Classes) -> Any:
    """The value of a JSON text; `read` fills the bytes of each array, in order.

    Raises ValueError, TypeError or KeyError for a text that `encode` has not written.
    """
    return _value(json.loads(text), read, classes)


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array, or a copy of one that has gaps: order and strides are then as when it is read."""
    flags = array.flags
    return array if flags.c_contiguous or flags.f_contiguous else array.copy(order="F")


def settled(value: Any) -> Any:
    """The value with all its arrays `contiguous`, as it is when it is read.

    Sums depend on the order of an array by rounding.
    """
    if isinstance(value, np.ndarray):
        return contiguous(value)
    if isinstance(value, list | tuple):
        return type(value)(map(settled, value))
    if isinstance(value, dict):
        return {key: settled(each) for key, each in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: settled(getattr(value, f.name)) for f in dataclasses.fields(value)}
        same = all(fields[name] is getattr(value, name) for name in fields)
        return value if same else dataclasses.replace(value, **fields)
    return value


def _bytes(array: np.ndarray) -> memoryview:
    """The bytes of a contiguous array in its own order, without a copy."""
    return array.ravel(order="K").view(np.uint8).data


def _plain(value: Any, classes: Classes, arrays: list[memoryview]) -> Any:
    def each(values: Iterable[Any]) -> list[Any]:
        return [_plain(one, classes, arrays) for one in values]

    if isinstance(value, np.ndarray):
        array = contiguous(value)
        if array.dtype.kind not in ARRAY_KINDS:
            raise InputError("arrays of numbers", array.dtype, "convert them")
        arrays.append(_bytes(array))
        order = "C" if array.flags.c_contiguous else "F"
        return {"array": [array.dtype.str, list(array.shape), order]}
    if isinstance(value, np.generic) and value.dtype.kind in SCALAR_KINDS:
        return {"scalar": [value.dtype.str, value.item()]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return each(value)
    for kind, name in ((tuple, "tuple"), (set, "set"), (frozenset, "frozenset")):
        if isinstance(value, kind):
            return {name: each(sorted(value) if kind is not tuple else value)}
    if isinstance(value, Mapping):
        return {"dict": [each(item) for item in value.items()]}
    name = type(value).__name__
    if classes.get(name) is not type(value) or not dataclasses.is_dataclass(value):
        expected = "a result of numbers, texts, arrays, tuples, lists, dicts and results of hvp"
        raise InputError(expected, f"{name}: {shown(value)}", "keep its arrays")
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    return {"class": [name, _plain(fields, classes, arrays)]}


def _value(plain: Any, read: Callable[[memoryview], None], classes: Classes) -> Any:
    def each(values: Any) -> Iterator[Any]:
        return (_value(one, read, classes) for one in values)

    if isinstance(plain, list):
        return list(each(plain))
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    if kind == "scalar":
        return np.dtype(content[0]).type(content[1])
    if kind == "array":
        name, shape, order = content
        dtype = np.dtype(name)
        if dtype.kind not in ARRAY_KINDS:
            raise ValueError(f"no array of {name}")
        array = np.empty(shape, dtype, order=order)
        read(_bytes(array))
        return array
    if kind == "dict":
        return dict(map(tuple, each(content)))
    if kind == "class":
        return classes[content[0]](**_value(content[1], read, classes))
    return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](each(content))

"""A digest of what a program computes, to tell whether a loss is the same as before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from hvp.autodiff.program import Node, Program, leaves

# Attributes that name things, and say nothing about what is computed.
NAMES = ("container", "shared_name")


def digest(programs: Iterable[Program | None]) -> str:
    """SHA-256 of the operations of some programs: types, attributes, order and constants.

    Names, precisions and shapes do not count, nor whole numbers, which hold shapes and axes: the
    digest is the same for batches of another size. Programs that are the same count once.
    """
    found = {repr(_described(program)) for program in programs if program is not None}
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()


def _described(program: Program) -> Any:
    """A nest of texts and numbers that is the same for the same operations."""
    numbers: dict[int, int] = {}

    def number(value: int) -> int:
        return numbers.setdefault(value, len(numbers))

    given = [number(value) for value in program.inputs]
    nodes = [
        (_operation(node), [number(n) for n in node.inputs], [number(n) for n in node.outputs])
        for node in program.nodes
    ]
    constants = [
        (number(value), constant.ravel()[:1].tolist(), _content(constant))
        for value, constant in sorted(program.literals.items())
        if np.issubdtype(constant.dtype, np.inexact)
    ]
    return given, nodes, constants, [number(value) for value in leaves(program.outputs)]


def _content(constant: np.ndarray) -> str:
    """The digest of an array; one that repeats a number counts as this number, of any shape."""
    is_uniform = not any(constant.strides) or bool((constant == constant.ravel()[:1]).all())
    if is_uniform:
        return ""
    return hashlib.sha256(np.ascontiguousarray(constant).tobytes()).hexdigest()


def _operation(node: Node) -> Any:
    attributes = [
        (name, _value(value))
        for name, value in sorted(node.op.node_def.attr.items())
        if name not in NAMES and not name.startswith("_")
    ]
    return node.op.type, attributes, [_described(body) for body in node.bodies]


def _value(value: Any) -> Any:
    """What an attribute says; None for types, shapes, tensors and functions."""
    kind = value.WhichOneof("value")
    if kind in ("s", "i", "f", "b"):
        return getattr(value, kind)
    if kind == "list":
        return [list(getattr(value.list, each)) for each in ("s", "i", "f", "b")]
    return None

"""Unchosen branches: in where(x > 0, log x, 0) the logarithm is computed where x > 0 alone.

`tf.where` gives the branch that is not chosen the cotangent zero, and its derivative may be
infinite: 0·∞. The entrywise operations of a branch are written once more for this use; the inputs
of those that can be infinite are replaced by a number inside the domain where the branch is not
chosen. So are data where data choose: a target that is missing may be NaN. The smaller and the
larger of two values are branches too: min(1/√s, c) is c at s = 0. So is what `multiply_no_nan`
multiplies by data.

What both branches are computed from stays as it is: it is chosen in any case. So a chain of choices
x ← where(c, f(x), g(x)) grows by f and g alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection

import numpy as np
import tensorflow as tf

from hvp.autodiff.identities.identity import Identity
from hvp.autodiff.op_types import op_type
from hvp.autodiff.program import Node

# Branches that more values are computed for stay as they are: a chain of choices, each written anew
# inside of the next, would grow without end.
MAX_VALUES = 500
CHOICES = {"Minimum": tf.less_equal, "Maximum": tf.greater_equal}


class Branches(Identity):
    """Writes the branches of a choice so that they are finite where they are not chosen."""

    kinds = frozenset({"Select", "SelectV2", "MulNoNan", *CHOICES})

    def rewritten(self, node: Node) -> int | None:
        if node.op.type not in self.kinds or not self.specs[node.outputs[0]].dtype.is_floating:
            return None
        if node.op.type == "MulNoNan":
            return self._product(node)
        *given, first, second = node.inputs
        shapes = {str(self.specs[n].shape) for n in node.inputs}
        if node.op.type == "Select" and len(shapes) > 1:
            return None
        if node.op.type in CHOICES:
            if not (self._may_be_infinite(first) or self._may_be_infinite(second)):
                return None
            # At a tie TensorFlow takes the first, as the derivative of the operation does.
            given = [self.put(node, CHOICES[node.op.type], first, second)]
        (condition,) = given
        data = self.data if condition in self.data else frozenset[int]()
        sources = self._entrywise_sources(first), self._entrywise_sources(second)
        if len(sources[0] | sources[1]) > MAX_VALUES:
            return None
        shared = sources[0] & sources[1]
        branches = [
            _Branch(self, node, condition, is_first, data, shared) for is_first in (True, False)
        ]
        masked = [b.masked(n) for b, n in zip(branches, (first, second), strict=True)]
        if masked == [first, second]:
            return None
        self._is_infinite = any(branch.is_infinite for branch in branches)
        return self.put(node, tf.where, condition, *masked)

    def without_derivative(self, node: Node) -> str:
        return node.op.type if self._is_infinite else ""

    def _product(self, node: Node) -> int | None:
        """x times y, which is zero where y is, whatever x: x is finite there."""
        x, y = node.inputs
        if y not in self.data or len(self._entrywise_sources(x)) > MAX_VALUES:
            return None
        condition = self.put(node, lambda y: tf.not_equal(y, 0), y)
        branch = _Branch(self, node, condition, True, self.data, frozenset())
        masked = branch.masked(x)
        self._is_infinite = branch.is_infinite
        return None if masked == x else self.put_like(node, masked, y)

    def _may_be_infinite(self, number: int) -> bool:
        """Whether an operation among the entrywise ones that make a value may be infinite."""
        makers = [self.makers[n] for n in self._entrywise_sources(number) if n in self.makers]
        return any(
            op_type(maker.op.type).is_entrywise
            and op_type(maker.op.type).finite_at is not None
            and any(n not in self.literals for n in maker.inputs)
            for maker in makers
        )

    def _entrywise_sources(self, number: int) -> set[int]:
        """The value, and all that it is computed from by entrywise operations, sums and means.

        Conditions are left out: they have no derivatives.
        """
        found, left = set[int](), [number]
        while left:
            number = left.pop()
            if number in found or not self.specs[number].dtype.is_floating:
                continue
            found.add(number)
            maker = self.makers.get(number)
            if maker is not None and (op_type(maker.op.type).is_entrywise or is_reduced(maker)):
                left += maker.inputs
        return found


class _Branch:
    """One branch, written for the entries at which a condition chooses it.

    Args:
        writer, node: what writes, and the choice.
        condition: chooses the branch where it is true, or where it is false.
        is_first: which of these.
        data: values that are replaced where the branch is not chosen.
        shared: values that stay as they are, since the other branch needs them too.

    `is_infinite` says whether an operation that can be infinite was written anew.
    """

    def __init__(
        self,
        writer: Branches,
        node: Node,
        condition: int,
        is_first: bool,
        data: Collection[int],
        shared: Collection[int],
    ):
        self._writer, self._node = writer, node
        self._condition, self._is_first = condition, is_first
        self._data, self._shared = data, shared
        self._masked: dict[int, int] = {}
        self.is_infinite = False

    def masked(self, number: int) -> int:
        """The value, finite where the branch is not chosen; the same where nothing is to do."""
        if number in self._shared or not self._writer.specs[number].dtype.is_floating:
            return number
        if number not in self._masked:
            self._masked[number] = self._written(number)
        return self._masked[number]

    def _written(self, number: int) -> int:
        if number in self._data:
            return self._replaced(number, 0.5)
        maker = self._writer.makers.get(number)
        known = op_type("" if maker is None else maker.op.type)
        if maker is None or len(maker.outputs) != 1:
            return number
        if is_reduced(maker):
            return self._reduced(maker)
        if not known.is_entrywise:
            return number
        inputs = list(map(self.masked, maker.inputs))
        if known.finite_at is not None:
            inputs = [self._replaced(n, known.finite_at) for n in inputs]
            self.is_infinite |= inputs != list(maker.inputs)
        if inputs == list(maker.inputs):
            return number
        shapes = [self._writer.specs[n].shape for n in inputs]
        return self._writer.put_like(
            maker, *inputs, shape=functools.reduce(tf.broadcast_static_shape, shapes)
        )

    def _reduced(self, maker: Node) -> int:
        """A sum or mean, whose entries are not chosen where it is not."""
        writer, (number,), (x, axes) = self._writer, maker.outputs, maker.inputs
        shapes = [writer.specs[n].shape for n in (number, self._condition)]
        rank = writer.specs[x].shape.rank
        if axes not in writer.literals or None in (shapes[0].rank, rank) or shapes[0] != shapes[1]:
            return number
        condition = self._condition
        if not maker.op.get_attr("keep_dims"):
            for axis in sorted(int(axis) % rank for axis in np.ravel(writer.literals[axes])):
                condition = writer.put(self._node, _expanded(axis), condition)
        inner = _Branch(writer, self._node, condition, self._is_first, self._data, self._shared)
        masked = inner.masked(x)
        self.is_infinite |= inner.is_infinite
        return number if masked == x else writer.put_like(maker, masked, axes)

    def _replaced(self, number: int, value: float) -> int:
        """The value, and another one where the branch is not chosen; constants stay."""
        if number in self._writer.literals:
            return number
        return self._writer.put(self._node, self._inside(value), self._condition, number)

    def _inside(self, value: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        def inside(condition: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
            other = tf.constant(value, x.dtype)
            return (
                tf.where(condition, x, other) if self._is_first else tf.where(condition, other, x)
            )

        return inside


def is_reduced(node: Node) -> bool:
    """Whether it is a sum or a mean over axes."""
    return node.op.type in ("Mean", "Sum")


def _expanded(axis: int) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda condition: tf.expand_dims(condition, axis)

"""Unchosen branches: in where(x > 0, log x, 0) the logarithm is computed where x > 0 alone.

`tf.where` gives the branch that is not chosen the cotangent zero, and its derivative may be
infinite: 0·∞. The entrywise operations of a branch are written once more for this use; the inputs
of those that can be infinite are replaced by a number inside the domain where the branch is not
chosen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from hvp.autodiff.identities.identity import Identity
from hvp.autodiff.op_types import op_type
from hvp.autodiff.program import Node


class Branches(Identity):
    """Writes the branches of `where` so that they are finite where they are not chosen."""

    kinds = frozenset({"Select", "SelectV2"})

    def rewritten(self, node: Node) -> int | None:
        if node.op.type not in self.kinds or not self.specs[node.outputs[0]].dtype.is_floating:
            return None
        condition, *branches = node.inputs
        shapes = {str(self.specs[n].shape) for n in node.inputs}
        if node.op.type == "Select" and len(shapes) > 1:
            return None
        masked = [
            _Branch(self, node, condition, is_first).masked(number)
            for number, is_first in zip(branches, (True, False), strict=True)
        ]
        if masked == branches:
            return None
        return self.put(node, tf.where, condition, *masked)


class _Branch:
    """One branch, written for the entries at which a condition chooses it."""

    def __init__(self, writer: Branches, node: Node, condition: int, is_first: bool):
        self._writer, self._node = writer, node
        self._condition, self._is_first = condition, is_first
        self._masked: dict[int, int] = {}

    def masked(self, number: int) -> int:
        """The value, finite where the branch is not chosen; the same where nothing is to do."""
        if number not in self._masked:
            self._masked[number] = self._written(number)
        return self._masked[number]

    def _written(self, number: int) -> int:
        maker = self._writer.makers.get(number)
        known = op_type("" if maker is None else maker.op.type)
        if maker is None or not known.is_entrywise or len(maker.outputs) != 1:
            return number
        inputs = list(map(self.masked, maker.inputs))
        if known.finite_at is not None:
            inputs = [self._replaced(n, known.finite_at) for n in inputs]
        if inputs == list(maker.inputs):
            return number
        shapes = [self._writer.specs[n].shape for n in inputs]
        return self._writer.put_like(
            maker, *inputs, shape=functools.reduce(tf.broadcast_static_shape, shapes)
        )

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

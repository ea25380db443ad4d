"""log Σ exp x over no entries: in softplus(log Σ exp x) it is -∞, and its derivative zero.

Entries are left out of a sum of exponentials by x = -∞. TensorFlow's `reduce_logsumexp` takes the
largest x off all of them, so that the sum is zero only where no entry is left. There its logarithm
is the constant -∞, of which TensorFlow takes the derivative 0/0.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from hvp.autodiff.identities.identity import Identity
from hvp.autodiff.program import Node


class EmptySums(Identity):
    """Writes the logarithms of sums of exponentials whose entries may all be left out."""

    kinds = frozenset({"Log"})

    def rewritten(self, node: Node) -> int | None:
        if node.op.type != "Log":
            return None
        exponential = self._chain(node.inputs[0], "Sum", "Exp", "Sub")
        if exponential is None:
            return None
        x, shift = exponential.inputs
        largest = self._chain(shift, "StopGradient", "SelectV2")
        maximum = None if largest is None else self._chain(largest.inputs[1], "Max")
        if maximum is None or maximum.inputs[0] != x or not self._may_be_left_out(x):
            return None
        return self.put(node, _logarithm, *node.inputs)

    def _chain(self, number: int, *kinds: str) -> Node | None:
        """The last of the operations of these kinds, each the first input of the one before."""
        maker = None
        for kind in kinds:
            maker = self.makers.get(number)
            if maker is None or maker.op.type != kind:
                return None
            number = maker.inputs[0]
        return maker

    def _may_be_left_out(self, number: int) -> bool:
        maker = self._chain(number, "SelectV2")
        return maker is not None and any(self.number_in(n) == -math.inf for n in maker.inputs)


def _logarithm(total: tf.Tensor) -> tf.Tensor:
    is_empty = tf.equal(total, 0)
    nothing = tf.constant(-np.inf, total.dtype)
    return tf.where(is_empty, nothing, tf.math.log(tf.where(is_empty, tf.ones_like(total), total)))

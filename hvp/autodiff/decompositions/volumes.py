"""The gradients of pooling of volumes, in a loss that holds a gradient itself.

TensorFlow has them in single precision alone. The derivative of its MaxPool3DGrad compares the
volume with the maxima that it is given, and is zero where those are not exact (TensorFlow 2.21).
Here they are sums over the places in a window, and the maxima are computed anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf


def max_pool_grad(
    op: tf.Operation, x: tf.Tensor, highest: tf.Tensor, grad: tf.Tensor
) -> tf.Tensor | None:
    """Each entry that equals the largest of a window gets what comes to the window.

    As in the kernel, all do that are equal.
    """
    if op.get_attr("data_format") != b"NDHWC" or not _are_known(x.shape, grad.shape):
        return None
    places = _Places(op, x.shape, grad.shape)
    padded = tf.pad(x, places.paddings, constant_values=x.dtype.min)
    windows = [places.read(padded, place) for place in places.all]
    largest = tf.stop_gradient(tf.reduce_max(tf.stack(windows), 0))

    def share(place: Sequence[int]) -> tf.Tensor:
        return tf.where(places.read(padded, place) >= largest, grad, tf.zeros_like(grad))

    return places.spread(share, tf.shape(x))


def average_pool_grad(op: tf.Operation, shape: tf.Tensor, grad: tf.Tensor) -> tf.Tensor | None:
    """Each entry of a window gets an equal share; padding has none."""
    before = op.outputs[0].shape
    if op.get_attr("data_format") != b"NDHWC" or not _are_known(before, grad.shape):
        return None
    places = _Places(op, before, grad.shape)
    inside = np.pad(np.ones([1, *before[1:4], 1]), places.paddings)
    count = sum(places.read(inside, place) for place in places.all)
    share = grad / tf.constant(count, grad.dtype)
    return places.spread(lambda place: share, shape)


def _are_known(*shapes: tf.TensorShape) -> bool:
    return all(shape.rank == 5 and None not in shape[1:4] for shape in shapes)


class _Places:
    """The places in a window: the first, the second, … entry of all windows.

    `paddings` are before and after each axis of the volume.
    """

    def __init__(self, op: tf.Operation, before: tf.TensorShape, after: tf.TensorShape):
        sizes, self._steps = op.get_attr("ksize")[1:4], op.get_attr("strides")[1:4]
        self._reach = [(n - 1) * step + 1 for n, step in zip(after[1:4], self._steps, strict=True)]
        axes = zip(self._reach, sizes, before[1:4], strict=True)
        is_padded = op.get_attr("padding") == b"SAME"
        totals = [max(n + size - 1 - given, 0) * is_padded for n, size, given in axes]
        self.paddings = [[0, 0], *([n // 2, n - n // 2] for n in totals), [0, 0]]
        self.all = list(itertools.product(*map(range, sizes)))

    def read(self, volume: tf.Tensor, place: Sequence[int]) -> tf.Tensor:
        """The entry at this place of every window."""
        return volume[(slice(None), *self._slices(place))]

    def spread(self, share: Callable[[Sequence[int]], tf.Tensor], shape: tf.Tensor) -> tf.Tensor:
        """The volume of this shape whose entries get the shares of their places, summed."""
        wide = shape + tf.reduce_sum(self.paddings, 1)
        parts = []
        for place in self.all:
            slices = self._slices(place)
            begin, end, steps = ([getattr(s, name) for s in slices] for name in _SLICE)
            parts.append(
                tf.raw_ops.StridedSliceGrad(
                    shape=wide,
                    begin=[0, *begin],
                    end=[0, *end],
                    strides=[1, *steps],
                    dy=share(place),
                    begin_mask=1,
                    end_mask=1,
                )
            )
        return tf.slice(tf.add_n(parts), [before for before, _ in self.paddings], shape)

    def _slices(self, place: Sequence[int]) -> list[slice]:
        axes = zip(place, self._reach, self._steps, strict=True)
        return [slice(first, first + reach, step) for first, reach, step in axes]


_SLICE = ("start", "stop", "step")

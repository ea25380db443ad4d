"""Discrete Fourier transforms of real numbers, and back to them, axis by axis.

TensorFlow's gradients over one and two axes fail where `fft_length` leaves out entries of the
input; here these are left out before. It has no gradient over three axes.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def real(op: tf.Operation, x: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor | None:
    """From real numbers to the frequencies of the last axes, which are not negative in the last."""
    rank = lengths.shape[0]
    if rank < 3 and _is_whole(x, lengths, tf.get_static_value(lengths[-1])):
        return None
    result = tf.signal.rfft(x[..., : lengths[-1]], lengths[-1:])
    for axis in range(2, rank + 1):
        result = _along(axis, tf.signal.fft, result, lengths[-axis])
    return _shaped(result, op)


def inverse_real(op: tf.Operation, x: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor | None:
    """From such frequencies to real numbers."""
    rank = lengths.shape[0]
    count = lengths[-1] // 2 + 1
    if rank < 3 and _is_whole(x, lengths, tf.get_static_value(count)):
        return None
    for axis in range(2, rank + 1):
        x = _along(axis, tf.signal.ifft, x, lengths[-axis])
    return _shaped(tf.signal.irfft(x[..., :count], lengths[-1:]), op)


def _is_whole(x: tf.Tensor, lengths: tf.Tensor, last: int | None) -> bool:
    """Whether a transform is known to read all entries, `last` of them along the last axis."""
    known = tf.get_static_value(lengths)
    if known is None or x.shape.rank is None:
        return False
    return x.shape[-len(known) :].as_list() == [*known[:-1], last]


def _along(
    axis: int, transform: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, length: tf.Tensor
) -> tf.Tensor:
    """The transform of the first `length` entries along an axis: 1 is the last, 2 that before."""
    swapped = tf.experimental.numpy.swapaxes(x, -1, -axis)
    return tf.experimental.numpy.swapaxes(transform(swapped[..., :length]), -1, -axis)


def _shaped(result: tf.Tensor, op: tf.Operation) -> tf.Tensor:
    result.set_shape(op.outputs[0].shape)
    return result

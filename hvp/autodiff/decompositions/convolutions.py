"""Grouped and dilated convolutions by others, whose gradients run on the CPU.

TensorFlow has no CPU kernels for the gradient of a grouped or dilated Conv2D, and none at all for
that of a grouped Conv3D. A grouped convolution is one convolution for each group, and a depthwise
one where each group is one channel. Keras itself runs it by XLA alone. A dilated convolution is one
with zeros between the entries of its filters.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def convolution(op: tf.Operation, x: tf.Tensor, filters: tf.Tensor) -> tf.Tensor | None:
    """A grouped or dilated convolution."""
    options = _options(op)
    groups = _groups(op, x, filters)
    if groups == 1 and not _is_dilated(options):
        return None
    filters = _spread(filters, options)
    options["dilations"] = [1] * len(options["dilations"])
    _, rows, columns, *_ = options["strides"]
    is_depthwise = op.type == "Conv2D" and rows == columns and filters.shape[-2] == 1
    if groups > 1 and is_depthwise:
        kernel = tf.reshape(filters, [*filters.shape[:2], groups, -1])
        return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, **options)
    convolve = getattr(tf.raw_ops, op.type)
    if groups == 1:
        return convolve(input=x, filter=filters, **options)
    pairs = zip(tf.split(x, groups, -1), tf.split(filters, groups, -1), strict=True)
    return tf.concat([convolve(input=a, filter=b, **options) for a, b in pairs], -1)


def transposed_convolution(
    op: tf.Operation, sizes: tf.Tensor, filters: tf.Tensor, upstream: tf.Tensor
) -> tf.Tensor | None:
    """The gradient of a dilated convolution in its input."""
    options = _options(op)
    if not _is_dilated(options):
        return None
    filters = _spread(filters, options)
    options["dilations"] = [1] * len(options["dilations"])
    transpose = getattr(tf.raw_ops, op.type)
    return transpose(input_sizes=sizes, filter=filters, out_backprop=upstream, **options)


def filter_gradient(
    op: tf.Operation, x: tf.Tensor, sizes: tf.Tensor, upstream: tf.Tensor
) -> tf.Tensor | None:
    """The gradient of a dilated convolution in its filters: every other entry of that of another.

    The number of entries of a filter is read from the static shape of the result.
    """
    options = _options(op)
    shape = op.outputs[0].shape
    if not _is_dilated(options) or not shape.is_fully_defined():
        return None
    steps = _rates(options)
    lengths = [(n - 1) * step + 1 for n, step in zip(shape, steps, strict=False)]
    options["dilations"] = [1] * len(options["dilations"])
    differentiate = getattr(tf.raw_ops, op.type)
    whole = differentiate(
        input=x, filter_sizes=[*lengths, *shape[-2:]], out_backprop=upstream, **options
    )
    return whole[tuple(slice(None, None, step) for step in steps)]


def _options(op: tf.Operation) -> dict[str, Any]:
    names = ("strides", "padding", "data_format", "dilations", "explicit_paddings")
    return {name: op.get_attr(name) for name in names if name in op.node_def.attr}


def _groups(op: tf.Operation, x: tf.Tensor, filters: tf.Tensor) -> int:
    """How many groups of channels are convolved apart; 1 where this is not known."""
    if op.get_attr("data_format") not in (b"NHWC", b"NDHWC") or x.shape[-1] is None:
        return 1
    return x.shape[-1] // filters.shape[-2]


def _rates(options: dict[str, Any]) -> list[int]:
    """The dilation along each axis of the filters that is not of channels."""
    is_last = options["data_format"] in (b"NHWC", b"NDHWC")
    return options["dilations"][1:-1] if is_last else options["dilations"][2:]


def _is_dilated(options: dict[str, Any]) -> bool:
    return any(rate > 1 for rate in _rates(options))


def _spread(filters: tf.Tensor, options: dict[str, Any]) -> tf.Tensor:
    """The filters with zeros between their entries, so that they need no dilation."""
    for axis, rate in enumerate(_rates(options)):
        if rate > 1:
            count = filters.shape[axis]
            rest = [[0, 0]] * filters.shape.rank
            apart = tf.pad(
                tf.expand_dims(filters, axis + 1),
                [*rest[: axis + 1], [0, rate - 1], *rest[axis + 1 :]],
            )
            shape = [*filters.shape[:axis], count * rate, *filters.shape[axis + 1 :]]
            whole = tf.reshape(apart, shape)
            filters = whole[(slice(None),) * axis + (slice(0, (count - 1) * rate + 1),)]
    return filters

"""Grouped convolutions by others, whose gradients run on the CPU.

TensorFlow has no CPU kernels for the gradient of a grouped Conv2D, and none at all for that of a
grouped Conv3D. A grouped convolution is one convolution for each group, and a depthwise one where
each group is one channel. Keras itself runs it by XLA alone.
"""

from __future__ import annotations

import tensorflow as tf


def grouped_convolution(op: tf.Operation, x: tf.Tensor, filters: tf.Tensor) -> tf.Tensor | None:
    """A grouped convolution as one for each group, or as a depthwise one."""
    if op.get_attr("data_format") not in (b"NHWC", b"NDHWC") or x.shape[-1] is None:
        return None
    groups = x.shape[-1] // filters.shape[-2]
    if groups == 1:
        return None
    names = ["strides", "padding", "data_format", "dilations"]
    if op.type == "Conv2D":
        names.append("explicit_paddings")
    options = {name: op.get_attr(name) for name in names}
    _, rows, columns, *_ = options["strides"]
    is_plain = op.type == "Conv2D" and rows == columns and set(options["dilations"]) == {1}
    if is_plain and filters.shape[-2] == 1:
        kernel = tf.reshape(filters, [*filters.shape[:2], groups, -1])
        return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, **options)
    pairs = zip(tf.split(x, groups, -1), tf.split(filters, groups, -1), strict=True)
    convolve = getattr(tf.raw_ops, op.type)
    return tf.concat([convolve(input=a, filter=b, **options) for a, b in pairs], -1)

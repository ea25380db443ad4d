"""Quantisation as training takes it: straight through.

The values are those of the steps. The derivative is that of the identity within the range, and of
the end of the range outside it, as TensorFlow's gradient has it (Bengio et al. 2013).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def fake_quantise(op: tf.Operation, x: tf.Tensor, *ends: tf.Tensor) -> tf.Tensor:
    """FakeQuantWithMinMaxArgs, and with variables for the ends of one range or of a range each."""
    kernel, gradient = (getattr(tf.raw_ops, name) for name in (op.type, f"{op.type}Gradient"))
    options = {name: op.get_attr(name) for name in ("num_bits", "narrow_range")}
    # The kernels take no other precision.
    constant, *bounds = (tf.stop_gradient(tf.cast(t, tf.float32)) for t in (x, *ends))
    given = dict(zip(("min", "max"), bounds, strict=False))
    if not ends:
        given = {name: op.get_attr(name) for name in ("min", "max")}
    values = kernel(inputs=constant, **given, **options)
    inside = gradient(gradients=tf.ones_like(constant), inputs=constant, **given, **options)
    return _straight_through(values, x, inside[0] if ends else inside, ends)


def quantise(
    op: tf.Operation, x: tf.Tensor, low: tf.Tensor, high: tf.Tensor, *bits: tf.Tensor
) -> tf.Tensor:
    """QuantizeAndDequantizeV4; those before it have the gradient of the identity everywhere."""
    axis = op.get_attr("axis")
    names = ("signed_input", "num_bits", "range_given", "round_mode", "narrow_range", "axis")
    constant, *ends = map(tf.stop_gradient, (x, low, high))
    bounds = dict(zip(("input_min", "input_max"), ends, strict=True))
    values = tf.raw_ops.QuantizeAndDequantizeV4(
        input=constant, **bounds, **{name: op.get_attr(name) for name in names}
    )
    inside = tf.raw_ops.QuantizeAndDequantizeV4Grad(
        gradients=tf.ones_like(x), input=constant, **bounds, axis=axis
    ).input_backprop
    shape = [1] * x.shape.rank
    if axis >= 0:
        shape[axis] = -1
    return _straight_through(values, x, inside, [tf.reshape(low, shape), tf.reshape(high, shape)])


def _straight_through(
    values: tf.Tensor, x: tf.Tensor, inside: tf.Tensor, ends: Sequence[tf.Tensor]
) -> tf.Tensor:
    """The values, with the derivative of x where `inside` is one, and else of the nearer end."""
    values, inside = (tf.stop_gradient(tf.cast(t, x.dtype)) for t in (values, inside))

    def change(t: tf.Tensor) -> tf.Tensor:
        return t - tf.stop_gradient(t)

    result = values + inside * change(x)
    if ends:
        low, high = ends
        below = tf.cast(x < (low + high) / 2, x.dtype)
        result += (1 - inside) * (below * change(low) + (1 - below) * change(high))
    return result

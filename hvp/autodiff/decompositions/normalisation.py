"""Fused batch normalisation and local response normalisation, written out.

The gradients of TensorFlow's fused operations have no derivatives in all their inputs, or none.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def fused_batch_norm(
    op: tf.Operation,
    x: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
) -> list[tf.Tensor] | None:
    """(x - μ) / √(σ² + ε) · scale + offset, with μ and σ² of the batch while training."""
    layout = op.get_attr("data_format").decode()
    channel = layout.index("C")
    if x.shape.rank is None or not x.shape.is_fully_defined():
        return None
    axes = [axis for axis in range(x.shape.rank) if axis != channel]
    beside = [1] * x.shape.rank
    beside[channel] = -1
    wide = tf.cast(x, scale.dtype)

    def shaped(t: tf.Tensor) -> tf.Tensor:
        return tf.reshape(t, beside)

    reserve = tf.zeros([0], scale.dtype)
    if op.get_attr("is_training"):
        mu = tf.reduce_mean(wide, axes)
        sigma2 = tf.reduce_mean((wide - shaped(mu)) ** 2, axes)
        count = int(np.prod([x.shape[axis] for axis in axes]))
        factor = op.get_attr("exponential_avg_factor")
        unbiased = sigma2 * (count / max(count - 1, 1))
        means, variances = mu, unbiased
        if factor != 1.0:
            means = (1 - factor) * mean + factor * mu
            variances = (1 - factor) * variance + factor * unbiased
    else:
        mu, sigma2 = mean, variance
        means, variances = mean, variance
    epsilon = tf.cast(op.get_attr("epsilon"), scale.dtype)
    y = (wide - shaped(mu)) * shaped(tf.math.rsqrt(sigma2 + epsilon) * scale) + shaped(offset)
    results = [tf.cast(y, x.dtype), means, variances, mu, sigma2, reserve]
    return results[: len(op.outputs)]


def fused_batch_norm_grad(
    op: tf.Operation,
    slope: tf.Tensor,
    x: tf.Tensor,
    scale: tf.Tensor,
    mu: tf.Tensor,
    sigma2: tf.Tensor,
    reserve: tf.Tensor,
) -> list[tf.Tensor] | None:
    """Its first derivatives, as in a loss that holds a gradient tape, from μ and σ² of x."""
    channel = op.get_attr("data_format").decode().index("C")
    if x.shape.rank is None or not x.shape.is_fully_defined():
        return None
    axes = [axis for axis in range(x.shape.rank) if axis != channel]
    beside = [1] * x.shape.rank
    beside[channel] = -1
    g, centred = tf.cast(slope, scale.dtype), tf.cast(x, scale.dtype) - tf.reshape(mu, beside)
    squares = sigma2 + tf.cast(op.get_attr("epsilon"), scale.dtype)
    in_x = g
    if op.get_attr("is_training"):
        along = tf.reduce_mean(g * centred, axes, keepdims=True)
        in_x = g - tf.reduce_mean(g, axes, keepdims=True)
        in_x -= centred * along / tf.reshape(squares, beside)
    in_x *= tf.reshape(scale * tf.math.rsqrt(squares), beside)
    in_scale = tf.reduce_sum(g * centred, axes) * tf.math.rsqrt(squares)
    unused = [tf.zeros(t.shape, t.dtype) for t in op.outputs[3:]]
    return [tf.cast(in_x, x.dtype), in_scale, tf.reduce_sum(g, axes), *unused]


def local_response(op: tf.Operation, x: tf.Tensor) -> tf.Tensor | None:
    """x / (bias + α Σ x²)^β, the sum over neighbouring channels: squares times a band matrix."""
    channels = x.shape[-1]
    if channels is None:
        return None
    radius = int(op.get_attr("depth_radius"))
    bias, alpha, beta = (float(op.get_attr(name)) for name in ("bias", "alpha", "beta"))
    near = np.abs(np.subtract.outer(np.arange(channels), np.arange(channels))) <= radius
    sums = tf.tensordot(x * x, tf.constant(near, x.dtype), 1)
    return x * tf.exp(-beta * tf.math.log(bias + alpha * sums))

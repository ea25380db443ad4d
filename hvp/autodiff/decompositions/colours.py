"""Colour transforms of images, whose operations in TensorFlow have no gradient."""

from __future__ import annotations

import tensorflow as tf


def hsv_to_rgb(op: tf.Operation, images: tf.Tensor) -> tf.Tensor:
    """v (1 - s + s w), where the weights w of red, green and blue are of the hue alone."""
    hue, saturation, value = tf.split(images, 3, -1)
    return value * (1 - saturation + saturation * _weights(6 * hue))


def adjust_hue(op: tf.Operation, images: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """The colours between the smallest and the largest channel, at a turned hue."""
    red, green, blue = tf.split(images, 3, -1)
    low, high = (f(images, -1, keepdims=True) for f in (tf.reduce_min, tf.reduce_max))
    chroma = high - low
    safe = tf.where(chroma > 0, chroma, tf.ones_like(chroma))
    sixths = tf.where(
        red >= high,
        (green - blue) / safe,
        tf.where(green >= high, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    turned = tf.math.floormod(sixths + 6 * tf.cast(delta, images.dtype), 6)
    return low + chroma * _weights(turned)


def adjust_saturation(op: tf.Operation, images: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """The distances to the largest channel, scaled until the smallest channel is zero."""
    low, high = (f(images, -1, keepdims=True) for f in (tf.reduce_min, tf.reduce_max))
    chroma = high - low
    scale = tf.maximum(tf.cast(scale, images.dtype), 0)
    largest = high / tf.where(chroma > 0, chroma, tf.ones_like(chroma))
    factor = tf.where((chroma > 0) & (scale > largest), largest, scale)
    return high - (high - images) * factor


def adjust_contrast(op: tf.Operation, images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """The distances to the mean of each channel, scaled."""
    mean = tf.reduce_mean(images, [-3, -2], keepdims=True)
    return mean + (images - mean) * tf.cast(factor, images.dtype)


def _weights(sixths: tf.Tensor) -> tf.Tensor:
    """(…, 3): the share of red, green and blue at a hue, given in sixths of the circle."""
    red = tf.abs(sixths - 3) - 1
    green = 2 - tf.abs(sixths - 2)
    blue = 2 - tf.abs(sixths - 4)
    return tf.clip_by_value(tf.concat([red, green, blue], -1), 0, 1)

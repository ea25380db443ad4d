"""Resizing of images, as products with the matrices of the interpolation.

The kernels are linear in the images: some have no gradient, the others one without a second. Rows
and columns are interpolated apart, so that one matrix for each is all: what the kernel makes of the
unit vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def resize(op: tf.Operation, images: tf.Tensor, size: tf.Tensor) -> tf.Tensor | None:
    """Nearest, bilinear, bicubic and area interpolation."""
    rows, columns = op.outputs[0].shape[1:3]
    if None in (*images.shape[1:3], rows, columns) or not images.dtype.is_floating:
        return None
    names = ("align_corners", "half_pixel_centers")
    options = {name: op.get_attr(name) for name in names if name in op.node_def.attr}
    kernel = getattr(tf.raw_ops, op.type)

    def matrix(before: int, after: int) -> tf.Tensor:
        return _matrix(lambda units: kernel(images=units, size=[after, 1], **options), before)

    return _interpolated(images, matrix(images.shape[1], rows), matrix(images.shape[2], columns))


def scale_and_translate(
    op: tf.Operation,
    images: tf.Tensor,
    size: tf.Tensor,
    scale: tf.Tensor,
    translation: tf.Tensor,
) -> tf.Tensor | None:
    """Resizing with antialiasing, and by Lanczos, Gaussian, triangle and cubic kernels."""
    rows, columns = op.outputs[0].shape[1:3]
    if None in (*images.shape[1:3], rows, columns):
        return None
    options = {name: op.get_attr(name) for name in ("kernel_type", "antialias")}
    # The kernel takes no other precision.
    scale, translation = tf.cast(scale, tf.float32), tf.cast(translation, tf.float32)

    def matrix(axis: int, after: int) -> tf.Tensor:
        before = images.shape[1 + axis]
        resized = tf.raw_ops.ScaleAndTranslate(
            images=tf.eye(before)[None, :, None, :],
            size=[after, 1],
            scale=tf.stack([scale[axis], 1.0]),
            translation=tf.stack([translation[axis], 0.0]),
            **options,
        )
        return tf.stop_gradient(resized[0, :, 0, :])

    return _interpolated(images, matrix(0, rows), matrix(1, columns))


def _matrix(kernel: Callable[[tf.Tensor], tf.Tensor], before: int) -> tf.Tensor:
    """(after, before): a column of pixels whose channels are the unit vectors, resized."""
    with tf.init_scope():
        return kernel(tf.eye(before)[None, :, None, :])[0, :, 0, :].numpy()


def _interpolated(images: tf.Tensor, down: tf.Tensor, across: tf.Tensor) -> tf.Tensor:
    kind = images.dtype if images.dtype.is_floating else tf.float32
    down, across = tf.cast(down, kind), tf.cast(across, kind)
    return tf.einsum("ri,nijc,sj->nrsc", down, tf.cast(images, kind), across)

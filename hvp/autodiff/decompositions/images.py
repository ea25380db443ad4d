"""Resizing, cropping and projecting of images: linear in the images.

Some kernels have no gradient, others one without a second; that of `ImageProjectiveTransformV3`
resamples the slope at the inverse transform, which is not the derivative (TensorFlow 2.21). In
resizing and cropping, rows and columns are interpolated apart, so that one matrix for each is all.
In resizing it is what the kernel makes of the unit vectors. The gradient of resizing, which a loss
holds that holds a gradient itself, is by the same matrices, transposed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf


def resize(op: tf.Operation, images: tf.Tensor, size: tf.Tensor) -> tf.Tensor | None:
    """Nearest, bilinear, bicubic and area interpolation."""
    rows, columns = op.outputs[0].shape[1:3]
    if None in (*images.shape[1:3], rows, columns) or not images.dtype.is_floating:
        return None
    down = _resizing(op, images.shape[1], rows)
    return _interpolated(images, down, _resizing(op, images.shape[2], columns))


def resize_gradient(op: tf.Operation, upstream: tf.Tensor, _: tf.Tensor) -> tf.Tensor | None:
    """The gradient of nearest, bilinear and bicubic interpolation in the images."""
    rows, columns = op.outputs[0].shape[1:3]
    if None in (*upstream.shape[1:3], rows, columns) or not upstream.dtype.is_floating:
        return None
    down = _resizing(op, rows, upstream.shape[1])
    return _transposed(upstream, down, _resizing(op, columns, upstream.shape[2]))


def _resizing(op: tf.Operation, before: int, after: int) -> tf.Tensor:
    """(after, before): how an axis of pixels is resized by an operation or its gradient."""
    names = ("align_corners", "half_pixel_centers")
    options = {name: op.get_attr(name) for name in names if name in op.node_def.attr}
    kernel = getattr(tf.raw_ops, op.type.removesuffix("Grad"))
    return _matrix(lambda units: kernel(images=units, size=[after, 1], **options), before)


def scale_and_translate(
    op: tf.Operation,
    images: tf.Tensor,
    size: tf.Tensor,
    scale: tf.Tensor,
    translation: tf.Tensor,
) -> tf.Tensor | None:
    """Resizing with antialiasing, and by Lanczos, Gaussian, triangle and cubic kernels."""
    before, after = images.shape[1:3], op.outputs[0].shape[1:3]
    if None in (*before, *after):
        return None
    return _interpolated(images, *_translations(op, before, after, scale, translation))


def scale_and_translate_gradient(
    op: tf.Operation,
    upstream: tf.Tensor,
    images: tf.Tensor,
    scale: tf.Tensor,
    translation: tf.Tensor,
) -> tf.Tensor | None:
    """The gradient of resizing with antialiasing in the images."""
    before, after = op.outputs[0].shape[1:3], upstream.shape[1:3]
    if None in (*before, *after):
        return None
    return _transposed(upstream, *_translations(op, before, after, scale, translation))


def _translations(
    op: tf.Operation,
    before: Sequence[int],
    after: Sequence[int],
    scale: tf.Tensor,
    translation: tf.Tensor,
) -> list[tf.Tensor]:
    """(after, before) for the rows and for the columns."""
    options = {name: op.get_attr(name) for name in ("kernel_type", "antialias")}
    # The kernel takes no other precision.
    scale, translation = tf.cast(scale, tf.float32), tf.cast(translation, tf.float32)

    def matrix(axis: int) -> tf.Tensor:
        resized = tf.raw_ops.ScaleAndTranslate(
            images=tf.eye(before[axis])[None, :, None, :],
            size=[after[axis], 1],
            scale=tf.stack([scale[axis], 1.0]),
            translation=tf.stack([translation[axis], 0.0]),
            **options,
        )
        return tf.stop_gradient(resized[0, :, 0, :])

    return [matrix(0), matrix(1)]


def crop_and_resize(
    op: tf.Operation, images: tf.Tensor, boxes: tf.Tensor, owners: tf.Tensor, size: tf.Tensor
) -> tf.Tensor:
    """Boxes cut from images, (boxes, rows, columns, channels), resized to the same size."""
    images = tf.cast(images, boxes.dtype)
    low_row, low_column, high_row, high_column = tf.unstack(boxes, axis=1)
    nearest = op.get_attr("method") == b"nearest"
    before = tf.shape(images)
    down, is_row = _crop(low_row, high_row, before[1], size[0], nearest)
    across, is_column = _crop(low_column, high_column, before[2], size[1], nearest)
    chosen = tf.gather(images, owners)
    cropped = tf.einsum("bri,bijc->brjc", down, chosen)
    cropped = tf.einsum("brjc,bsj->brsc", cropped, across)
    inside = (is_row[:, :, None] & is_column[:, None, :])[..., None]
    outside = tf.cast(op.get_attr("extrapolation_value"), cropped.dtype)
    return tf.where(inside, cropped, outside)


def _crop(
    low: tf.Tensor, high: tf.Tensor, before: tf.Tensor, after: tf.Tensor, nearest: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """(boxes, after, before): the weights of the pixels; and which positions are in the image."""
    kind = low.dtype
    last = tf.cast(before - 1, kind)
    steps = tf.range(tf.cast(after, kind), dtype=kind)
    between = low[:, None] + steps * (high - low)[:, None] / tf.cast(tf.maximum(after - 1, 1), kind)
    middle = (low + high)[:, None] / 2 * tf.ones_like(steps)
    position = last * tf.where(after > 1, between, middle)
    inside = (position >= 0) & (position <= last)

    def at(pixel: tf.Tensor) -> tf.Tensor:
        return tf.one_hot(tf.cast(pixel, tf.int32), before, dtype=kind)

    if nearest:
        return at(_rounded(position)), inside
    first = tf.floor(position)
    share = (position - first)[..., None]
    return (1 - share) * at(first) + share * at(tf.math.ceil(position)), inside


def projective(
    op: tf.Operation,
    images: tf.Tensor,
    transforms: tf.Tensor,
    size: tf.Tensor,
    fill: tf.Tensor | float = 0.0,
) -> tf.Tensor:
    """Images read at ((a₀x + a₁y + a₂)/k, (b₀x + b₁y + b₂)/k) with k = c₀x + c₁y + 1."""
    kind = transforms.dtype
    y, x = tf.meshgrid(*(tf.cast(tf.range(size[i]), kind) for i in range(2)), indexing="ij")
    # A transform for each image, or one for all.
    each = tf.tile(transforms, [tf.shape(images)[0] // tf.shape(transforms)[0], 1])
    a0, a1, a2, b0, b1, b2, c0, c1 = tf.unstack(each[:, :, None, None], axis=1)
    scale = c0 * x + c1 * y + 1
    is_seen = tf.not_equal(scale, 0)
    scale = tf.where(is_seen, scale, 1)
    mode = op.get_attr("fill_mode").decode()
    height, width = (tf.shape(images)[axis] for axis in (1, 2))
    column = _folded((a0 * x + a1 * y + a2) / scale, tf.cast(width, kind), mode)
    row = _folded((b0 * x + b1 * y + b2) / scale, tf.cast(height, kind), mode)
    fill = tf.cast(fill, images.dtype)

    def read(i: tf.Tensor, j: tf.Tensor) -> tf.Tensor:
        i, j = tf.cast(i, tf.int32), tf.cast(j, tf.int32)
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
        where = tf.stack([tf.where(inside, i, 0), tf.where(inside, j, 0)], -1)
        return tf.where(inside[..., None], tf.gather_nd(images, where, batch_dims=1), fill)

    def line(i: tf.Tensor) -> tf.Tensor:
        first = tf.floor(column)
        share = tf.cast((column - first)[..., None], images.dtype)
        return (1 - share) * read(i, first) + share * read(i, first + 1)

    if op.get_attr("interpolation") == b"NEAREST":
        value = read(_rounded(row), _rounded(column))
    else:
        first = tf.floor(row)
        share = tf.cast((row - first)[..., None], images.dtype)
        value = (1 - share) * line(first) + share * line(first + 1)
    return tf.where(is_seen[..., None], value, fill)


def _folded(position: tf.Tensor, length: tf.Tensor, mode: str) -> tf.Tensor:
    """Positions outside an axis of pixels, brought back into it as the kernel does."""
    if mode == "CONSTANT":
        return position
    last = length - 1
    if mode == "REFLECT":
        period = 2 * length
        negative = position + period * _whole(-position / period)
        negative = tf.where(negative < -length, negative + period, -negative - 1)
        beyond = position - period * _whole(position / period)
        beyond = tf.where(beyond >= length, period - beyond - 1, beyond)
    elif mode == "WRAP":
        safe = tf.maximum(last, 1)
        negative = position + length * (_whole(-position / safe) + 1)
        beyond = position - length * _whole(position / safe)
    else:
        negative = beyond = position
    folded = tf.where(position < 0, negative, tf.where(position > last, beyond, position))
    return tf.clip_by_value(tf.where(length > 1, folded, 0), 0, last)


def _whole(x: tf.Tensor) -> tf.Tensor:
    return tf.sign(x) * tf.floor(tf.abs(x))


def _rounded(x: tf.Tensor) -> tf.Tensor:
    """To the nearest whole number, halves away from zero."""
    return tf.sign(x) * tf.floor(tf.abs(x) + 0.5)


def _matrix(kernel: Callable[[tf.Tensor], tf.Tensor], before: int) -> tf.Tensor:
    """(after, before): a column of pixels whose channels are the unit vectors, resized."""
    with tf.init_scope():
        return kernel(tf.eye(before)[None, :, None, :])[0, :, 0, :].numpy()


def _interpolated(images: tf.Tensor, down: tf.Tensor, across: tf.Tensor) -> tf.Tensor:
    kind = images.dtype if images.dtype.is_floating else tf.float32
    down, across = tf.cast(down, kind), tf.cast(across, kind)
    return tf.einsum("ri,nijc,sj->nrsc", down, tf.cast(images, kind), across)


def _transposed(upstream: tf.Tensor, down: tf.Tensor, across: tf.Tensor) -> tf.Tensor:
    down, across = tf.cast(down, upstream.dtype), tf.cast(across, upstream.dtype)
    return tf.einsum("ri,nrsc,sj->nijc", down, upstream, across)

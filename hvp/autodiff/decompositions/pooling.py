"""Pooling by operations that have second derivatives, and of volumes in float64.

- Max pooling over windows that do not overlap is the average pooling of the winners: linear in x
  with constant coefficients. TensorFlow's own MaxPoolGrad is slow, its MaxPoolGradGrad slower, and
  XLA refuses the latter.
- Volumes in float64, for which TensorFlow has no kernels, are pooled plane by plane and then along
  the depth. So are volumes by maxima whose windows overlap: of equal entries, as in a region of one
  colour, TensorFlow gives each the whole derivative.
- Max pooling to the same shape is a padding and a pooling to a smaller shape. The kernels
  MaxPoolGradGrad and MaxPool3DGradGrad work in place where the shapes agree, and read entries that
  they have already overwritten (TensorFlow 2.21): Hv through such a layer is wrong by half, and so
  is the gradient of a gradient penalty.
- Row i of fractional pooling is of the image rows from r_i to r_{i+1}, where the operation draws
  the numbers r_0 < r_1 < …; the columns likewise. Its gradients in TensorFlow have no derivative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from hvp.errors import InputError


def pool_volume(op: tf.Operation, x: tf.Tensor) -> tf.Tensor | None:
    """Pooling of the planes, then along the depth: a mean of means, a maximum of maxima."""
    is_average = op.type == "AvgPool3D"
    is_known = op.get_attr("data_format") == b"NDHWC" and None not in x.shape[1:]
    is_fast = op.get_attr("ksize") == op.get_attr("strides") and _windows_fit(op, x)
    if not is_known or (x.dtype != tf.float64 and (is_average or is_fast)):
        return None if is_average else max_pool(op, x)
    pool = tf.nn.avg_pool2d if is_average else _max_pool_plane
    (depth, *plane), (step, *steps) = op.get_attr("ksize")[1:4], op.get_attr("strides")[1:4]
    padding, channels = op.get_attr("padding").decode(), x.shape[-1]
    planes = pool(tf.reshape(x, [-1, *x.shape[2:]]), plane, steps, padding)
    rows, columns = planes.shape[1:3]
    lines = tf.reshape(planes, [-1, x.shape[1], rows * columns, channels])
    pooled = pool(lines, [depth, 1], [step, 1], padding)
    return tf.reshape(pooled, [-1, pooled.shape[1], rows, columns, channels])


def _max_pool_plane(
    x: tf.Tensor, sizes: Sequence[int], strides: Sequence[int], padding: str
) -> tf.Tensor:
    """Max pooling of images; to the same shape, padding and then pooling to a smaller shape."""
    if max(*sizes, *strides) == 1:
        return x
    if padding == "SAME" and max(strides) == 1:
        paddings = [[(size - 1) // 2, size // 2] for size in (1, *sizes, 1)]
        x, padding = tf.pad(x, paddings, constant_values=x.dtype.min), "VALID"
    return tf.nn.max_pool2d(x, sizes, strides, padding)


def max_pool(op: tf.Operation, x: tf.Tensor) -> tf.Tensor | None:
    sizes, strides = op.get_attr("ksize"), op.get_attr("strides")
    if max(sizes) == max(strides) == 1:
        return x
    if sizes == strides and _windows_fit(op, x):
        return _average_of_winners(op, x)
    return _pool_to_smaller_shape(op, x) if x.shape == op.outputs[0].shape else None


def _windows_fit(op: tf.Operation, x: tf.Tensor) -> bool:
    """Whether every window lies within the image, where channels are the last axis."""
    if op.get_attr("data_format") not in (b"NHWC", b"NDHWC"):
        return False
    if op.get_attr("padding") == b"VALID":
        return True
    whole = x.shape.is_fully_defined() and op.get_attr("padding") == b"SAME"
    return whole and not any(np.mod(x.shape, op.get_attr("ksize")))


def _average_of_winners(op: tf.Operation, x: tf.Tensor) -> tf.Tensor:
    volume = op.type == "MaxPool3D"
    windows = {name: op.get_attr(name) for name in ("ksize", "strides", "data_format")}
    windows["padding"] = "VALID"
    pool, grad, average = (
        getattr(tf.raw_ops, name)
        for name in (
            ("MaxPool3D", "MaxPool3DGrad", "AvgPool3D")
            if volume
            else ("MaxPool", "MaxPoolGrad", "AvgPool")
        )
    )
    constant = tf.stop_gradient(x)
    highest = pool(input=constant, **windows)

    def spread(each: tf.Tensor) -> tf.Tensor:
        each = tf.stop_gradient(each)
        return grad(orig_input=constant, orig_output=highest, grad=each, **windows)

    def mean(t: tf.Tensor) -> tf.Tensor:
        return average(**{"input" if volume else "value": t}, **windows)

    ones = tf.ones_like(highest)
    # MaxPool3DGrad counts all entries that equal the maximum: each gets an equal share.
    weights = 1 / mean(spread(ones)) if volume else ones * float(np.prod(windows["ksize"]))
    # Entries that lose contribute zero, even if they are infinite, as those of masks are.
    return mean(tf.math.multiply_no_nan(x, tf.stop_gradient(spread(weights))))


def _pool_to_smaller_shape(op: tf.Operation, x: tf.Tensor) -> tf.Tensor:
    padded = tf.pad(x, _paddings(op), constant_values=x.dtype.min)
    return getattr(tf.raw_ops, op.type)(input=padded, name=op.name, **_windows_inside(op))


def max_pool_grad(
    op: tf.Operation, x: tf.Tensor, highest: tf.Tensor, grad: tf.Tensor
) -> tf.Tensor | None:
    """The derivative of max pooling, in a loss that holds a gradient itself.

    The kernel that differentiates it compares the image with the maxima that it is given, and is
    zero where those are averages of winners, which are rounded. So it is written as the transpose
    of this average. That of pooling to the same shape is that of pooling to a smaller shape.
    """
    sizes, is_constant = op.get_attr("ksize"), op.inputs[2].op.type == "StopGradient"
    if max(sizes) > 1 and sizes == op.get_attr("strides") and _windows_fit(op, x):
        return None if is_constant else _to_winners(op, x, highest, grad)
    if x.shape != highest.shape or max(op.get_attr("ksize")) == 1:
        return None
    paddings = _paddings(op)
    padded = tf.pad(x, paddings, constant_values=x.dtype.min)
    spread = tf.raw_ops.MaxPoolGrad(
        orig_input=padded, orig_output=highest, grad=grad, **_windows_inside(op)
    )
    return tf.slice(spread, [before for before, _ in paddings], tf.shape(x))


def _to_winners(op: tf.Operation, x: tf.Tensor, highest: tf.Tensor, grad: tf.Tensor) -> tf.Tensor:
    windows = {name: op.get_attr(name) for name in ("ksize", "strides", "padding", "data_format")}
    size = float(np.prod(windows["ksize"]))
    weights = tf.stop_gradient(tf.fill(tf.shape(grad), tf.constant(size, grad.dtype)))
    constant, given = tf.stop_gradient(x), tf.stop_gradient(highest)
    winners = tf.raw_ops.MaxPoolGrad(
        orig_input=constant, orig_output=given, grad=weights, **windows
    )
    shares = tf.raw_ops.AvgPoolGrad(orig_input_shape=tf.shape(x), grad=grad, **windows)
    return tf.math.multiply_no_nan(shares, tf.stop_gradient(winners))


def _paddings(op: tf.Operation) -> list[list[int]]:
    """Before and after each axis, of a pooling to the same shape."""
    if op.get_attr("padding") == b"EXPLICIT":
        return np.reshape(op.get_attr("explicit_paddings"), (-1, 2)).tolist()
    return [[(size - 1) // 2, size // 2] for size in op.get_attr("ksize")]


def _windows_inside(op: tf.Operation) -> dict[str, object]:
    """The windows of a pooling whose image is padded already."""
    given = {name: op.get_attr(name) for name in ("ksize", "strides", "data_format")}
    return {**given, "padding": "VALID"}


def max_pool_with_argmax(op: tf.Operation, x: tf.Tensor) -> list[tf.Tensor] | None:
    """The entries that win, picked by their positions: linear in x."""
    if not x.shape.is_fully_defined():
        return None
    names = ("ksize", "strides", "Targmax", "padding", "include_batch_in_index")
    options = {name: op.get_attr(name) for name in names}
    _, positions = tf.raw_ops.MaxPoolWithArgmax(input=tf.stop_gradient(x), **options)
    flat = tf.cast(positions, tf.int64)
    if not options["include_batch_in_index"]:
        size = x.shape[1:].num_elements()
        flat += tf.reshape(tf.range(x.shape[0], dtype=tf.int64) * size, [-1, 1, 1, 1])
    return [tf.gather(tf.reshape(x, [-1]), flat), positions]


def fractional(op: tf.Operation, x: tf.Tensor) -> list[tf.Tensor] | None:
    """The maxima or the means over the regions, along the rows and then along the columns."""
    if not op.get_attr("deterministic"):
        raise InputError(
            "a loss that is a function of its parameters and data alone",
            f"{op.type}, which draws other regions each time",
            "give it a seed",
        )
    if None in x.shape[1:3]:
        return None
    names = ("pooling_ratio", "pseudo_random", "overlapping", "deterministic", "seed", "seed2")
    options = {name: op.get_attr(name) for name in names}
    with tf.init_scope():  # the regions depend on the shape alone
        _, *drawn = getattr(tf.raw_ops, op.type)(value=tf.zeros([1, *x.shape[1:3], 1]), **options)
    sequences = [edges.numpy() for edges in drawn]
    pooled = x
    for axis, edges in enumerate(sequences, 1):
        last = np.minimum(edges[1:] - (not options["overlapping"]), x.shape[axis] - 1)
        positions = edges[:-1, None] + np.arange(np.max(last - edges[:-1]) + 1)
        inside = positions <= last[:, None]
        regions = tf.gather(pooled, np.where(inside, positions, last[:, None]), axis=axis)
        if op.type == "FractionalMaxPool":
            pooled = tf.reduce_max(regions, axis + 1)
            continue
        shares = np.reshape(
            inside / inside.sum(1, keepdims=True), [*inside.shape, *[1] * (3 - axis)]
        )
        pooled = tf.reduce_sum(regions * tf.constant(shares, x.dtype), axis + 1)
    return [pooled, *map(tf.constant, sequences)]

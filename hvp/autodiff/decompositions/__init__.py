"""Operations that are replaced by others, with the same values and right or faster derivatives.

- Max pooling over windows that do not overlap is the average pooling of the winners: linear in x
  with constant coefficients. TensorFlow's own MaxPoolGrad is slow, its MaxPoolGradGrad slower, and
  XLA refuses the latter.
- Volumes in float64, for which TensorFlow has no kernels, are pooled plane by plane and then along
  the depth.
- Max pooling to the same shape is a padding and a pooling to a smaller shape. The kernels
  MaxPoolGradGrad and MaxPool3DGradGrad work in place where the shapes agree, and read entries that
  they have already overwritten (TensorFlow 2.21): Hv through such a layer is wrong by half.
- A grouped convolution is one convolution for each group, and a depthwise one where each group is
  one channel. TensorFlow has no CPU kernels for its gradient (Conv2D) or none at all (Conv3D);
  Keras itself runs it by XLA alone.
- A batch of matrices times one matrix is one matrix product. TensorFlow's gradient would repeat the
  matrix for each of the batch and sum the results. Outer products are entrywise products.
- A product with the transpose of a large matrix is the transpose of a product with the matrix.
- A bias is added, and its gradient summed, by operations without an attribute for the layout of
  channels.
- Select between tensors of one shape is SelectV2, which broadcasts.
- Softsign is a quotient, which has second derivatives.
- Einsum of two operands is one batched matrix product between transpositions. The transposition of
  a known operand is computed once for all products.

What is more than a few lines has a module: `products`, `segments`, `powers`, `determinants` and
`cross_entropy` are right where TensorFlow's derivatives are not, and so is the projection in
`images`; the rest of `images`, `colours`, `pooling`, `normalisation` and `ctc` have second
derivatives where TensorFlow has none. `quantisation` takes steps for the identity, as training
does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from hvp.autodiff.decompositions import (
    colours,
    cross_entropy,
    ctc,
    determinants,
    images,
    normalisation,
    pooling,
    powers,
    products,
    quantisation,
    segments,
)

# From so many entries on a matrix is not transposed.
LARGE_MATRIX_ENTRIES = 1 << 18

Substitute = Callable[..., "tf.Tensor | list[tf.Tensor] | None"]


def substitute(op: tf.Operation, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor] | None:
    """The results of the operation by other operations, None where it has no substitute."""
    rule = SUBSTITUTES.get(op.type)
    result = None if rule is None else rule(op, *inputs)
    return result if result is None or isinstance(result, list) else [result]


def custom_function(op: tf.Operation) -> Callable[..., tf.Tensor] | None:
    """What computes a function of TensorFlow with a custom gradient anew, with derivatives.

    It takes the results and the arguments of the function, which are the inputs of `op`. TensorFlow
    opens a name scope for the function.
    """
    found = [CUSTOM_FUNCTIONS.get(re.sub(r"_\d+$", "", scope)) for scope in op.name.split("/")]
    return next((function for function in found if function is not None), None)


def _pool_volume(op: tf.Operation, x: tf.Tensor) -> tf.Tensor | None:
    """Pooling in float64 of the planes, then along the depth: a mean of means, a max of maxima."""
    if x.dtype != tf.float64 or op.get_attr("data_format") != b"NDHWC":
        return None if op.type == "AvgPool3D" else _max_pool(op, x)
    pool = tf.nn.avg_pool2d if op.type == "AvgPool3D" else _max_pool_plane
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


def _max_pool(op: tf.Operation, x: tf.Tensor) -> tf.Tensor | None:
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
        return grad(orig_input=constant, orig_output=highest, grad=each, **windows)

    def mean(t: tf.Tensor) -> tf.Tensor:
        return average(**{"input" if volume else "value": t}, **windows)

    ones = tf.ones_like(highest)
    # MaxPool3DGrad counts all entries that equal the maximum: each gets an equal share.
    weights = 1 / mean(spread(ones)) if volume else ones * float(np.prod(windows["ksize"]))
    # Entries that lose contribute zero, even if they are infinite, as those of masks are.
    return mean(tf.math.multiply_no_nan(x, tf.stop_gradient(spread(weights))))


def _pool_to_smaller_shape(op: tf.Operation, x: tf.Tensor) -> tf.Tensor:
    sizes = op.get_attr("ksize")
    paddings = [[(size - 1) // 2, size // 2] for size in sizes]
    if op.get_attr("padding") == b"EXPLICIT":
        paddings = np.reshape(op.get_attr("explicit_paddings"), (-1, 2)).tolist()
    return getattr(tf.raw_ops, op.type)(
        input=tf.pad(x, paddings, constant_values=x.dtype.min),
        ksize=sizes,
        strides=op.get_attr("strides"),
        padding="VALID",
        data_format=op.get_attr("data_format"),
        name=op.name,
    )


def _max_pool_with_argmax(op: tf.Operation, x: tf.Tensor) -> list[tf.Tensor] | None:
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


def _convolution(op: tf.Operation, x: tf.Tensor, filters: tf.Tensor) -> tf.Tensor | None:
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


def _matmul(op: tf.Operation, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor | None:
    """x yᵀ as (y xᵀ)ᵀ where y is large, since TensorFlow is slow to transpose it."""
    if op.get_attr("transpose_a") or not op.get_attr("transpose_b"):
        return None
    if not (x.shape.is_fully_defined() and y.shape.is_fully_defined()):
        return None
    rows, columns = x.shape[0], y.shape[0]
    if y.shape.num_elements() < max(LARGE_MATRIX_ENTRIES, x.shape.num_elements() + rows * columns):
        return None
    return tf.transpose(tf.matmul(y, tf.transpose(x)))


def _batch_matmul(op: tf.Operation, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor | None:
    if not (x.shape.is_fully_defined() and y.shape.is_fully_defined()):
        return None
    adjoint_x, adjoint_y = op.get_attr("adj_x"), op.get_attr("adj_y")
    if (x.dtype.is_complex and (adjoint_x or adjoint_y)) or 0 in (*x.shape, *y.shape):
        return None
    rows, inner = (x.shape[-1], x.shape[-2]) if adjoint_x else x.shape[-2:]
    columns = y.shape[-2] if adjoint_y else y.shape[-1]
    if inner == 1:
        x = tf.reshape(x, [*x.shape[:-2], rows, 1])
        return x * tf.reshape(y, [*y.shape[:-2], 1, columns])
    if adjoint_x or len(x.shape) < max(3, len(y.shape)) or any(n > 1 for n in y.shape[:-2]):
        return None
    result = tf.matmul(
        tf.reshape(x, [-1, inner]), tf.reshape(y, y.shape[-2:]), transpose_b=adjoint_y
    )
    return tf.reshape(result, [*x.shape[:-1], columns])


def _bias_add(op: tf.Operation, x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor | None:
    return x + bias if op.get_attr("data_format") == b"NHWC" else None


def _bias_add_grad(op: tf.Operation, x: tf.Tensor) -> tf.Tensor | None:
    if op.get_attr("data_format") != b"NHWC" or x.shape.rank is None:
        return None
    return tf.reduce_sum(x, list(range(x.shape.rank - 1)))


def _einsum(op: tf.Operation, *operands: tf.Tensor) -> tf.Tensor | None:
    """One batched matrix product between transpositions."""
    equation = op.get_attr("equation").decode()
    terms, _, result = equation.partition("->")
    if len(operands) != 2 or "." in equation or "->" not in equation:
        return None
    (x, y), (a, b) = operands, terms.split(",")
    if not (x.shape.is_fully_defined() and y.shape.is_fully_defined()):
        return None
    sizes = dict(zip(a + b, (*x.shape, *y.shape), strict=True))
    shared = [c for c in a if c in b and c in result]
    summed = [c for c in a if c in b and c not in result]
    left, right = ([c for c in t if c not in a or c not in b] for t in (a, b))
    has_diagonal = any(len(set(t)) < len(t) for t in (a, b, result))
    if has_diagonal or set(shared + left + right) != set(result):
        return None

    def size(labels: Sequence[str]) -> int:
        return int(np.prod([sizes[c] for c in labels]))

    def matrices(t: tf.Tensor, labels: str, rows: list[str], columns: list[str]) -> tf.Tensor:
        order = [labels.index(c) for c in shared + rows + columns]
        t = tf.transpose(t, order) if order != sorted(order) else t
        return tf.reshape(t, [*([size(shared)] if shared else []), size(rows), size(columns)])

    product = tf.matmul(matrices(x, a, left, summed), matrices(y, b, summed, right))
    axes = shared + left + right
    product = tf.reshape(product, [sizes[c] for c in axes])
    order = [axes.index(c) for c in result]
    return tf.transpose(product, order) if order != sorted(order) else product


def _softsign(op: tf.Operation, x: tf.Tensor) -> tf.Tensor:
    return x / (1 + tf.abs(x))


def _select(op: tf.Operation, condition: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor | None:
    return tf.where(condition, x, y) if condition.shape == x.shape else None


# Those that `hvp.passes.simplify` writes out: the operations of their results have no substitutes.
LINEAR_ALGEBRA: dict[str, Substitute] = {
    "BatchMatMulV2": _batch_matmul,
    "BiasAdd": _bias_add,
    "BiasAddGrad": _bias_add_grad,
    "Einsum": _einsum,
    "MatMul": _matmul,
    "Select": _select,
}
SUBSTITUTES: dict[str, Substitute] = {
    "MaxPool": _max_pool,
    **dict.fromkeys(["AvgPool3D", "MaxPool3D"], _pool_volume),
    **dict.fromkeys(["Conv2D", "Conv3D"], _convolution),
    "MaxPoolWithArgmax": _max_pool_with_argmax,
    **dict.fromkeys(
        ["ResizeArea", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor"], images.resize
    ),
    "ScaleAndTranslate": images.scale_and_translate,
    "CropAndResize": images.crop_and_resize,
    **dict.fromkeys(
        ["ImageProjectiveTransformV2", "ImageProjectiveTransformV3"], images.projective
    ),
    "AdjustContrastv2": colours.adjust_contrast,
    "AdjustHue": colours.adjust_hue,
    "AdjustSaturation": colours.adjust_saturation,
    "HSVToRGB": colours.hsv_to_rgb,
    **dict.fromkeys(["FractionalAvgPool", "FractionalMaxPool"], pooling.fractional),
    **dict.fromkeys(
        [f"FakeQuantWithMinMax{what}" for what in ("Args", "Vars", "VarsPerChannel")],
        quantisation.fake_quantise,
    ),
    "QuantizeAndDequantizeV4": quantisation.quantise,
    "Softsign": _softsign,
    "Prod": products.prod,
    "Cumprod": products.cumprod,
    **dict.fromkeys(
        ["SegmentMax", "SegmentMin", "UnsortedSegmentMax", "UnsortedSegmentMin"], segments.extreme
    ),
    "SegmentMean": segments.mean,
    **dict.fromkeys(["SegmentProd", "UnsortedSegmentProd"], segments.product),
    **dict.fromkeys(
        [
            f"SparseSegment{what}{number}"
            for what in ("Mean", "SqrtN", "Sum")
            for number in ("", "WithNumSegments")
        ],
        segments.sparse,
    ),
    "Pow": powers.power,
    "Xlogy": powers.xlogy,
    "Xlog1py": powers.xlog1py,
    "Xdivy": powers.xdivy,
    "MatrixDeterminant": determinants.determinant,
    "LRN": normalisation.local_response,
    "FusedBatchNormV3": normalisation.fused_batch_norm,
    "FusedBatchNormGradV3": normalisation.fused_batch_norm_grad,
    "SoftmaxCrossEntropyWithLogits": cross_entropy.softmax_cross_entropy,
    "CTCLoss": ctc.ctc_loss,
    **LINEAR_ALGEBRA,
}
CUSTOM_FUNCTIONS: dict[str, Callable[..., tf.Tensor]] = {"ctc_loss_dense": ctc.dense}

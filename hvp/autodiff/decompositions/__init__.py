"""Operations that are replaced by others, with the same values and right or faster derivatives.

`products`, `segments`, `powers`, `logarithms`, `determinants`, `special_functions`, `cross_entropy`
and the projections in `images` are right where TensorFlow's derivatives are not, `spectra` at any
scale; `norms` is infinite where no derivative exists. `pooling`, `volumes`, `convolutions`,
`indexing`, `sparse`, `images`, `colours`, `normalisation`, `ctc` and `fourier` have second
derivatives where TensorFlow has none.
`quantisation` takes steps for the identity, as training does. `matrix_products` is faster. Three
are a line each: Select between tensors of one shape is SelectV2, which broadcasts; Softsign is a
quotient, which has second derivatives, and so is its gradient; Elu has the derivatives of x at
zero, which TensorFlow takes from another side in each version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from hvp.autodiff.decompositions import (
    colours,
    convolutions,
    cross_entropy,
    ctc,
    determinants,
    fourier,
    images,
    indexing,
    logarithms,
    matrix_products,
    normalisation,
    norms,
    pooling,
    powers,
    products,
    quantisation,
    segments,
    sparse,
    special_functions,
    spectra,
    volumes,
)
from hvp.autodiff.tensorflow_private import custom_gradient

Substitute = Callable[..., "tf.Tensor | list[tf.Tensor] | None"]


def substitute(op: tf.Operation, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor] | None:
    """The results of the operation by other operations, None where it has no substitute."""
    rule = SUBSTITUTES.get(op.type)
    result = None if rule is None else rule(op, *inputs)
    return result if result is None or isinstance(result, list) else [result]


def custom_function(op: tf.Operation) -> Callable[..., tf.Tensor] | None:
    """What computes a function of TensorFlow with a custom gradient anew, with derivatives.

    It takes the results and the arguments of the function, which are the inputs of `op`.
    """
    return CUSTOM_FUNCTIONS.get(custom_gradient(op) or "")


def _elu(op: tf.Operation, x: tf.Tensor) -> tf.Tensor:
    return tf.where(x < 0, tf.math.expm1(tf.minimum(x, 0)), x)


def _softsign(op: tf.Operation, x: tf.Tensor) -> tf.Tensor:
    return x / (1 + tf.abs(x))


def _softsign_gradient(op: tf.Operation, upstream: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return upstream / (1 + tf.abs(x)) ** 2


def _select(op: tf.Operation, condition: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor | None:
    return tf.where(condition, x, y) if condition.shape == x.shape else None


# Those that `hvp.passes.simplify` writes out: the operations of their results have no substitutes.
LINEAR_ALGEBRA: dict[str, Substitute] = {
    "BatchMatMulV2": matrix_products.batch_matmul,
    "BiasAdd": matrix_products.bias_add,
    "BiasAddGrad": matrix_products.bias_add_grad,
    "Einsum": matrix_products.einsum,
    "MatMul": matrix_products.matmul,
    "Select": _select,
}
SUBSTITUTES: dict[str, Substitute] = {
    "MaxPool": pooling.max_pool,
    **dict.fromkeys(["AvgPool3D", "MaxPool3D"], pooling.pool_volume),
    "MaxPoolGrad": pooling.max_pool_grad,
    "MaxPool3DGrad": volumes.max_pool_grad,
    "AvgPool3DGrad": volumes.average_pool_grad,
    **dict.fromkeys(["Conv2D", "Conv3D"], convolutions.convolution),
    **dict.fromkeys(
        ["Conv2DBackpropInput", "Conv3DBackpropInputV2"], convolutions.transposed_convolution
    ),
    **dict.fromkeys(
        ["Conv2DBackpropFilter", "Conv3DBackpropFilterV2"], convolutions.filter_gradient
    ),
    "MaxPoolWithArgmax": pooling.max_pool_with_argmax,
    **dict.fromkeys(
        ["ResizeArea", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor"], images.resize
    ),
    **dict.fromkeys(
        ["ResizeBicubicGrad", "ResizeBilinearGrad", "ResizeNearestNeighborGrad"],
        images.resize_gradient,
    ),
    "ScaleAndTranslateGrad": images.scale_and_translate_gradient,
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
    "Elu": _elu,
    "Softsign": _softsign,
    "SoftsignGrad": _softsign_gradient,
    "Prod": products.prod,
    "Cumprod": products.cumprod,
    **dict.fromkeys(
        ["SegmentMax", "SegmentMin", "UnsortedSegmentMax", "UnsortedSegmentMin"], segments.extreme
    ),
    "SegmentMean": segments.mean,
    "DenseBincount": indexing.bincount,
    "OneHot": indexing.one_hot,
    "XlaDynamicUpdateSlice": indexing.update_slice,
    "SparseAdd": sparse.add,
    "SparseSoftmax": sparse.softmax,
    **dict.fromkeys(["SegmentProd", "UnsortedSegmentProd"], segments.product),
    **dict.fromkeys(
        [
            f"SparseSegment{what}{number}"
            for what in ("Mean", "SqrtN", "Sum")
            for number in ("", "WithNumSegments")
        ],
        segments.sparse,
    ),
    **dict.fromkeys(
        ["BesselI0", "BesselI0e", "BesselI1", "BesselI1e", "BesselJ0", "BesselJ1"],
        special_functions.bessel,
    ),
    "Spence": special_functions.spence,
    "CumulativeLogsumexp": logarithms.cumulative_logsumexp,
    "ComplexAbs": norms.complex_abs,
    "Pow": powers.power,
    "Xlogy": powers.xlogy,
    "Xlog1py": powers.xlog1py,
    "Xdivy": powers.xdivy,
    "MatrixDeterminant": determinants.determinant,
    "LogMatrixDeterminant": determinants.log_determinant,
    "Cholesky": determinants.cholesky,
    "SelfAdjointEigV2": spectra.eigh,
    "Svd": spectra.svd,
    **dict.fromkeys(["RFFT", "RFFT2D", "RFFT3D"], fourier.real),
    **dict.fromkeys(["IRFFT", "IRFFT2D", "IRFFT3D"], fourier.inverse_real),
    "LRN": normalisation.local_response,
    "FusedBatchNormV3": normalisation.fused_batch_norm,
    "FusedBatchNormGradV3": normalisation.fused_batch_norm_grad,
    "SoftmaxCrossEntropyWithLogits": cross_entropy.softmax_cross_entropy,
    "CTCLoss": ctc.ctc_loss,
    **LINEAR_ALGEBRA,
}
# By the function that computes the gradient: names of scopes are the user's.
CUSTOM_FUNCTIONS: dict[str, Callable[..., tf.Tensor]] = {
    "tensorflow.python.ops.ctc_ops.ctc_loss_dense.<locals>.compute_ctc_loss.<locals>.grad": (
        ctc.dense
    )
}

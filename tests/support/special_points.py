"""Smooth functions at points where TensorFlow's derivatives of their operations fail.

`CASES` has a function and its point by name; `SPECIAL_POINTS` the operations that they hold.
"""

import math

import keras
import numpy as np
import tensorflow as tf

rng = np.random.default_rng(0)
ROWS = np.array([[0.0, 1.2], [0.7, -0.4], [0.0, 0.9], [1.1, 0.0]])
IDS = np.array([0, 0, 2, 2])
UNSORTED = np.array([3, 0, 3, -1])
IMAGE = rng.normal(size=(1, 4, 5, 3))
LARGE_IMAGE = rng.normal(size=(1, 6, 6, 2))
# Pixels whose channels differ by more than the steps of differences.
COLOURS = np.array([[[[0.2, 0.5, 0.8], [0.9, 0.3, 0.6], [0.4, 0.7, 0.1], [0.6, 0.2, 0.9]]]])
BOXES = [[0.12, 0.13, 0.81, 0.92], [0.01, 0.27, 0.98, 1.13]]
SYMMETRIC = np.array([[1.0, 2.0, 0.5], [2.0, 4.0, 1.0], [0.3, -1.0, 2.0]])
WEIGHTS = tf.constant(rng.normal(size=64))


def mixed(values):
    """A smooth function with second derivatives in all values, the same weights each time."""
    flat = tf.reshape(values, [-1])
    return tf.reduce_sum(tf.sin(flat + WEIGHTS[: flat.shape[0] or tf.size(flat)]) * flat)


def fused(images):
    """Batch normalisation of images as one operation of TensorFlow, in training."""
    scale, offset = tf.constant([1.0, 2.0, 0.5]), tf.constant([0.0, 0.1, 0.2])
    return tf.compat.v1.nn.fused_batch_norm(images, scale, offset)[0]


def fused_penalty(images):
    """A gradient penalty through fused batch normalisation."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        value = tf.reduce_sum(tf.sin(fused(images)))
    return tape.gradient(value, images)


def slopes(pool):
    """A function that has the derivatives of a pooling in its value."""

    def penalised(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(pool(x) ** 3)
        return tape.gradient(value, x)

    return penalised


def labelling(logits):
    """The losses of two sequences of logits, (T, 2, C), given their labels."""
    return tf.raw_ops.CTCLoss(
        inputs=logits,
        labels_indices=tf.constant([[0, 0], [0, 1], [1, 0], [1, 1]], tf.int64),
        labels_values=tf.constant([1, 2, 2, 2]),
        sequence_length=tf.constant([4, 5]),
    ).loss


def norm(w):
    return tf.norm(w, axis=1, keepdims=True)


def complex_of(w):
    return tf.complex(w[:, 0], w[:, 1])


def far_from_zero(w):
    """A quotient that is chosen where w is not zero, and its Taylor polynomial elsewhere."""
    series = sum(w**k / math.factorial(k + 1) for k in range(12))
    return tf.where(tf.abs(w) > 0.05, (tf.exp(w) - 1) / w, series)


# Rows, one of which is zero; pairs, one of which is equal.
NORMS = np.array([[0.0, 0.0], [0.3, -0.4], [0.0, 0.2]])
PAIRS = np.array([[1.0, 1.0], [0.3, -0.4], [-2.0, -2.0]])
ROOTS = {
    "squared norm": lambda w: tf.norm(w, axis=1) ** 2,
    "square of a norm": lambda w: tf.square(norm(w)),
    "squared norm without its axis": lambda w: tf.pow(tf.squeeze(norm(w)), 2.0),
    "norm times norm": lambda w: norm(w) * norm(w),
    "norms gathered, scaled and negated": lambda w: (-tf.gather(norm(w), [0, 2, 0]) / 3) ** 2,
    "norms joined": lambda w: tf.concat([norm(w), norm(w[:, :1])], 1) ** 2,
    "square of a root": lambda w: tf.sqrt(tf.reduce_sum(w * w, 1)) ** 2,
    "square of a power of one half": lambda w: tf.pow(tf.reduce_sum(w * w, 1), 0.5) ** 2,
    "reciprocal root": lambda w: tf.math.rsqrt(tf.reduce_sum(w * w, 1)) ** -2,
    "fourth power of a root of an absolute value": lambda w: tf.sqrt(tf.abs(w)) ** 4,
    "squared absolute values": lambda w: tf.abs(w) ** 2,
    "Euclidean norm": lambda w: tf.math.reduce_euclidean_norm(w, 1) ** 2,
    "squared absolute values of complex numbers": lambda w: tf.abs(complex_of(w)) ** 2,
    "power spectrum": lambda w: tf.square(tf.abs(tf.signal.rfft(tf.transpose(w)))),
}
TIES = {
    "logaddexp": lambda w: keras.ops.logaddexp(w[:, 0], w[:, 1]),
    "logaddexp, swapped": lambda w: (
        tf.maximum(w[:, 0], w[:, 1]) + tf.math.log1p(tf.exp(-tf.abs(w[:, 1] - w[:, 0])))
    ),
    "logaddexp2": lambda w: keras.ops.logaddexp2(w[:, 0], w[:, 1]),
    "weighted cross-entropy": lambda w: tf.nn.weighted_cross_entropy_with_logits(
        0.3 * tf.ones_like(w), w - 1, 3.0
    ),
    "softplus by relu": lambda w: tf.nn.relu(w - 1) + tf.math.log(1 + tf.exp(-tf.abs(w - 1))),
    "cross-entropy by maximum": lambda w: (
        tf.maximum(w - 1, 0.0) - 0.3 * w + tf.math.log1p(tf.exp(-tf.abs(w - 1)))
    ),
    "log of a sigmoid by minimum": lambda w: (
        tf.minimum(w - 1, 0.0) - tf.math.softplus(-tf.abs(w - 1))
    ),
    "log cosh": lambda w: tf.abs(w - 1) + tf.math.log1p(tf.exp(-2 * tf.abs(w - 1))),
    "logsumexp": lambda w: tf.reduce_logsumexp(w, 1),
    "variance by its root": lambda w: tf.math.reduce_std(w, 1) ** 2,
}
BRANCHES = {
    "unchosen logarithm": lambda w: tf.where(w > 0.25, tf.math.log(w), w),
    "unchosen quotient": lambda w: tf.where(tf.abs(w) < 0.1, w, 1 / w),
    "unchosen quotient by Taylor": far_from_zero,
    "unchosen unit vector": lambda w: tf.where(norm(w) > 0.1, w / norm(w), w),
    "unchosen overflow": lambda w: tf.where(w < 0.1, w, tf.exp(0.1 / w)),
    "unchosen reciprocal root": lambda w: (
        w * tf.minimum(tf.math.rsqrt(tf.reduce_sum(w**2, 1, keepdims=True)), 3.0)
    ),
    "unchosen root": lambda w: tf.maximum(tf.sqrt(tf.reduce_sum(w**2, 1)), 0.1),
    "unchosen arc": lambda w: tf.where(w < 0.1, w, tf.acos(1 - w)),
}
SPECIAL_FUNCTIONS = {
    "prefix logsumexp": lambda w: tf.math.cumulative_logsumexp(w) ** 2,
    "prefix logsumexp, exclusive, reversed": lambda w: (
        tf.math.cumulative_logsumexp(w, 0, exclusive=True, reverse=True)[:2] ** 2
    ),
    "Spence's function": lambda w: tf.math.special.spence(1 + w),
    "Bessel functions I": lambda w: tf.math.bessel_i0(w) + tf.math.bessel_i1(w),
    "scaled Bessel functions": lambda w: (
        tf.exp(tf.abs(w)) * (tf.math.bessel_i0e(w) + tf.math.bessel_i1e(w))
    ),
    "Bessel functions J": lambda w: tf.math.special.bessel_j0(w) + tf.math.special.bessel_j1(w),
    "powers by several exponents": lambda w: tf.pow(w[..., None], tf.range(5, dtype=tf.float64)),
}


def dense_labelling(logits):
    """The same with a matrix of labels, whose blank is the first class."""
    labels, sizes, lengths = [[1, 2, 0], [3, 3, 1]], [2, 2], [4, 5]
    return tf.nn.ctc_loss(tf.constant(labels), logits, sizes, lengths, blank_index=0)


def projected(images, fill_mode):
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=[[1.0, 0.2, 0.3, 0.1, 0.9, -0.2, 0.01, 0.002]],
        output_shape=[4, 5],
        fill_value=0.3,
        interpolation="BILINEAR",
        fill_mode=fill_mode,
    )


CASES = {
    "slopes of max pooling to the same shape": (
        lambda w: mixed(slopes(lambda x: tf.nn.max_pool2d(x, 2, 1, "SAME"))(w)),
        IMAGE,
    ),
    **{name: (lambda w, f=f: mixed(f(w)), NORMS) for name, f in ROOTS.items()},
    **{name: (lambda w, f=f: mixed(f(w)), PAIRS) for name, f in TIES.items()},
    **{name: (lambda w, f=f: mixed(f(w)), NORMS) for name, f in BRANCHES.items()},
    **{name: (lambda w, f=f: mixed(f(w)), NORMS) for name, f in SPECIAL_FUNCTIONS.items()},
    "eigenvalues": (lambda w: mixed(tf.linalg.eigvalsh(w + tf.transpose(w)) ** 2), SYMMETRIC),
    "singular values": (
        lambda w: mixed(tf.linalg.svd(w, compute_uv=False) ** 2),
        SYMMETRIC + np.eye(3),
    ),
    "mean square by its root": (lambda w: tf.sqrt(tf.reduce_mean(w * w)) ** 2, np.zeros(3)),
    "product with zeros": (tf.reduce_prod, np.array([0.0, 2.0, 3.0])),
    "product with two zeros": (tf.reduce_prod, np.array([0.0, 2.0, 0.0, 3.0])),
    "products along an axis": (lambda w: mixed(tf.reduce_prod(w, 0)), ROWS),
    "products along all axes": (lambda w: mixed(tf.reduce_prod(w, [1, 0], keepdims=True)), ROWS),
    "prefix products": (lambda w: mixed(tf.math.cumprod(w, 0)), ROWS),
    "prefix products, exclusive, reversed": (
        lambda w: mixed(tf.math.cumprod(w, 0, exclusive=True, reverse=True)),
        ROWS,
    ),
    "products of segments": (lambda w: mixed(tf.math.segment_prod(w, IDS)), ROWS),
    "products of unsorted segments": (
        lambda w: mixed(tf.math.unsorted_segment_prod(w, UNSORTED, 5)),
        ROWS,
    ),
    "means of segments, one empty": (lambda w: mixed(tf.math.segment_mean(w, IDS)), ROWS),
    "largest of segments, one empty": (lambda w: mixed(tf.math.segment_max(w, IDS)), ROWS),
    "smallest of segments, one empty": (lambda w: mixed(tf.math.segment_min(w, IDS)), ROWS),
    "largest of unsorted segments": (
        lambda w: mixed(tf.maximum(tf.math.unsorted_segment_max(w, UNSORTED, 5), -9.0)),
        ROWS + np.arange(4)[:, None] / 10,
    ),
    "means of sparse segments": (
        lambda w: mixed(tf.sparse.segment_mean(w, [0, 2, 1], [0, 0, 2], num_segments=4)),
        ROWS,
    ),
    "sums over roots of sparse segments": (
        lambda w: mixed(tf.sparse.segment_sqrt_n(w, [0, 2, 1], [0, 0, 1])),
        ROWS,
    ),
    "first power at zero": (lambda w: mixed(tf.pow(w, 1.0)), ROWS),
    "second power at zero": (lambda w: mixed(tf.pow(w, 2.0)), ROWS),
    "third power at zero": (lambda w: mixed(tf.pow(w, 3.0)), ROWS),
    "power minus two": (lambda w: mixed(tf.pow(w + 2, -2.0)), ROWS),
    "x log y at x = 0": (
        lambda w: tf.reduce_sum(tf.math.xlogy(w[:2], w[2:])),
        np.array([0.0, 0.5, 0.3, 1.7]),
    ),
    "x log(1 + y) at x = 0": (
        lambda w: tf.reduce_sum(tf.math.xlog1py(w[:2], w[2:])),
        np.array([0.0, 0.5, 0.3, 1.7]),
    ),
    "x/y at x = 0": (
        lambda w: tf.reduce_sum(tf.math.xdivy(w[:2], w[2:])),
        np.array([0.0, 0.5, 0.3, 1.7]),
    ),
    "cross-entropy of several labels": (
        lambda w: mixed(tf.nn.softmax_cross_entropy_with_logits([[1.0, 0, 1], [0, 0, 0]], w)),
        rng.normal(size=(2, 3)),
    ),
    "cross-entropy in its labels": (
        lambda w: mixed(tf.nn.softmax_cross_entropy_with_logits(w[:1], w[1:])),
        rng.normal(size=(2, 3)),
    ),
    "determinant of a singular matrix": (tf.linalg.det, SYMMETRIC),
    "determinant of zero": (tf.linalg.det, np.zeros((3, 3))),
    "local response normalisation": (
        lambda w: mixed(tf.cast(tf.nn.lrn(tf.cast(w, "float32"), 1, 1.0, 0.3, 0.6), "float64")),
        IMAGE,
    ),
    "fused batch normalisation": (
        lambda w: mixed(tf.cast(fused(tf.cast(w, "float32")), "float64")),
        IMAGE,
    ),
    "derivatives of fused batch normalisation": (
        lambda w: mixed(tf.cast(fused_penalty(tf.cast(w, "float32")), "float64")),
        IMAGE,
    ),
    "area resizing": (
        lambda w: mixed(tf.cast(tf.image.resize(w, [2, 3], "area"), "float64")),
        IMAGE,
    ),
    "resizing by a Lanczos kernel": (
        lambda w: mixed(tf.cast(tf.image.resize(w, [3, 7], "lanczos3"), "float64")),
        IMAGE,
    ),
    "labels of a sequence": (
        lambda w: mixed(tf.cast(labelling(tf.cast(w, "float32")), "float64")),
        rng.normal(size=(5, 2, 4)),
    ),
    "labels of a sequence, dense": (
        lambda w: mixed(tf.cast(dense_labelling(tf.cast(w, "float32")), "float64")),
        rng.normal(size=(5, 2, 4)),
    ),
    "means of fractional regions": (
        lambda w: mixed(tf.nn.fractional_avg_pool(w, [1, 1.44, 1.73, 1], seed=3)[0]),
        LARGE_IMAGE,
    ),
    "largest of fractional regions": (
        lambda w: mixed(tf.nn.fractional_max_pool(w, [1, 1.44, 1.73, 1], seed=3)[0]),
        LARGE_IMAGE,
    ),
    "crops, resized": (
        lambda w: mixed(tf.cast(tf.image.crop_and_resize(w, BOXES, [0, 0], [3, 3]), "float64")),
        IMAGE,
    ),
    "an image, projected": (lambda w: mixed(projected(w, "REFLECT")), IMAGE),
    "an image, projected over nothing": (lambda w: mixed(projected(w, "CONSTANT")), IMAGE),
    "colours of a hue": (lambda w: mixed(tf.image.hsv_to_rgb(w)), COLOURS),
    "colours with more contrast": (
        lambda w: mixed(tf.cast(tf.image.adjust_contrast(tf.cast(w, "float32"), 1.3), "float64")),
        COLOURS,
    ),
    "sums of sparse segments": (
        lambda w: mixed(
            tf.sparse.segment_sum(w, [0, 2, 1], [0, 0, 1])
            + tf.sparse.segment_sum(w, [0, 2, 1], [0, 0, 1], num_segments=2)
            + tf.sparse.segment_mean(w, [0, 2, 1], [0, 0, 1])
            + tf.sparse.segment_sqrt_n(w, [0, 2, 1], [0, 0, 1], num_segments=2)
        ),
        ROWS,
    ),
    "smallest of unsorted segments": (
        lambda w: mixed(tf.minimum(tf.math.unsorted_segment_min(w, UNSORTED, 5), 9.0)),
        ROWS + np.arange(4)[:, None] / 10,
    ),
    "pooling with positions": (
        lambda w: mixed(tf.nn.max_pool_with_argmax(w, 2, 2, "SAME")[0]),
        IMAGE,
    ),
}
FLOAT32_ALONE = {
    "local response normalisation",
    "fused batch normalisation",
    "derivatives of fused batch normalisation",
    "area resizing",
    "resizing by a Lanczos kernel",
    "labels of a sequence",
    "labels of a sequence, dense",
    "crops, resized",
    "an image, projected",
    "an image, projected over nothing",
    "colours with more contrast",
}
SPECIAL_POINTS = {
    "MaxPoolGrad",
    "BesselI0",
    "BesselI0e",
    "BesselI1",
    "BesselI1e",
    "BesselJ0",
    "BesselJ1",
    "ComplexAbs",
    "Spence",
    "CTCLoss",
    "Cumprod",
    "CumulativeLogsumexp",
    "AdjustContrastv2",
    "CropAndResize",
    "FractionalAvgPool",
    "FractionalMaxPool",
    "HSVToRGB",
    "ImageProjectiveTransformV3",
    "FusedBatchNormGradV3",
    "FusedBatchNormV3",
    "LRN",
    "MatrixDeterminant",
    "MaxPoolWithArgmax",
    "Pow",
    "Prod",
    "ResizeArea",
    "ScaleAndTranslate",
    "SegmentMax",
    "SegmentMean",
    "SegmentMin",
    "SegmentProd",
    "SelfAdjointEigV2",
    "SoftmaxCrossEntropyWithLogits",
    "SparseSegmentMean",
    "SparseSegmentMeanWithNumSegments",
    "SparseSegmentSqrtN",
    "SparseSegmentSqrtNWithNumSegments",
    "SparseSegmentSum",
    "SparseSegmentSumWithNumSegments",
    "Svd",
    "UnsortedSegmentMax",
    "UnsortedSegmentMin",
    "UnsortedSegmentProd",
    "Xdivy",
    "Xlog1py",
    "Xlogy",
}


def operations(function, point):
    """The types of the operations of a function."""
    concrete = tf.function(function, autograph=False).get_concrete_function(tf.constant(point))
    return {op.type for op in concrete.graph.get_operations()}

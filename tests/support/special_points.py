"""Smooth functions at points where TensorFlow's derivatives of their operations fail.

`CASES` has a function and its point by name; `SPECIAL_POINTS` the operations that they hold.
"""

import numpy as np
import tensorflow as tf

rng = np.random.default_rng(0)
ROWS = np.array([[0.0, 1.2], [0.7, -0.4], [0.0, 0.9], [1.1, 0.0]])
IDS = np.array([0, 0, 2, 2])
UNSORTED = np.array([3, 0, 3, -1])
IMAGE = rng.normal(size=(1, 4, 5, 3))
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


def labelling(logits):
    """The losses of two sequences of logits, (T, 2, C), given their labels."""
    return tf.raw_ops.CTCLoss(
        inputs=logits,
        labels_indices=tf.constant([[0, 0], [0, 1], [1, 0], [1, 1]], tf.int64),
        labels_values=tf.constant([1, 2, 2, 2]),
        sequence_length=tf.constant([4, 5]),
    ).loss


CASES = {
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
    "area resizing",
    "resizing by a Lanczos kernel",
    "labels of a sequence",
}
SPECIAL_POINTS = {
    "CTCLoss",
    "Cumprod",
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
    "SoftmaxCrossEntropyWithLogits",
    "SparseSegmentMean",
    "SparseSegmentMeanWithNumSegments",
    "SparseSegmentSqrtN",
    "SparseSegmentSqrtNWithNumSegments",
    "SparseSegmentSum",
    "SparseSegmentSumWithNumSegments",
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

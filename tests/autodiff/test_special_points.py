"""Operations at points where TensorFlow's registered derivatives are wrong, NaN or missing.

The oracle is the loss alone: central differences of its values, of fourth order, which share no
derivative with the code under test. Each function is smooth at its point.
"""

import numpy as np
import pytest
import tensorflow as tf

import hvp

STEP = 2e-3
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
    "pooling with positions": (
        lambda w: mixed(tf.nn.max_pool_with_argmax(w, 2, 2, "SAME")[0]),
        IMAGE,
    ),
}


def form_by_differences(loss, point, u, v):
    """uᵀHv from sixteen values of the loss alone; its error is of order STEP⁴."""
    weights = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
    run = tf.function(loss, autograph=False)
    return sum(
        a * b * float(run(tf.constant(point + STEP * (i * u + j * v)))) / STEP**2
        for i, a in weights.items()
        for j, b in weights.items()
    )


@pytest.mark.parametrize("ad", ["forward-over-reverse", "reverse-over-reverse"])
@pytest.mark.parametrize("name", CASES)
def test_curvature_is_that_of_the_values_of_the_loss(name, ad):
    loss, point = CASES[name]
    lin = hvp.linearize_function(loss, point, ad=ad, jit=False)
    V = np.random.default_rng(1).normal(size=(point.size, 2))
    products = np.stack([lin.hvp(v) for v in V.T], axis=1)
    u, v = V.T.reshape(2, *point.shape)
    expected = [form_by_differences(loss, point, u, w) for w in (u, v)]
    size = np.linalg.norm(V[:, 0]) * np.linalg.norm(products, axis=0).max()
    np.testing.assert_allclose(V[:, 0] @ products, expected, atol=1e-6 * max(size, 1))
    assert V[:, 0] @ products[:, 1] == pytest.approx(V[:, 1] @ products[:, 0], abs=1e-11 * size)

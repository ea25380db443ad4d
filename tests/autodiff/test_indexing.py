"""Dilated convolutions, sparse sums, and numbers that are placed by index.

Values are against NumPy, and second derivatives against differences of its complex steps.
"""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import relative
from support.programs import drawn, spec

import hvp
from hvp.autodiff.tracing import trace

TINY, STEP = 1e-30, 1e-4


def hessian(loss, w):
    """(P, P) central differences of gradients by complex steps, to fourth order."""
    basis = np.eye(w.size).reshape(w.size, *w.shape)

    def gradient(at):
        return np.array([loss(at + 1j * TINY * e).imag / TINY for e in basis])

    def along(e):
        ahead, behind = (gradient(w + STEP * e), gradient(w - STEP * e))
        further = gradient(w + 2 * STEP * e) - gradient(w - 2 * STEP * e)
        return (8 * (ahead - behind) - further) / (12 * STEP)

    return np.stack([along(e) for e in basis], 1)


def assert_twice_differentiable(function, oracle, w):
    """Σ a sin f(w) in hvp and, with f in NumPy, by differences."""
    value = oracle(w)
    weights = 1.0 + np.arange(value.size).reshape(value.shape) % 3
    got = trace(function, spec(*w.shape)).replay(tf.constant(w))
    assert relative(got.numpy(), value) < 1e-12
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(weights * tf.sin(function(w))), w)
    expected = hessian(lambda w: np.sum(weights * np.sin(oracle(w))), w)
    assert relative(lin.hvp(np.eye(w.size)), expected) < 1e-8


# --- dilated convolutions ---


def convolved(x, filters, *, stride=1, rates=(2, 2), paddings=((0, 0), (0, 0))):
    """A convolution of one group by a loop over the entries of the filters."""
    x = np.pad(x, [(0, 0), *paddings, (0, 0)])
    lengths = [(n - 1) * r + 1 for n, r in zip(filters.shape, rates, strict=False)]
    counts = [(n - length) // stride + 1 for n, length in zip(x.shape[1:-1], lengths, strict=True)]
    result = 0
    for index in itertools.product(*map(range, filters.shape[:-2])):
        window = tuple(
            slice(i * rate, i * rate + stride * (count - 1) + 1, stride)
            for i, rate, count in zip(index, rates, counts, strict=True)
        )
        result = result + x[(slice(None), *window)] @ filters[index]
    return result


PADDED = ((2, 2), (2, 2))
DILATED = {
    "valid": ({"padding": "VALID"}, {}),
    "same": ({"padding": "SAME"}, {"paddings": PADDED}),
    "by hand": (
        {"padding": [[0, 0], [1, 0], [0, 2], [0, 0]]},
        {"paddings": ((1, 0), (0, 2))},
    ),
    "strided": ({"padding": "VALID", "strides": 2}, {"stride": 2}),
    "along one axis": ({"padding": "VALID", "dilations": (1, 3)}, {"rates": (1, 3)}),
}


@pytest.mark.parametrize(("options", "expected"), DILATED.values(), ids=DILATED)
def test_a_dilated_convolution_in_its_filters_and_in_its_input(options, expected):
    x, filters = drawn(1, 7, 7, 1), drawn(3, 3, 1, 1, seed=1)
    options = {"strides": 1, "dilations": 2} | options
    assert_twice_differentiable(
        lambda w: tf.nn.conv2d(x, w, **options), lambda w: convolved(x, w, **expected), filters
    )
    image = drawn(1, 7, 7, 1)
    assert_twice_differentiable(
        lambda w: tf.nn.conv2d(tf.pad(w, [[0, 0], [0, 5], [0, 5], [0, 0]]) + image, filters,
                               **options),
        lambda w: convolved(
            np.pad(w, [(0, 0), (0, 5), (0, 5), (0, 0)]) + image, filters, **expected
        ),
        drawn(1, 2, 2, 1),
    )  # fmt: skip


def test_a_dilated_convolution_of_groups():
    x, w = drawn(1, 5, 5, 4), drawn(2, 2, 2, 2)
    assert_twice_differentiable(
        lambda w: tf.nn.conv2d(x, w, 1, "VALID", dilations=2),
        lambda w: np.concatenate(
            [convolved(x[..., :2], w[..., :1]), convolved(x[..., 2:], w[..., 1:])], -1
        ),
        w,
    )


def test_a_dilated_convolution_of_volumes():
    x, w = drawn(1, 3, 4, 3, 1), drawn(2, 2, 2, 1, 1)
    assert_twice_differentiable(
        lambda w: tf.nn.conv3d(x, w, [1] * 5, "VALID", dilations=[1, 2, 2, 2, 1]),
        lambda w: convolved(x, w, rates=(2, 2, 2), paddings=((0, 0),) * 3),
        w,
    )


def test_a_dilated_convolution_transposed():
    y, w = drawn(1, 2, 2, 1), drawn(2, 2, 1, 1)

    def transposed(w):
        """The inner products with the convolutions of the unit images."""
        units = np.eye(16).reshape(16, 4, 4, 1)
        return np.sum(convolved(units, w) * y, axis=(1, 2, 3)).reshape(1, 4, 4, 1)

    assert_twice_differentiable(
        lambda w: tf.nn.conv2d_transpose(y, w, [1, 4, 4, 1], 1, "VALID", dilations=2), transposed, w
    )


def test_a_penalty_on_the_gradient_of_a_dilated_convolution():
    """Its gradient in the filters is a sum of products of images, and one in the image."""
    x, w = drawn(1, 4, 4, 1), drawn(2, 2, 1, 1)

    def slope(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = tf.reduce_sum(tf.nn.conv2d(x, w, 1, "VALID", dilations=2) ** 2)
        return tape.gradient(value, w)

    def oracle(w):
        y = convolved(x, w)
        windows = [x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] for i in (0, 1) for j in (0, 1)]
        return np.array([2 * np.sum(window * y) for window in windows]).reshape(w.shape)

    assert_twice_differentiable(slope, oracle, w)


def test_a_transposed_layer_of_keras_with_dilation():
    model = keras.Sequential(
        [
            keras.Input((3, 3, 1), dtype="float64"),
            keras.layers.Conv2DTranspose(2, 2, dilation_rate=2, activation="tanh", dtype="float64"),
        ]
    )
    data = drawn(2, 3, 3, 1), drawn(2, 5, 5, 2)
    lin = hvp.linearize(model, data, keras.losses.MeanSquaredError(dtype="float64"), verify=True)
    assert lin.certificate.passed
    assert lin.certificate.Hv.error is not None


# --- numbers placed by index ---


def test_one_hot_rows_of_parameters():
    ids = np.array([0, 2, 5, 2])  # 5 is outside
    hot = np.eye(4)[[0, 2, 3, 2]] * [1, 1, 1, 0]
    assert_twice_differentiable(
        lambda w: tf.one_hot(ids, 4, on_value=w[0], off_value=w[1] * w[0], axis=0),
        lambda w: (hot * w[0] + (1 - hot) * w[1] * w[0]).T,
        drawn(2),
    )


def test_one_hot_rows_of_constants_are_left_alone():
    program = trace(lambda w: tf.one_hot([0, 1], 2, dtype=tf.float64) * w, spec(2, 2))
    graph = tf.function(program.replay).get_concrete_function(spec(2, 2)).graph
    assert "SelectV2" not in [op.type for op in graph.get_operations()]


@pytest.mark.parametrize("maxlength", [None, 4])
def test_counts_with_weights(maxlength):
    ids = np.array([0, 1, 1, 2, 5])

    def counted(w):
        sums = np.zeros(6, w.dtype)
        np.add.at(sums, ids, w**2)
        return sums[:maxlength]

    assert_twice_differentiable(
        lambda w: tf.math.bincount(ids, weights=w**2, maxlength=maxlength), counted, drawn(5)
    )


def test_counts_with_weights_by_row():
    ids = np.array([[0, 1, 1], [2, 0, 3]])

    def counted(w):
        sums = np.zeros((2, 3), w.dtype)
        for i, j in itertools.product(range(2), range(3)):
            if ids[i, j] < 3:
                sums[i, ids[i, j]] += w[i, j] ** 2
        return sums

    assert_twice_differentiable(
        lambda w: tf.math.bincount(ids, weights=w**2, maxlength=3, minlength=3, axis=-1),
        counted,
        drawn(2, 3),
    )


@pytest.mark.parametrize("start", [-1, 0, 1, 3, 9])
def test_a_block_is_replaced_and_kept_inside(start):
    def replaced(w):
        at = min(max(start, 0), 3)
        found = np.sin(w)
        found[at : at + 2, :2] = w[:2, 1:] ** 2
        return found

    assert_twice_differentiable(
        lambda w: keras.ops.slice_update(tf.sin(w), [start, 0], w[:2, 1:] ** 2),
        replaced,
        drawn(5, 3),
    )


# --- sparse tensors ---

INDICES = np.array([[0, 1], [1, 0], [1, 2]])
OTHERS = np.array([[0, 0], [1, 0], [2, 2]])


def dense(indices, values):
    found = np.zeros((3, 3), values.dtype)
    found[tuple(indices.T)] = values
    return found


def sparse(indices, values):
    return tf.sparse.SparseTensor(indices, values, [3, 3])


@pytest.mark.parametrize("threshold", [0, 0.5])
def test_a_sum_of_sparse_tensors(threshold):
    w = np.array([0.4, -0.6, 0.7])

    def added(w):
        found = dense(INDICES, w) + dense(OTHERS, w**2)
        if threshold > 0.24:
            found[1, 0] = 0  # the threshold is of entries that both have
        return found

    assert_twice_differentiable(
        lambda w: tf.sparse.to_dense(
            tf.sparse.add(sparse(INDICES, w), sparse(OTHERS, w**2), threshold)
        ),
        added,
        w,
    )


def test_a_sum_of_sparse_tensors_without_entries():
    def function(w):
        nothing = tf.reshape(w, [-1])[:0]
        none = tf.zeros([0, 2], tf.int64)
        return tf.sparse.to_dense(tf.sparse.add(sparse(none, nothing), sparse(none, nothing))) + w

    assert_twice_differentiable(function, lambda w: w, drawn(3, 3))


def test_the_softmax_of_a_sparse_tensor():
    w = np.array([0.5, 300.0, 300.7])

    def softmax(w):
        powers = np.exp(w[1:] - 300.0)
        return dense(INDICES, np.array([1, *powers / powers.sum()]))

    assert_twice_differentiable(
        lambda w: tf.sparse.to_dense(tf.sparse.softmax(sparse(INDICES, w))), softmax, w
    )

"""Dilated convolutions: values against loops, derivatives by differences of complex steps."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.derivatives import assert_twice_differentiable
from support.programs import drawn

import hvp


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

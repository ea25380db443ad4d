"""Matrix products counted from a program are those that its operations make."""

import numpy as np
import pytest
import tensorflow as tf

from hvp.autodiff import tracing
from hvp.passes.operation_count import MatrixProduct, matrix_products, multiply_adds


def counted(function, *shapes, dtypes=None):
    specs = [
        tf.TensorSpec(shape, dtype)
        for shape, dtype in zip(shapes, dtypes or [tf.float32] * len(shapes), strict=True)
    ]
    return matrix_products(tracing.trace(function, *specs))


def image(*shape):
    return tf.zeros(shape)


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (lambda a, b: a @ b, [(2, 3), (3, 5)], {(2, 3, 5): 1}),
        (lambda a, b: tf.matmul(a, b, transpose_a=True), [(3, 2), (3, 5)], {(2, 3, 5): 1}),
        (lambda a, b: tf.matmul(a, b, adjoint_b=True), [(4, 2, 3), (4, 5, 3)], {(2, 3, 5): 4}),
        (lambda a, b: a @ b, [(4, 1, 2, 3), (7, 3, 5)], {(2, 3, 5): 28}),
        (lambda a, b: tf.einsum("bij,jk->bik", a, b), [(4, 2, 3), (3, 5)], {(8, 3, 5): 1}),
        (lambda a, b: tf.einsum("bqhd,bkhd->bhqk", a, b), [(4, 2, 3, 5), (4, 7, 3, 5)],
         {(2, 5, 7): 12}),
        (lambda a, b: tf.einsum("...i,ij->...j", a, b), [(4, 2, 3), (3, 5)], {(8, 3, 5): 1}),
        (lambda a: tf.einsum("ij->ji", a), [(4, 2)], {}),
        (lambda a: tf.exp(a) + tf.reduce_sum(a), [(4, 2)], {}),
        # A filter of 3 x 2, 4 to 6 channels, on 9 x 8 places: padded, with a stride, in two groups.
        (lambda a, f: tf.nn.conv2d(a, f, 1, "SAME"), [(5, 9, 8, 4), (3, 2, 4, 6)],
         {(5 * 72, 24, 6): 1}),
        (lambda a, f: tf.nn.conv2d(a, f, 2, "VALID"), [(5, 9, 8, 4), (3, 2, 4, 6)],
         {(5 * 16, 24, 6): 1}),
        (lambda a, f: tf.nn.conv3d(a, f, [1] * 5, "SAME"), [(5, 3, 3, 3, 4), (2, 2, 2, 4, 6)],
         {(5 * 27, 32, 6): 1}),
        # Each of 4 channels by itself, 3 filters each.
        (lambda a, f: tf.nn.depthwise_conv2d(a, f, [1] * 4, "SAME"),
         [(5, 9, 8, 4), (3, 2, 4, 3)], {(5 * 72 * 4, 6, 3): 1}),
    ],
)  # fmt: skip
def test_products_are_counted_by_their_shapes(function, shapes, expected):
    assert counted(function, *shapes) == {MatrixProduct(*key): n for key, n in expected.items()}


@pytest.mark.parametrize("convolve", [tf.nn.conv2d, tf.nn.depthwise_conv2d])
def test_the_two_gradients_of_a_convolution_take_as_many_multiply_adds_as_itself(convolve):
    strides = 1 if convolve is tf.nn.conv2d else [1] * 4

    def forward(a, f):
        return convolve(a, f, strides, "SAME")

    def backward(a, f):
        with tf.GradientTape() as tape:
            tape.watch([a, f])
            value = tf.reduce_sum(forward(a, f) ** 2)
        return tape.gradient(value, [a, f])

    shapes = (5, 9, 8, 4), (3, 2, 4, 6)
    once = multiply_adds(counted(forward, *shapes))
    assert multiply_adds(counted(backward, *shapes)) == 3 * once > 0


def powers(a, count):
    return tf.while_loop(lambda i, x: i < count, lambda i, x: (i + 2, x @ a), (0, a))[1]


def test_a_loop_counts_as_often_as_it_runs():
    assert counted(lambda a: powers(a, 7), (3, 3)) == {(3, 3, 3): 4}
    nested = lambda a: tf.while_loop(  # noqa: E731
        lambda i, x: i < 3, lambda i, x: (i + 1, powers(x, 5)), (0, a), parallel_iterations=1
    )[1]
    assert counted(nested, (3, 3)) == {(3, 3, 3): 9}


def test_the_loop_of_a_gradient_runs_as_often_as_the_one_before_it():
    def gradient(a):
        with tf.GradientTape() as tape:
            tape.watch(a)
            value = tf.reduce_sum(powers(a, 8))
        return tape.gradient(value, a)

    assert multiply_adds(counted(gradient, (3, 3))) == 3 * 4 * 27


def test_a_loop_as_long_as_the_data_say_is_unknown():
    dtypes = [tf.float32, tf.int32]
    assert counted(powers, (3, 3), (), dtypes=dtypes) is None
    halved = lambda a: tf.while_loop(  # noqa: E731
        lambda x: tf.norm(x) > 1.0, lambda x: (x @ a,), (a,)
    )[0]
    assert counted(halved, (3, 3)) is None
    without = lambda n: tf.while_loop(lambda i: i < n, lambda i: (i + 1,), (0,))[0]  # noqa: E731
    assert counted(without, (), dtypes=[tf.int32]) == {}


def test_of_branches_the_one_with_most_counts():
    def branched(a):
        return tf.cond(tf.reduce_sum(a) > 0, lambda: a @ a @ a, lambda: a @ a)

    assert counted(branched, (3, 3)) == {(3, 3, 3): 2}


def test_shapes_that_only_the_data_say_are_unknown():
    def masked(a):
        return tf.boolean_mask(a, a[:, 0] > 0) @ a

    assert counted(masked, (3, 3)) is None
    assert np.prod(MatrixProduct(2, 3, 5)) == MatrixProduct(2, 3, 5).multiply_adds

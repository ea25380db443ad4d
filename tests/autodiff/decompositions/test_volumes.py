"""Pooling of volumes: values and derivatives against loops in NumPy and differences."""

import math

import numpy as np
import pytest
import tensorflow as tf
from support.oracles import relative
from support.pooled import pooled, same, tied
from support.programs import run

import hvp
from hvp.autodiff import precision
from hvp.autodiff.tracing import trace
from hvp.passes.simplify import simplify as fold

# TensorFlow pools volumes in single precision only, where differences are poor: the gradient is
# exact, since pooling picks entries.
VOLUMES = {
    "tiles": ((1, 4, 4, 2, 2), (2, 2, 2), (2, 2, 2), "VALID", [(0, 0)] * 3),
    "tiles and a rest": ((1, 5, 4, 3, 1), (2, 2, 2), (2, 2, 2), "VALID", [(0, 0)] * 3),
    "to the same shape": ((1, 4, 3, 4, 1), (3, 3, 3), (1, 1, 1), "SAME", [same(3)] * 3),
    "to the same shape, even": ((1, 3, 4, 3, 1), (2, 2, 2), (1, 1, 1), "SAME", [same(2)] * 3),
    "overlapping": ((1, 5, 5, 5, 1), (3, 3, 3), (2, 2, 2), "VALID", [(0, 0)] * 3),
}


@pytest.mark.parametrize(
    ("shape", "sizes", "strides", "padding", "paddings"), VOLUMES.values(), ids=VOLUMES
)
def test_max_pooling_of_volumes(shape, sizes, strides, padding, paddings):
    def function(x):
        return tf.nn.max_pool3d(x, sizes, strides, padding)

    program = trace(function, tf.TensorSpec(shape, tf.float32))
    rng = np.random.default_rng(0)
    x = (rng.permutation(math.prod(shape)).reshape(shape) / 16).astype(np.float32)
    v = rng.integers(-3, 4, shape).astype(np.float32)
    expected = pooled(x, sizes, strides, paddings)
    weights = rng.integers(-3, 4, expected.shape).astype(np.float32)
    # Steps smaller than any gap: the difference of a piecewise linear function is its derivative.
    step = 2.0**-8
    moved = [pooled(x + step * sign * v, sizes, strides, paddings) for sign in (1, -1)]
    along = (moved[0] - moved[1]) / (2 * step)

    def quadratic(x):
        return tf.reduce_sum(weights * program.replay(x) ** 2) / 2

    def quadratic_slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = quadratic(x)
        return tape.gradient(value, x)

    point = tf.constant(x)
    for each in (program, fold(program)):
        assert (run(each, x)[0] == expected).all()
    assert np.sum(quadratic_slope(point) * v) == pytest.approx(
        np.sum(weights * expected * along), rel=1e-5
    )
    with tf.autodiff.ForwardAccumulator(point, tf.constant(v)) as forward:
        gradient = quadratic_slope(point)
    second = forward.jvp(gradient).numpy()
    assert np.sum(second * v) == pytest.approx(np.sum(weights * along**2), rel=1e-5)
    # The gradient is linear in the products of pooled values, and exact but for rounding.
    both = (quadratic_slope(point + step * v) - quadratic_slope(point - step * v)) / (2 * step)
    assert np.allclose(second, both, rtol=1e-4, atol=1e-3)


def test_of_equal_entries_of_a_volume_pooled_to_the_same_shape_one_is_the_value():
    program = trace(
        lambda x: tf.nn.max_pool3d(x, 3, 1, "SAME"), tf.TensorSpec((1, 3, 4, 3, 1), tf.float32)
    )
    for x in tied((1, 3, 4, 3, 1)):
        expected = pooled(x, (3,) * 3, (1,) * 3, [same(3)] * 3)
        for each in (program, fold(program)):
            assert (run(each, x.astype(np.float32))[0] == expected).all()


@pytest.mark.parametrize("size", [2, 3, (1, 3, 2)], ids=str)
def test_second_derivatives_of_volumes_pooled_to_the_same_shape_are_those_in_float64(size):
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 3, 2)).astype(np.float32)
    lin = hvp.linearize_function(
        lambda w: tf.reduce_sum(tf.nn.max_pool3d(tf.sin(w), size, 1, "SAME") ** 3), x
    )
    v = np.random.default_rng(1).standard_normal(lin.size)
    assert relative(lin.hvp(v), lin.in_float64().hvp(v)) < 1e-5


def test_the_slope_of_pooling_volumes_to_the_same_shape_has_the_derivative_of_differences():
    def loss(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(tf.nn.max_pool3d(x, 2, 1, "SAME") ** 2)
        return tf.reduce_sum(tape.gradient(value, x) ** 2)

    x = (np.random.default_rng(2).permutation(12) - 5.0).reshape(1, 2, 3, 2, 1).astype(np.float32)
    program = trace(loss, tf.TensorSpec(x.shape, tf.float32))
    with tf.GradientTape() as tape:
        given = tf.constant(x)
        tape.watch(given)
        value = program.replay(given)
    v = np.random.default_rng(3).standard_normal(x.shape).astype(np.float32)
    ahead, behind = (float(loss(tf.constant(x + step * v))) for step in (0.1, -0.1))
    # The loss is quadratic here: central differences are exact.
    assert np.sum(tape.gradient(value, given) * v) == pytest.approx((ahead - behind) / 0.2, 1e-3)


def cubed_slopes(pool):
    """Σ (∂/∂w Σ sin pool(w))³, a loss that holds a gradient."""

    def loss(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = tf.reduce_sum(tf.sin(pool(w)))
        return tf.reduce_sum(tape.gradient(value, w) ** 3)

    return loss


# Of pooling, its size and stride; of volumes, a padding too.
POOLED_PENALTIES = {
    "tiles": (tf.nn.max_pool2d, (1, 105, 105, 1), 7, 7, "VALID"),
    "tiles of volumes": (tf.nn.max_pool3d, (1, 6, 6, 6, 1), 3, 3, "VALID"),
    "overlapping volumes": (tf.nn.max_pool3d, (1, 5, 5, 4, 2), 3, 2, "SAME"),
    "volumes to the same shape": (tf.nn.max_pool3d, (1, 3, 4, 3, 1), 2, 1, "SAME"),
    "means of volumes": (tf.nn.avg_pool3d, (1, 5, 5, 4, 2), 3, 2, "SAME"),
}


@pytest.mark.sweep
@pytest.mark.parametrize("dtype", [None, "float64"])
@pytest.mark.parametrize(
    ("pool", "shape", "size", "stride", "padding"), POOLED_PENALTIES.values(), ids=POOLED_PENALTIES
)
def test_a_penalty_on_a_gradient_of_pooling(pool, shape, size, stride, padding, dtype):
    """Entry i has the slope Σ_k a_ik cos p_k, where the pooled p = Ax and A is constant nearby."""
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    lin = hvp.linearize_function(
        cubed_slopes(lambda w: pool(w, size, stride, padding)), x, dtype=dtype
    )
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        p = pool(variable, size, stride, padding)
        flat = tf.reshape(p, [-1])
    jacobian = tape.jacobian(flat, variable).numpy().reshape(-1, x.size).astype(float)
    p = jacobian @ x.ravel().astype(float)
    v = np.random.default_rng(1).normal(size=x.size)
    t = jacobian @ v
    s, ds = jacobian.T @ np.cos(p), jacobian.T @ (-np.sin(p) * t)
    gradient = jacobian.T @ (-np.sin(p) * (jacobian @ (3 * s**2)))
    along = -np.cos(p) * t * (jacobian @ (3 * s**2)) - np.sin(p) * (jacobian @ (6 * s * ds))
    bound = 1e-6 if dtype else 1e-4  # the Jacobian is in single precision
    assert lin.loss() == pytest.approx(np.sum(s**3), rel=bound)
    assert relative(lin.gradient(), gradient) < bound
    assert relative(lin.hvp(v), jacobian.T @ along) < bound


@pytest.mark.parametrize("pool", [tf.nn.max_pool3d, tf.nn.avg_pool3d])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("size", "step"), [(2, 2), (3, 2), ((1, 2, 3), (2, 1, 3))], ids=str)
def test_volumes_in_float64_are_pooled_as_tensorflow_pools_them_in_float32(
    pool, padding, size, step
):
    shape = (2, 5, 6, 7, 3)
    x = np.random.default_rng(0).standard_normal(shape)
    program = trace(lambda x: pool(x, size, step, padding), tf.TensorSpec(shape, tf.float32))
    promoted = precision.promote(program, tf.float64)
    expected = pool(x.astype(np.float32), size, step, padding)
    assert np.allclose(promoted.replay(tf.constant(x)), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 2, 2), (1, 1, 2)], ids=str)
def test_of_equal_entries_of_a_volume_one_is_the_value(size):
    shape = (1, 4, 4, 4, 1)
    program = trace(
        lambda x: tf.nn.max_pool3d(x, size, size, "VALID"), tf.TensorSpec(shape, tf.float32)
    )
    for x in tied(shape):
        expected = pooled(x, size, size, [(0, 0)] * 3)
        for each in (program, fold(program)):
            assert (run(each, x.astype(np.float32))[0] == expected).all()


def test_of_equal_entries_of_a_volume_one_is_differentiated():
    """The largest of equal entries w is w, and the Hessian of w² is 2."""
    lin = hvp.linearize_function(
        lambda z, batch: tf.reduce_mean(z**2),
        np.ones(1, np.float32),
        (np.ones((1, 4, 4, 4, 1), np.float32),),
        outputs=lambda w, batch: tf.nn.max_pool3d(batch[0] * w, 2, 2, "VALID"),
    )
    assert lin.loss() == pytest.approx(1, rel=1e-6)
    assert lin.gradient() == pytest.approx([2], rel=1e-6)
    assert lin.hvp(np.ones(1)) == pytest.approx([2], rel=1e-6)

"""Powers of roots and even functions of norms, which are smooth where the root is not."""

import numpy as np
import pytest
import tensorflow as tf
from support.identities import hessian, kinds

import hvp
from hvp.passes.pipeline import without_passes

W = np.array([[0.0, 0.0], [3.0, -4.0]])


@pytest.mark.parametrize("ad", ["forward-over-reverse", "reverse-over-reverse"])
@pytest.mark.parametrize(
    "cube",
    [
        lambda w: tf.norm(w, axis=1) ** 3,
        lambda w: tf.norm(w, axis=1) * tf.norm(w, axis=1) ** 2,
        lambda w: tf.reduce_sum(tf.square(w), 1) ** 1.5,
    ],
)
def test_the_cube_of_a_norm_is_flat_at_zero(cube, ad):
    """The Hessian of ‖x‖³ is 3(‖x‖ I + xxᵀ/‖x‖), and zero at x = 0."""
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(cube(w)), W, ad=ad)
    x = W[1]
    expected = np.zeros((4, 4))
    expected[2:, 2:] = 3 * (5 * np.eye(2) + np.outer(x, x) / 5)
    np.testing.assert_allclose(lin.hvp(np.eye(4)), expected, atol=1e-13)
    np.testing.assert_allclose(lin.gradient(), [0, 0, 45, -60], rtol=1e-14)
    assert lin.findings == ()


@pytest.mark.sweep
@pytest.mark.parametrize("ad", ["forward-over-reverse", "reverse-over-reverse"])
def test_even_functions_of_a_norm_are_smooth_at_zero(ad):
    """H of f(‖x‖) is (f′/‖x‖) (I - uuᵀ) + f″ uuᵀ with u = x/‖x‖, and f″(0) I at zero."""
    w = np.array([[0, 0], [3e-4, -4e-4], [0.3, 0.4], [3, -4.0]])
    y = np.array([0, 0.7, -2])

    def loss(params):
        w, y = params
        rows = tf.cos(2 * tf.norm(w, axis=1)) + tf.cosh(tf.norm(w, axis=1) / 2)
        return tf.reduce_sum(rows) + tf.reduce_sum(tf.cos(tf.abs(y)) + tf.cosh(tf.sqrt(y**2)))

    lin = hvp.linearize_function(loss, [w, y], ad=ad)
    expected, gradient = np.zeros((11, 11)), np.zeros(11)
    for i, x in enumerate(w):
        r, rows = np.linalg.norm(x), slice(2 * i, 2 * i + 2)
        bend = -4 * np.cos(2 * r) + np.cosh(r / 2) / 4
        u = x / r if r else x
        slope = -2 * np.sin(2 * r) + np.sinh(r / 2) / 2
        across = slope / r if r else bend
        expected[rows, rows] = across * (np.eye(2) - np.outer(u, u)) + bend * np.outer(u, u)
        gradient[rows] = slope * u
    expected[8:, 8:] = np.diag(np.cosh(y) - np.cos(y))
    gradient[8:] = np.sinh(y) - np.sin(y)
    np.testing.assert_allclose(lin.gradient(), gradient, rtol=1e-12, atol=1e-15)
    # The closed form itself has an error of ε/r from f′ at r = 5e-4.
    np.testing.assert_allclose(lin.hvp(np.eye(11)), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: tf.reduce_sum(tf.norm(w, axis=1)),
        lambda w: tf.reduce_sum(tf.abs(tf.complex(w[:, 0], w[:, 1]))),
        lambda w: tf.reduce_sum(tf.abs(w) ** 1.5),
        lambda w: tf.reduce_sum(tf.abs(w[0])) ** 1.5,
        lambda w: tf.reduce_sum(tf.nn.relu(w) ** 1.5),
        lambda w: tf.sin(tf.norm(w[0])),
    ],
)
@pytest.mark.parametrize(
    "w", [W, pytest.param(np.zeros((2, 2)), marks=pytest.mark.sweep)], ids=["a row", "all"]
)
def test_what_has_no_second_derivative_or_none_of_ours_is_refused(loss, w):
    with pytest.raises(hvp.InputError, match="NaN or infinity"):
        hessian(loss, w)


def test_a_power_of_a_root_is_written_without_it():
    found, places = kinds(lambda w: tf.norm(w, axis=1) ** 2, 3, 2)
    assert "Sqrt" not in found
    assert "Pow" not in found
    assert set(places.values()) == {"Sqrt"}


def test_the_operation_without_a_derivative_is_named():
    for cube in (lambda n: n**3, lambda n: n * n * n):
        _, places = kinds(lambda w, cube=cube: cube(tf.math.reduce_euclidean_norm(w)), 3)
        assert set(places.values()) == {"EuclideanNorm"}


def safe_norm(w):
    """`tf.norm` as it is from TensorFlow 2.22 on."""
    s = tf.reduce_sum(w * w, keepdims=True)
    safe = tf.maximum(s, np.finfo(np.float64).tiny)
    root = tf.compat.v1.where(tf.equal(s, 0), tf.zeros_like(safe), tf.sqrt(safe))
    return tf.squeeze(root)


def test_a_root_that_is_constant_at_zero_is_a_root():
    lin = hvp.linearize_function(lambda w: safe_norm(w) ** 2 + tf.cos(safe_norm(w)), np.zeros(2))
    assert lin.hvp(np.eye(2)).tolist() == [[1, 0], [0, 1]]
    plain = hvp.linearize_function(safe_norm, np.array([3.0, 4.0]))
    assert plain.gradient() == pytest.approx([0.6, 0.8])
    assert plain.hvp(np.array([3.0, 4.0])) == pytest.approx(np.zeros(2), abs=1e-15)
    with pytest.raises(hvp.InputError):
        hvp.linearize_function(safe_norm, np.zeros(2)).hvp(np.ones(2))


def test_a_zero_weight_does_not_hide_an_infinite_factor():
    """With parameters that are constants of the program: 0·∞ is NaN, with and without passes."""

    def loss(w):
        return tf.norm(w) - tf.sin(tf.norm(w))

    with pytest.raises(hvp.InputError, match="NaN or infinity"):
        hessian(loss, np.zeros(3))
    with without_passes(), pytest.raises(hvp.InputError, match="NaN or infinity"):
        hessian(loss, np.zeros(3))

"""Branches that are not chosen, with missing targets among them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.identities import hessian, kinds

import hvp


def test_the_other_uses_of_a_masked_value_stay():
    """The same root inside `where` and outside of it: the latter has no derivative."""
    w = np.array([0.0, 4.0])

    def chosen(w):
        return tf.reduce_sum(tf.where(w > 1, tf.sqrt(w), w))

    np.testing.assert_allclose(hessian(chosen, w), np.diag([0, -0.25 * 4**-1.5]))
    with pytest.raises(hvp.InputError, match="NaN or infinity"):
        hessian(lambda w: chosen(w) + tf.reduce_sum(tf.sqrt(w)), w)


def masked_by_value(y, z):
    return tf.where(tf.math.is_nan(y), tf.zeros_like(z), tf.square(y - z))


def masked_by_row(y, z):
    error = tf.reduce_mean((z - y) ** 2, axis=-1)
    return tf.where(tf.math.is_finite(tf.reduce_sum(y, -1)), error, tf.zeros_like(error))


def masked_loss_of_keras(y, z):
    error = keras.losses.mean_squared_error(y, z)
    return tf.where(tf.reduce_any(tf.math.is_nan(y), -1), tf.zeros_like(error), error)


MISSING = np.array([[0.3, np.nan], [1.0, -0.5], [np.nan, np.nan], [0.2, 2.0]])


@pytest.mark.parametrize("loss", [masked_by_value, masked_by_row, masked_loss_of_keras])
def test_targets_that_the_loss_leaves_out_may_be_missing(loss):
    """Least squares over what is there, in closed form; rows with a gap count by value alone."""
    x = np.random.default_rng(2).normal(size=(4, 3))
    w = np.arange(6.0).reshape(3, 2) / 3
    lin = hvp.linearize_function(
        lambda w, batch: tf.reduce_sum(loss(batch[1], batch[0] @ w)), w, (x, MISSING)
    )
    there = ~np.isnan(MISSING)
    if loss is not masked_by_value:
        there = np.repeat(there.all(1, keepdims=True) / 2, 2, axis=1)
    expected = np.zeros((3, 2, 3, 2))
    for k in range(2):
        expected[:, k, :, k] = 2 * (x.T * there[:, k]) @ x
    slope = 2 * x.T @ (there * (x @ w - np.nan_to_num(MISSING)))
    np.testing.assert_allclose(lin.gradient(), slope.ravel(), rtol=1e-12)
    np.testing.assert_allclose(lin.hvp(np.eye(6)), expected.reshape(6, 6), rtol=1e-12, atol=1e-14)


def test_missing_targets_of_a_model_are_left_out():
    def masked(y, z):
        loss = keras.ops.binary_crossentropy(y, z, from_logits=True)
        return keras.ops.sum(keras.ops.where(keras.ops.isnan(y), 0.0, loss), axis=-1)

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False)])
    x = np.random.default_rng(3).normal(size=(4, 3)).astype("float32")
    y = np.array([[0, np.nan], [1, 0], [np.nan, np.nan], [1, 1]], "float32")
    lin = hvp.linearize(model, (x, y), masked)
    p = 1 / (1 + np.exp(-(x @ model.get_weights()[0])))
    expected = np.zeros((3, 2, 3, 2))
    for k in range(2):
        expected[:, k, :, k] = (x.T * (p * (1 - p) * ~np.isnan(y))[:, k]) @ x / 4
    np.testing.assert_allclose(lin.hvp(np.eye(6)), expected.reshape(6, 6), atol=1e-6)
    np.testing.assert_allclose(lin.gnvp(np.eye(6)), expected.reshape(6, 6), atol=1e-6)


def test_a_missing_target_that_counts_is_refused():
    with pytest.raises(hvp.InputError, match="a finite loss, got nan"):
        hvp.linearize_function(
            lambda w, y: tf.reduce_sum(tf.where(y > 5, 0 * w, (y - w) ** 2)), np.ones(2), MISSING
        )


@pytest.mark.sweep
def test_a_chain_of_choices_grows_by_their_branches_alone():
    """x ← where(c, f(x), g(x)), fifteen times: each branch is written once, not 2¹⁵ times."""

    def chain(x):
        for _ in range(15):
            x = tf.where(x > 0.2, 1 / (1 + x), tf.sqrt(0.5 + x))
        return tf.reduce_sum(x**2)

    def at(w):
        x = w
        for _ in range(15):
            x = 1 / (1 + x) if x > 0.2 else np.sqrt(0.5 + x)
        return x**2

    w, step = 0.9, 1e-3
    found, _ = kinds(chain, 2)
    assert len(found) < 500
    expected = (at(w + step) - 2 * at(w) + at(w - step)) / step**2
    np.testing.assert_allclose(hessian(chain, np.array([w])), [[expected]], rtol=1e-4, atol=1e-9)


def smallest(w, steps):
    """Σ q after q ← 2 - w/q, kept below -0.1 where it is negative or small."""
    q = w
    for _ in range(steps):
        q = 2.0 - w / q
        q = tf.where(q <= 0.1, tf.minimum(q, -0.1), q)
    return tf.reduce_sum(q)


def second_derivative_of_smallest(w, steps):
    """By q and its two derivatives from step to step; how often q was cut off, too."""
    q, slope, bend, cuts = w, 1.0, 0.0, 0
    for _ in range(steps):
        ratio = w / q
        change = (1 - ratio * slope) / q
        q, slope, bend = 2 - ratio, -change, (2 * change * slope + ratio * bend) / q
        if -0.1 < q <= 0.1:
            q, slope, bend, cuts = -0.1, 0.0, 0.0, cuts + 1
    return bend, cuts


@pytest.mark.sweep
def test_a_chain_of_smaller_values_has_the_derivatives_of_what_it_chooses():
    w = np.array([0.6, 1.0, 1.35, 1.95, 2.5])
    expected, cuts = zip(*[second_derivative_of_smallest(x, 8) for x in w], strict=True)
    assert min(cuts) == 0 < max(cuts)
    found = hessian(lambda w: smallest(w, 8), w)
    np.testing.assert_allclose(found, np.diag(expected), rtol=1e-10)


def test_a_chain_of_smaller_values_is_written_a_limited_number_of_times():
    """min(q, c) is written anew in each step, until it is too long."""
    found, _ = kinds(lambda w: smallest(w, 40), 2)
    assert len(found) < 20_000

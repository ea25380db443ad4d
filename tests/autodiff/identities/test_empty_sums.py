"""Logarithms of sums of exponentials that no entry is in."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.identities import hessian

import hvp


@pytest.mark.sweep
def test_a_class_of_one_example_has_no_part_in_the_loss_of_the_circle():
    """Against central differences of the loss: errors of order h² and of rounding over h²."""
    labels, x = np.array([0, 0, 1, 2]), np.random.default_rng(0).normal(size=8)
    circle = keras.losses.Circle(gamma=4.0, dtype="float64")

    def loss(w):
        return circle(labels, tf.math.l2_normalize(tf.reshape(w, [4, 2]), 1))

    lin = hvp.linearize_function(loss, x)
    step, units = 1e-4, np.eye(8)

    def value(v):
        return float(loss(tf.constant(x + step * v)))

    slopes = [(value(u) - value(-u)) / (2 * step) for u in units]
    bends = [
        [
            (value(u + v) - value(u - v) - value(v - u) + value(-u - v)) / (4 * step**2)
            for u in units
        ]
        for v in units
    ]
    assert np.abs(slopes).max() > 0.1
    np.testing.assert_allclose(lin.gradient(), slopes, atol=2e-5)
    np.testing.assert_allclose(lin.hvp(units), bends, rtol=1e-5, atol=1e-4)


def test_sums_that_may_be_empty_of_an_infinite_slope_are_refused():
    """log(1 + exp(log Σ exp log w)) is log(1 + Σw): its slope at zero is one, not zero."""

    def loss(w):
        logs = tf.where(w < 1, tf.math.log(w), -np.inf)
        return tf.nn.softplus(tf.reduce_logsumexp(logs))

    with pytest.raises(hvp.InputError, match=r"Equal in .* at this point alone"):
        hessian(loss, np.zeros(2))

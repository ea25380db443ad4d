"""Ties of largest and smallest entries: what products take there, and when a finding says so."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.sweep import sweep

import hvp


def findings(loss, w, x=None):
    lin = hvp.linearize_function(
        loss, w, x, jit=False, **({} if x is None else {"reduction": "sum"})
    )
    return [(f.severity, f.op) for f in lin.findings if f.severity == "different"], lin


# At a tie: the loss, and the gradient that a finding names.
TIES = {
    "Max": (lambda w: tf.reduce_max(w[:2]) + w[2], [0.5, 0.5, 1]),
    "Min": (lambda w: tf.reduce_min(w[:2]) + w[2], [0.5, 0.5, 1]),
    "Maximum": (lambda w: tf.maximum(w[0], w[1]) + w[2], [1, 0, 1]),
    "Minimum": (lambda w: tf.minimum(w[0], w[1]) + w[2], [1, 0, 1]),
    "MaxPool": (
        lambda w: (
            tf.reduce_sum(tf.nn.max_pool2d(tf.reshape(w[:2], [1, 1, 2, 1]), [1, 2], 1, "VALID"))
            + w[2]
        ),
        [1, 0, 1],
    ),
    "SegmentMax": (lambda w: tf.reduce_sum(tf.math.segment_max(w, [0, 0, 1])), [0.5, 0.5, 1]),
}


@pytest.mark.parametrize("name", sweep(TIES, {"Max", "Maximum", "MaxPool"}))
def test_a_finding_says_what_is_taken_at_a_tie_that_matters(name):
    loss, gradient = TIES[name]
    found, lin = findings(loss, np.array([0.4, 0.4, 0.2]))
    assert found == [("different", name)]
    np.testing.assert_array_equal(lin.gradient(), gradient)
    assert "in batch 1: products take" in str(next(f for f in lin.findings if f.op == name))
    assert findings(loss, np.array([0.4, 0.5, 0.2]))[0] == []


NO_TIES = {
    "rectified entries": lambda w: tf.reduce_max(tf.nn.relu(-w)) + w[0],
    "padding": lambda w: tf.reduce_max(tf.pad(w[1:] ** 2, [[2, 2]], constant_values=-np.inf)),
    "one colour": lambda w: tf.reduce_sum(
        tf.nn.max_pool2d(tf.tanh(w[0] * tf.ones([1, 5, 5, 1], w.dtype)), 3, 2, "SAME")
    ),
    "data": lambda w: w[0] * tf.reduce_max(tf.constant([1, 1], w.dtype)),
    "a sum of all": lambda w: tf.reduce_logsumexp(w) + tf.reduce_sum(tf.nn.softmax(w) ** 2),
    "nothing": lambda w: w[2] ** 2 + 0 * tf.reduce_max(w),
}


@pytest.mark.parametrize("name", NO_TIES)
def test_ties_that_do_not_matter_have_no_finding(name):
    assert findings(NO_TIES[name], np.array([0.4, 0.4, 0.2]))[0] == []


def test_a_tie_in_a_later_batch_has_a_finding():
    def loss(w, x):
        return tf.reduce_sum(tf.reduce_max(x * w, 1))

    found, lin = findings(
        loss, np.array([0.5, 0.25]), [np.array([[1.0, 1.0]]), np.array([[1.0, 2.0]])]
    )
    assert found == [("different", "Max")]
    assert "in batch 2" in str(lin.findings[-1])


@pytest.mark.parametrize("dtype", [None, "float64"])
def test_overlapping_windows_of_a_volume_of_one_colour(dtype):
    """Each window is tanh w, wherever its maximum lies: L = tanh² w, the mean over two windows."""
    shape = (1, 2, 3, 2, 1)

    model = keras.Sequential(
        [
            keras.Input(shape[1:]),
            keras.layers.Conv3D(1, 1, activation="tanh", use_bias=False),
            keras.layers.MaxPooling3D(2, 1),
        ]
    )
    model.set_weights([np.full((1, 1, 1, 1, 1), 0.5)])
    x = np.ones(shape, "float32")
    lin = hvp.linearize(model, (x, np.zeros((1, 1, 2, 1, 1), "float32")), "mse", dtype=dtype)
    t = np.tanh(0.5)
    slope = 1 - t**2
    assert lin.gradient() == pytest.approx([2 * t * slope], rel=1e-5)
    assert lin.hvp(np.ones(1)) == pytest.approx([2 * slope**2 - 4 * t**2 * slope], rel=1e-5)
    assert lin.gnvp(np.ones(1)) == pytest.approx([2 * slope**2], rel=1e-5)

"""Kinks of one pair of values, which cancel."""

import numpy as np
import tensorflow as tf
from support.identities import kinds

import hvp


def test_a_difference_at_a_tie_is_between_the_same_values():
    """Beside |x - y| in an exponential, a maximum of other values keeps its own condition."""
    found, _ = kinds(lambda w: tf.maximum(w[0], w[1]) + tf.exp(-tf.abs(w[0] - w[2])), 3)
    assert {"Maximum", "Abs"} <= set(found)


def test_a_finding_says_where_fit_follows_another_gradient():
    def loss(w):
        return tf.reduce_sum(tf.maximum(w, 0.0) + tf.math.log1p(tf.exp(-tf.abs(w))))

    lin = hvp.linearize_function(loss, np.zeros(3))
    assert lin.gradient().tolist() == [0.5] * 3
    np.testing.assert_allclose(lin.hvp(np.eye(3)), np.eye(3) / 4)
    (finding,) = lin.findings
    assert finding.severity == "different"
    assert "TensorFlow's gradient" in finding.message
    assert hvp.linearize_function(loss, np.ones(3)).findings == ()

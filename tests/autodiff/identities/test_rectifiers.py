"""Functions that are singular at zero, of relu."""

import numpy as np
import pytest
import tensorflow as tf
from support.identities import kinds

import hvp


@pytest.mark.sweep
@pytest.mark.parametrize("jit", [False, True])
def test_functions_that_are_singular_at_zero_are_constant_where_relu_is(jit):
    """f(relu(w)): derivatives of f in closed form where w > 0, and zero where w < 0."""
    w = np.array([-1.3, -0.5, 0.7, 2.1])

    def loss(w):
        positive = tf.nn.relu(w)
        roots = tf.sqrt(2 * positive) + tf.nn.relu6(w) ** 1.5 + tf.sqrt(tf.reduce_sum(positive[:2]))
        return tf.reduce_sum(roots + tf.exp(-1 / positive) - tf.math.log(1 + tf.sqrt(positive)))

    x = w[2:]
    r = np.sqrt(x)
    slope = 1 / np.sqrt(2 * x) + 1.5 * r + np.exp(-1 / x) / x**2 - 1 / (2 * r * (1 + r))
    bend = -((2 * x) ** -1.5) + 0.75 / r + np.exp(-1 / x) * (1 - 2 * x) / x**4
    bend += (1 + 2 * r) / (4 * r**3 * (1 + r) ** 2)
    lin = hvp.linearize_function(loss, w, jit=jit)
    np.testing.assert_allclose(lin.gradient(), [0, 0, *slope], rtol=1e-12)
    np.testing.assert_allclose(lin.hvp(np.eye(4)), np.diag([0, 0, *bend]), rtol=1e-11)
    with pytest.raises(hvp.InputError, match=r"NaN or infinity from .* in batch 1"):
        hvp.linearize_function(loss, np.maximum(w, 0), jit=jit).hvp(np.ones(4))


@pytest.mark.parametrize(
    "function",
    [
        lambda w: tf.nn.relu(w) ** 2 / 3,
        lambda w: tf.math.log(tf.nn.relu(w) + 1e-3),
        lambda w: tf.sqrt(w[:, None] @ tf.nn.relu(w)[None]),
    ],
)
def test_rectifiers_before_smooth_functions_are_left(function):
    assert "Relu" in kinds(function, 3)[0]

"""The cut of a loss at the outputs, where an identity leads past them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import hvp

B = np.random.default_rng(0).standard_normal((5, 3))


def squares(w):
    return tf.linalg.matvec(tf.constant(B), w) ** 2


ROOTS = {"root": tf.sqrt, "absolute value": lambda s: tf.abs(tf.sqrt(s))}


@pytest.mark.parametrize("root", ROOTS.values(), ids=ROOTS)
def test_a_root_is_an_output_though_the_loss_is_its_square(root):
    """z = |Bw| and L = Σ z² = |Bw|²: H = G = 2BᵀB, R = 0; the square of the root leads past z."""
    lin = hvp.linearize_function(
        lambda z: tf.reduce_sum(z**2),
        np.array([1.0, -2.0, 0.5]),
        outputs=lambda w: root(squares(w)),
    )
    assert lin.has_outputs
    np.testing.assert_allclose(lin.hvp(np.eye(3)), 2 * B.T @ B, rtol=1e-13)
    np.testing.assert_allclose(lin.gnvp(np.eye(3)), 2 * B.T @ B, rtol=1e-13)
    np.testing.assert_allclose(lin.residual_vp(np.eye(3)), 0, atol=1e-13)
    J = B * np.sign(lin.theta @ B.T)[:, None]
    np.testing.assert_allclose(lin.jvp(np.eye(3)), J, rtol=1e-13)

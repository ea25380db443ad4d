"""Operations at points where TensorFlow's registered derivatives are wrong, NaN or missing.

The oracle is the loss alone: central differences of its values, of fourth order, which share no
derivative with the code under test. Each function is smooth at its point.
"""

import numpy as np
import pytest
import tensorflow as tf
from support.special_points import CASES, FLOAT32_ALONE, SPECIAL_POINTS, operations
from support.sweep import sweep

import hvp

# Steps of the differences, and the errors that they leave: some kernels exist in float32 alone.
STEP, TOLERANCE = 2e-3, 1e-6
STEP_FLOAT32, TOLERANCE_FLOAT32 = 0.1, 1e-2
FORWARD = {"forward-over-reverse"}
# One of each kind, of those that are quick.
OFTEN = {
    "Euclidean norm",
    "unchosen logarithm",
    "product with zeros",
    "products of segments",
    "softplus by relu",
    "eigenvalues",
    "fused batch normalisation",
    "pooling with positions",
    "cross-entropy by maximum",
}


def form_by_differences(loss, point, u, v, step):
    """uᵀHv from sixteen values of the loss alone; its error is of order step⁴."""
    weights = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
    run = tf.function(loss, autograph=False)
    return sum(
        a * b * float(run(tf.constant(point + step * (i * u + j * v)))) / step**2
        for i, a in weights.items()
        for j, b in weights.items()
    )


@pytest.mark.parametrize("ad", sweep(["forward-over-reverse", "reverse-over-reverse"], FORWARD))
@pytest.mark.parametrize("name", sweep(CASES, OFTEN))
def test_curvature_is_that_of_the_values_of_the_loss(name, ad):
    loss, point = CASES[name]
    lin = hvp.linearize_function(loss, point, ad=ad, jit=False)
    V = np.random.default_rng(1).normal(size=(point.size, 2))
    V /= np.linalg.norm(V, axis=0)
    products = np.stack([lin.hvp(v) for v in V.T], axis=1)
    u, v = V.T.reshape(2, *point.shape)
    is_single = name in FLOAT32_ALONE
    step, tolerance = (STEP_FLOAT32, TOLERANCE_FLOAT32) if is_single else (STEP, TOLERANCE)
    expected = [form_by_differences(loss, point, u, w, step) for w in (u, v)]
    size = np.linalg.norm(products, axis=0).max()
    np.testing.assert_allclose(V[:, 0] @ products, expected, atol=tolerance * max(size, 1))
    assert V[:, 0] @ products[:, 1] == pytest.approx(
        V[:, 1] @ products[:, 0], abs=(1e-5 if is_single else 1e-11) * size
    )


def test_the_cases_hold_every_operation_that_they_claim():
    found = set().union(*(operations(*case) for case in CASES.values()))
    assert found >= SPECIAL_POINTS

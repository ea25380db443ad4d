"""Powers with learned exponents: derivatives in closed form."""

import numpy as np
import pytest
import tensorflow as tf

import hvp


@pytest.mark.parametrize("ad", ["forward-over-reverse", "reverse-over-reverse"])
def test_a_learned_exponent_of_data_that_are_zero(ad):
    """xᵖ has the derivatives xᵖ log x and xᵖ log² x in p, which are zero at x = 0."""
    x = np.array([[0.0], [0.3], [2.0]])
    p = np.array([0.3, 1.0, 1.5, 2.0])
    lin = hvp.linearize_function(
        lambda p, x: tf.reduce_sum(x**p), p, x, reduction="sum", ad=ad, jit=False
    )
    powers, logs = x[1:] ** p, np.log(x[1:])
    np.testing.assert_allclose(lin.gradient(), (powers * logs).sum(0), rtol=1e-13)
    products = lin.hvp(np.eye(4))
    np.testing.assert_allclose(products, np.diag((powers * logs**2).sum(0)), rtol=1e-13)


@pytest.mark.sweep
@pytest.mark.parametrize("exponent", [0.5, 1.5])
def test_an_infinite_derivative_of_a_power_shows_beside_a_learned_exponent(exponent):
    w = np.array([0.0, 0.3, exponent])
    with pytest.raises(hvp.InputError, match="NaN or infinity"):
        hvp.linearize_function(lambda w: tf.reduce_sum(w[:2] ** w[2]), w).hvp(np.eye(3))

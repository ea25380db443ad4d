"""The products on functions whose matrices are known in closed form."""

import numpy as np
import pytest
import tensorflow as tf

from hvp.autodiff import curvature

rng = np.random.default_rng(6)
A = np.diag([3.0, -1.0, 2.0]) + 0.1
B = rng.standard_normal((2, 3))
U, V = rng.standard_normal(3), rng.standard_normal(2)
Q = rng.standard_normal((4, 3))
ORDERS = [curvature.forward_over_reverse, curvature.reverse_over_reverse]


def point() -> list[tf.Tensor]:
    return [tf.constant([0.3, -0.2, 0.5], tf.float64), tf.constant([1.0, 2.0], tf.float64)]


def tangents() -> list[tf.Tensor]:
    return [tf.constant(U), tf.constant(V)]


def traced(product, *given):
    """The product, taken in a graph."""
    return tf.function(lambda: product(*given), autograph=False)()


def bilinear(p):
    """½aᵀAa + cᵀBa: the gradient is (Aa + Bᵀc, Ba) and the Hessian [[A, Bᵀ], [B, 0]]."""
    a, c = p
    return tf.tensordot(a, tf.linalg.matvec(A, a), 1) / 2 + tf.tensordot(
        c, tf.linalg.matvec(B, a), 1
    )


def close(got, *expected):
    """Within rounding of the size of the vectors: their entries may be differences."""
    return all(
        np.linalg.norm(g - e) <= 1e-14 * np.linalg.norm(e)
        for g, e in zip(got, expected, strict=True)
    )


def test_gradient_of_a_quadratic_form():
    a, c = (p.numpy() for p in point())
    assert close(curvature.gradient(bilinear, point()), A @ a + B.T @ c, B @ a)


@pytest.mark.parametrize("product", ORDERS)
def test_hessian_product_of_a_quadratic_form(product):
    assert close(traced(product, bilinear, point(), tangents()), A @ U + B.T @ V, B @ U)


@pytest.mark.parametrize("product", ORDERS)
def test_hessian_product_of_quartic_terms(product):
    got = traced(product, lambda p: tf.reduce_sum(p[0] ** 4), point(), tangents())
    assert close(got, 12 * point()[0].numpy() ** 2 * U, np.zeros(2))


@pytest.mark.parametrize("product", ORDERS)
def test_paths_that_do_not_exist_are_zero(product):
    assert close(
        curvature.gradient(lambda p: tf.reduce_sum(p[0]), point()), np.ones(3), np.zeros(2)
    )
    got = traced(product, lambda p: tf.reduce_sum(p[0]), point(), tangents())
    assert close(got, np.zeros(3), np.zeros(2))


def outputs(p):
    """z = Qa·c₀ + c₁."""
    return tf.linalg.matvec(Q, p[0]) * p[1][0] + p[1][1]


def dense_jacobian():
    a, c = (p.numpy() for p in point())
    return np.concatenate([Q * c[0], (Q @ a)[:, None], np.ones((4, 1))], axis=1)


def listed(params):
    return [outputs(params)]


def quartic(z):
    return tf.reduce_sum(z[0] ** 4) / 12


def test_jvp_and_vjp_are_the_jacobian_and_its_transpose():
    J, u = dense_jacobian(), rng.standard_normal(4)
    for jvp in (curvature.jvp, curvature.jvp_by_reverse):
        z, jv = traced(jvp, listed, point(), tangents())
        assert close(z, outputs(point()).numpy())
        assert close(jv, J @ np.r_[U, V])
    assert close(curvature.vjp(listed, point(), [tf.constant(u)]), *np.split(J.T @ u, [3]))


@pytest.mark.parametrize("jvp", [curvature.jvp, curvature.jvp_by_reverse])
def test_outputs_that_are_a_gradient_of_softmax_cross_entropy_move(jvp):
    """TensorFlow leaves this derivative out where it is multiplied with what it sees is zero."""
    labels, p = tf.constant([[0.2, 0.3, 0.5]], tf.float64), tf.nn.softmax(point()[0]).numpy()

    def slope(params):
        def loss(params):
            return tf.nn.softmax_cross_entropy_with_logits(labels, params[0][None])[0]

        return curvature.gradient(loss, params)[:1]

    _, jv = traced(jvp, slope, point(), tangents())
    assert close(jv, p * U - p * (p @ U))


def test_gauss_newton_is_the_chain_of_jacobians_around_the_loss_hessian():
    J, z = dense_jacobian(), outputs(point()).numpy()
    for mode in (curvature.FORWARD_MODE, curvature.REVERSE_MODE):
        got = traced(curvature.gauss_newton, listed, quartic, point(), tangents(), mode)
        assert close(got, *np.split(J.T @ (z**2 * (J @ np.r_[U, V])), [3]))


def test_residual_weighs_the_second_derivatives_of_the_outputs_with_the_slope():
    # ∂²z/∂a∂c₀ = Q, all other second derivatives vanish; the slope of Σz⁴/12 is z³/3.
    slope = outputs(point()).numpy() ** 3 / 3
    got = traced(curvature.residual, listed, quartic, point(), tangents())
    assert close(got, Q.T @ slope * V[0], [slope @ Q @ U, 0.0])


def test_residual_of_linear_outputs_is_exactly_zero():
    got = traced(
        curvature.residual,
        lambda p: [tf.linalg.matvec(Q, p[0]) + tf.reduce_sum(p[1])],
        lambda z: tf.reduce_logsumexp(z[0]),
        point(),
        tangents(),
    )
    assert not any(part.numpy().any() for part in got)

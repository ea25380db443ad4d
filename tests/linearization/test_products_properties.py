"""The laws H = Hᵀ, H = G + R and G ≥ 0 on random forms and random small networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.oracles import examples, hessian_along, randomised, squared_loss, variables_of

import hvp
from hvp import testing

layers = keras.layers
few = settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate])
# Each traces a network.
fewer = settings(few, max_examples=3)
seeds = st.integers(0, 2**31)


@few
@given(st.integers(1, 12), seeds)
def test_a_quadratic_form_gives_back_its_matrix(size, seed):
    rng = np.random.default_rng(seed)
    A, b, w = rng.standard_normal((size, size)), *rng.standard_normal((2, size))
    A += A.T
    lin = hvp.linearize_function(
        lambda w: tf.tensordot(w, tf.linalg.matvec(A, w), 1) / 2 + tf.tensordot(b, w, 1), w
    )
    assert np.abs(lin.hvp(np.eye(size)) - A).max() < 1e-14 * size
    assert np.abs(lin.gradient() - (A @ w + b)).max() < 1e-13 * size


@few
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), seeds)
def test_a_linear_network_has_a_gauss_newton_matrix_in_closed_form(p, m, count, size, seed):
    """z_n = X_n w with loss Σ cosh z, whose Hessian is Σ X_nᵀ diag(cosh z_n) X_n."""
    rng = np.random.default_rng(seed)
    X, w = rng.standard_normal((count, m, p)), rng.standard_normal(p) / 2
    lin = hvp.linearize_function(
        lambda z, batch: tf.reduce_sum(tf.cosh(z)),
        w,
        X,
        outputs=lambda w, batch: tf.linalg.matvec(batch, w),
        reduction="sum",
        batch_size=size,
    )
    J = X.reshape(-1, p)
    expected = J.T * np.cosh(J @ w) @ J
    scale = np.abs(expected).max()
    assert np.abs(lin.gnvp(np.eye(p)) - expected).max() < 1e-13 * scale
    assert np.abs(lin.hvp(np.eye(p)) - expected).max() < 1e-13 * scale
    assert np.abs(lin.jvp(np.eye(p)) - J).max() < 1e-14
    assert not lin.residual_vp(np.eye(p)).any()


networks = st.tuples(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.sampled_from(["relu", "tanh", "gelu", "softplus", "elu"]),
    st.sampled_from(["mean_squared_error", "log_cosh"]),
    st.integers(1, 8),
    seeds,
)


def network(widths, activation, seed):
    stack = [layers.Dense(width, activation, dtype="float64") for width in widths]
    net = [keras.Input((3,), dtype="float64"), *stack, layers.Dense(2, dtype="float64")]
    return randomised(keras.Sequential(net), seed)


@pytest.mark.sweep
@fewer
@given(networks)
def test_random_networks_obey_the_laws(drawn):
    widths, activation, loss, size, seed = drawn
    lin = hvp.linearize(
        network(widths, activation, seed),
        (examples((3,), 8), examples((2,), 8)),
        loss,
        batch_size=size,
    )
    H, G, R, J = hvp.Hessian(lin), hvp.GaussNewton(lin), hvp.Residual(lin), hvp.Jacobian(lin)
    for A in (H, G):
        testing.symmetry(A)
        testing.linearity(A)
    testing.dot_test(J)
    h, g, r = (A @ np.eye(lin.size) for A in (H, G, R))
    scale = max(np.abs(g).max(), np.abs(r).max())
    assert np.abs(h - g - r).max() < 1e-13 * scale
    assert np.linalg.eigvalsh(g + g.T)[0] > -1e-13 * scale


@fewer
@given(networks)
def test_random_networks_match_central_differences(drawn):
    widths, activation, _, size, seed = drawn
    # Differences across a kink are none of the derivative: the smooth activations only.
    activation = {"relu": "tanh", "elu": "silu"}.get(activation, activation)
    model, x, y = network(widths, activation, seed), examples((3,), 8), examples((2,), 8)
    lin = hvp.linearize(model, (x, y), "mse", batch_size=size)
    v = np.random.default_rng(seed).standard_normal(lin.size)
    expected = hessian_along(lambda: squared_loss(y, model(x)), variables_of(model), v)
    assert np.linalg.norm(lin.hvp(v) - expected) < 1e-8 * np.linalg.norm(expected)

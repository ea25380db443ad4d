"""Determinants and Cholesky factors: closed forms and differences of the loss."""

import numpy as np
import pytest
import tensorflow as tf

import hvp

FACTORISED = {
    "logdet": tf.linalg.logdet,
    "a factor": lambda a: tf.reduce_sum(
        tf.sin(tf.linalg.cholesky(a)) * np.arange(1.0, 10).reshape(3, 3)
    ),
    "a solution": lambda a: tf.reduce_sum(
        tf.linalg.cholesky_solve(tf.linalg.cholesky(a), np.ones((3, 1))) ** 2
    ),
}


@pytest.mark.parametrize("name", FACTORISED)
def test_a_factorisation_has_the_derivatives_of_what_it_reads(name):
    """Cholesky reads the lower triangle alone: those of the loss by differences."""
    function = FACTORISED[name]
    a = np.array([[2.0, 0.3, 0.1], [0.3, 1.5, -0.4], [0.1, -0.4, 1.0]])
    lin = hvp.linearize_function(function, a)
    rng = np.random.default_rng(3)
    for v in rng.standard_normal((2, 3, 3)):

        def at(h, v=v):
            return float(function(tf.constant(a + h * v)))

        h = 1e-3
        slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        bend = (16 * (at(h) + at(-h)) - at(2 * h) - at(-2 * h) - 30 * at(0)) / (12 * h**2)
        flat = v.ravel()
        assert lin.gradient() @ flat == pytest.approx(slope, rel=1e-8)
        assert flat @ lin.hvp(flat) == pytest.approx(bend, rel=1e-6)
    # From TensorFlow 2.22 on `tf.linalg.logdet` is by triangular factors.
    graph = tf.function(function).get_concrete_function(tf.constant(a)).graph
    is_held = "Cholesky" in {op.type for op in graph.get_operations()}
    assert any("Cholesky" in str(finding) for finding in lin.findings) == is_held


@pytest.mark.parametrize("count", [3, 8])
def test_determinants_of_a_matrix_with_equal_singular_values(count):
    """At A = 2I: D² log|det A| (V, V) = -tr V²/4, D² det A (V, V) = det A ((tr V)² - tr V²)/4."""
    v = np.random.default_rng(4).standard_normal((count, count))
    trace, square = np.trace(v), np.trace(v @ v)
    for function, slope, bend in (
        (lambda a: tf.linalg.slogdet(a)[1], trace / 2, -square / 4),
        (tf.linalg.det, 2.0**count * trace / 2, 2.0**count * (trace**2 - square) / 4),
    ):
        lin = hvp.linearize_function(function, 2 * np.eye(count))
        assert lin.gradient() @ v.ravel() == pytest.approx(slope)
        assert v.ravel() @ lin.hvp(v.ravel()) == pytest.approx(bend)


COMPLEX = {
    "det": lambda z: tf.linalg.det(z),
    "large det": lambda z: tf.linalg.det(
        tf.linalg.LinearOperatorBlockDiag([tf.linalg.LinearOperatorFullMatrix(z)] * 3).to_dense()
    ),
    "sign": lambda z: tf.linalg.slogdet(z)[0],
    "log": lambda z: tf.linalg.slogdet(z)[1],
}


@pytest.mark.parametrize("name", COMPLEX)
def test_determinants_of_complex_matrices(name):
    rng = np.random.default_rng(5)
    a, v, b = rng.standard_normal((3, 3, 3))

    def loss(w):
        value = COMPLEX[name](tf.complex(w, w**2 + b))
        return tf.math.real(value * tf.cast(1 + 0.5j, value.dtype))

    def at(h):
        return float(loss(tf.constant(a + h * v)))

    h = 4e-4
    slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    bend = (16 * (at(h) + at(-h)) - at(2 * h) - at(-2 * h) - 30 * at(0)) / (12 * h**2)
    lin = hvp.linearize_function(loss, a)
    assert lin.gradient() @ v.ravel() == pytest.approx(slope, rel=1e-6)
    assert v.ravel() @ lin.hvp(v.ravel()) == pytest.approx(bend, rel=1e-6)


def test_a_singular_matrix_has_no_logarithm_of_its_determinant():
    """det A = s exp(log |det A|) is zero there, with derivatives; its logarithm has none."""

    def loss(a):
        sign, log = tf.linalg.slogdet(a)
        return sign * tf.exp(log) + tf.reduce_sum(a)

    with pytest.raises(hvp.InputError):
        hvp.linearize_function(loss, np.diag([1.0, 2.0, 0.0])).hvp(np.ones(9))
    with pytest.raises(hvp.InputError):
        hvp.linearize_function(tf.linalg.det, np.diag(np.arange(8.0))).hvp(np.ones(64))

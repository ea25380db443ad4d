"""Eigenvalues and singular values: right where they differ, refused from the data where not."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from support import oracles
from support.refused_batches import assert_refused_in_second_batch

import hvp

rng = np.random.default_rng(3)
Q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
RANDOM = rng.normal(size=(3, 3))


def symmetric(w):
    return (w + tf.transpose(w)) / 2


FUNCTIONS = {
    "SelfAdjointEigV2": lambda w: tf.reduce_sum(tf.math.log(tf.linalg.eigvalsh(symmetric(w)))),
    "Svd": lambda w: tf.reduce_sum(tf.math.log(tf.linalg.svd(w, compute_uv=False))),
    "Eig": lambda w: tf.math.real(tf.reduce_sum(tf.math.log(tf.linalg.eigvals(w)))),
}


def log_determinant(w, is_symmetric):
    """H of log det A: -tr(A⁻¹EA⁻¹F), with the symmetric parts of E and F if asked."""
    inverse = np.linalg.inv((w + w.T) / 2 if is_symmetric else w)
    units = np.eye(9).reshape(9, 3, 3)
    if is_symmetric:
        units = (units + units.transpose(0, 2, 1)) / 2
    return -np.einsum("ij,ajk,kl,bli->ab", inverse, units, inverse, units)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("kind", ["SelfAdjointEigV2", "Svd"])
def test_the_log_determinant_by_values_at_any_scale(kind, scale):
    w = scale * Q @ np.diag([1.0, 2.0, 3.5]) @ Q.T
    expected = log_determinant(w, kind == "SelfAdjointEigV2")
    found = hvp.linearize_function(FUNCTIONS[kind], w).hvp(np.eye(9))
    np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("gap", [0.0, 1e-11, 1e-9, 1e-7])
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_equal_values_are_refused_by_operation(kind, gap):
    w = Q @ np.diag([1.0, 1.0 + gap, 3.0]) @ Q.T
    instead = "trace.*sqrtm" if kind == "Svd" else "logdet"
    message = rf"got {kind} in .* two equal .* in batch 1; write a sum .*{instead}"
    with pytest.raises(hvp.InputError, match=message):
        hvp.linearize_function(FUNCTIONS[kind], w)


@pytest.mark.sweep
def test_the_functions_of_the_matrix_that_are_advised_have_derivatives_there():
    """At the identity, by the series of the logarithm, of the root and of the exponential."""

    def loss(w):
        a, squares = symmetric(w), tf.matmul(w, w, transpose_a=True)
        traces = (2 * tf.linalg.expm(a), 3 * tf.linalg.sqrtm(squares), 4 * tf.linalg.inv(a))
        return tf.linalg.logdet(a) + sum(map(tf.linalg.trace, traces)) + tf.linalg.trace(a @ a)

    found = hvp.linearize_function(loss, np.eye(3)).hvp(RANDOM.ravel()) @ RANDOM.ravel()
    size = np.sum(((RANDOM + RANDOM.T) / 2) ** 2)
    expected = (-1 + 2 * np.e + 8 + 2) * size + 3 * (np.sum(RANDOM**2) - size)
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_gap_that_is_wide_enough_is_right():
    w = Q @ np.diag([1.0, 1.0 + 1e-5, 3.0]) @ Q.T
    found = hvp.linearize_function(FUNCTIONS["SelfAdjointEigV2"], w).hvp(np.eye(9))
    np.testing.assert_allclose(found, log_determinant(w, True), atol=1e-8)


def test_a_singular_value_of_zero_is_refused():
    w = np.outer([1.0, 2.0, 3.0], [1.0, 0.0, 2.0])
    with pytest.raises(hvp.InputError, match=r"got Svd in .* or one of zero"):
        hvp.linearize_function(lambda w: tf.reduce_sum(tf.linalg.svd(w, compute_uv=False)), w)


@pytest.mark.parametrize("w", [np.eye(3), np.triu(RANDOM), np.ones((3, 3))])
def test_a_triangular_factor_that_jumps_or_a_singular_matrix_is_refused(w):
    def loss(w):
        return tf.reduce_sum(tf.sin(tf.linalg.qr(w)[1]))

    with pytest.raises(hvp.InputError, match="got Qr in"):
        hvp.linearize_function(loss, w)
    hvp.linearize_function(loss, RANDOM)


def rebuilt(w):
    """Re tr(C U exp(-S) Vᴴ), which does not depend on the phases of the vectors."""
    values, left, right = tf.linalg.svd(tf.complex(w, w**2))
    matrix = tf.matmul(left * tf.cast(tf.exp(-values), left.dtype), right, adjoint_b=True)
    return tf.reduce_sum(tf.math.real(matrix) * tf.constant(RANDOM))


def test_singular_vectors_of_complex_matrices_are_refused():
    # Once TensorFlow has the second derivative right it need not be refused.
    w, v = tf.Variable(RANDOM + 0.3), rng.normal(size=9)
    wrong = v @ oracles.hessian(lambda: rebuilt(w), [w]) @ v
    right = v @ oracles.hessian_along(lambda: rebuilt(w), [w], v)
    assert abs(wrong - right) > 1e-3 * abs(right)
    with pytest.raises(hvp.InputError, match=r"Svd in .* complex"):
        hvp.linearize_function(rebuilt, RANDOM)


class Energies(keras.layers.Layer):
    def call(self, x):
        matrices = x[:, :, None] * x[:, None, :] + tf.linalg.diag(
            tf.constant([1.0, 2.0], tf.float64)
        )
        return tf.linalg.eigvalsh(matrices)


def test_the_refusal_names_layer_and_batch():
    layer = Energies(dtype="float64", name="energies")
    assert_refused_in_second_batch(layer, "SelfAdjointEigV2", np.zeros((1, 2)))


def test_a_decomposition_of_data_alone_is_not_checked():
    data = np.stack([np.eye(3)] * 2)

    def loss(w, a):
        return tf.reduce_sum(tf.linalg.eigvalsh(a) * w**2)

    lin = hvp.linearize_function(loss, np.ones(3), data, reduction="sum")
    np.testing.assert_allclose(lin.hvp(np.eye(3)), 4 * np.eye(3))


def test_a_decomposition_in_a_loop_is_refused():
    def loss(w):
        body = lambda i, y: (i + 1, y + tf.reduce_sum(tf.linalg.eigvalsh(symmetric(w) * y)))  # noqa: E731
        return tf.while_loop(lambda i, y: i < 2, body, [0, tf.constant(1.0, tf.float64)])[1]

    with pytest.raises(hvp.InputError, match=r"SelfAdjointEigV2 in .*, in a loop or branch"):
        hvp.linearize_function(loss, RANDOM)


def stitched(w, indices):
    return tf.dynamic_stitch(indices, [w[:2] ** 2, w[2:] ** 3])


def scattered(w, indices):
    return tf.tensor_scatter_nd_update(w[0] * tf.ones(4, tf.float64), indices, w[1:] ** 2)


@pytest.mark.parametrize(
    ("function", "once", "twice"),
    [(stitched, [[0, 1], [2]], [[0, 1], [1]]), (scattered, [[1], [2]], [[1], [1]])],
)
def test_a_place_that_is_written_twice_is_refused(function, once, twice):
    w = np.array([1.0, 2.0, 3.0])

    def loss(indices):
        return lambda w: tf.reduce_sum(function(w, indices) ** 2)

    stitched_diagonal, scattered_diagonal = [12, 48, 30 * 81], [4, 48, 108]
    expected = stitched_diagonal if function is stitched else scattered_diagonal
    found = hvp.linearize_function(loss(once), w).hvp(np.eye(3))
    np.testing.assert_allclose(found, np.diag(expected), rtol=1e-13)
    with pytest.raises(hvp.InputError, match="index given twice, in batch 1; give each index once"):
        hvp.linearize_function(loss(twice), w)


def in_a_loop(indices, updates, shape=(4,)):
    """A loss that writes cubes to places in each of two iterations, and sums the squares."""

    def loss(w, *batch):
        def body(i, x):
            places = tf.convert_to_tensor(indices(i, *batch))
            return i + 1, tf.tensor_scatter_nd_update(x, places, updates(w, i))

        x = tf.zeros(shape, tf.float64)
        return tf.reduce_sum(tf.while_loop(lambda i, x: i < 2, body, (0, x))[1] ** 2)

    return loss


def columns(i):
    return tf.stack([2 * tf.range(2) + i, i + tf.zeros(2, tf.int32)], 1)


DISTINCT = {
    "one": in_a_loop(lambda i: [[i]], lambda w, i: [w[i] ** 3]),
    "constants": in_a_loop(lambda i: [[2], [0]], lambda w, i: w**3),
    "a constant from outside": in_a_loop(
        functools.partial(lambda places, i: places, np.array([[2], [0]])), lambda w, i: w**3
    ),
    "a range": in_a_loop(lambda i: (tf.range(2) + 2 * i)[:, None], lambda w, i: w**3 / 2**0.5),
    "columns": in_a_loop(columns, lambda w, i: w**3 / 2**0.5, (4, 2)),
}


@pytest.mark.parametrize("name", DISTINCT)
def test_places_that_are_distinct_in_a_loop_are_taken(name):
    w = np.array([1.0, 2.0])
    lin = hvp.linearize_function(DISTINCT[name], w)
    np.testing.assert_allclose(lin.hvp(np.eye(2)), np.diag(30 * w**4), rtol=1e-12)


@pytest.mark.parametrize(
    "indices",
    [lambda i: [[0], [0]], lambda i: [[i], [1 - i]], lambda i: (i * tf.range(2))[:, None]],
)
def test_places_that_may_be_the_same_in_a_loop_are_refused(indices):
    message = r"TensorScatterUpdate in .*, in a loop or branch; write one place in each iteration"
    with pytest.raises(hvp.InputError, match=message):
        hvp.linearize_function(in_a_loop(indices, lambda w, i: w**3), np.array([1.0, 2.0]))


def test_places_from_data_in_a_loop_are_refused_and_data_written_there_are_not():
    w, places = np.array([1.0, 2.0]), np.array([[0, 0]])
    of_data = in_a_loop(lambda i, batch: tf.transpose(batch), lambda w, i: w**3)
    with pytest.raises(hvp.InputError, match="in a loop or branch"):
        hvp.linearize_function(of_data, w, places)
    constants = in_a_loop(lambda i: [[0], [0]], lambda w, i: tf.ones(2, tf.float64))
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(w**2) * (1 + constants(w)), w)
    np.testing.assert_allclose(lin.hvp(np.eye(2)), 4 * np.eye(2))


def test_eigenvalues_of_hermitian_matrices_have_the_derivatives_of_their_traces():
    """Σλ² = ‖A‖² for A = Z Zᴴ, from its entries."""

    def matrix(w):
        z = tf.reshape(tf.complex(w[:4], w[4:]), (2, 2))
        return tf.matmul(z, z, adjoint_b=True)

    w = np.random.default_rng(0).normal(size=8)
    by_values = hvp.linearize_function(
        lambda w: tf.reduce_sum(tf.math.real(tf.linalg.eigvalsh(matrix(w))) ** 2), w
    )
    by_entries = hvp.linearize_function(
        lambda w: tf.reduce_sum(tf.math.real(matrix(w)) ** 2 + tf.math.imag(matrix(w)) ** 2), w
    )
    V = np.eye(8)
    np.testing.assert_allclose(by_values.hvp(V), by_entries.hvp(V), atol=1e-12)

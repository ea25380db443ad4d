"""Transforms of real numbers, against matrices of the transforms that NumPy writes."""

import numpy as np
import pytest
import tensorflow as tf

import hvp

SIGNAL = tf.signal
# By transform: itself, NumPy's, the shape of its input, and lengths that leave entries out.
REAL = {
    "rfft": (SIGNAL.rfft, np.fft.rfftn, (2, 6), [4]),
    "rfft2d": (SIGNAL.rfft2d, np.fft.rfftn, (2, 3, 5), [2, 4]),
    "rfft3d cropped": (SIGNAL.rfft3d, np.fft.rfftn, (3, 3, 4), [2, 3, 3]),
    "rfft3d filled": (SIGNAL.rfft3d, np.fft.rfftn, (2, 2, 3), [3, 2, 4]),
}
INVERSE = {
    "irfft": (SIGNAL.irfft, np.fft.irfftn, (3,), [3]),
    "irfft one": (SIGNAL.irfft, np.fft.irfftn, (2, 3), [1]),
    "irfft2d": (SIGNAL.irfft2d, np.fft.irfftn, (3, 4), [2, 4]),
    "irfft3d cropped": (SIGNAL.irfft3d, np.fft.irfftn, (3, 3, 3), [2, 2, 3]),
}


def matrix(function, shape):
    """Of a linear function of real arrays of this shape, as NumPy computes it."""
    columns = np.eye(np.prod(shape)).reshape(-1, *shape)
    return np.stack([np.ravel(function(column)) for column in columns], 1)


@pytest.mark.parametrize("name", REAL)
def test_a_transform_that_leaves_entries_out_has_its_hessian(name):
    transform, numpy, shape, lengths = REAL[name]
    axes = tuple(range(-len(lengths), 0))
    A = matrix(lambda x: numpy(x, lengths, axes), shape)
    w = np.random.default_rng(0).normal(size=A.shape[1])

    def loss(w):
        z = transform(tf.reshape(w, shape), lengths)
        return tf.reduce_sum(tf.math.real(z) ** 3 + tf.math.imag(z) ** 2)

    H = A.real.T @ np.diag(6 * (A.real @ w)) @ A.real + 2 * A.imag.T @ A.imag
    found = hvp.linearize_function(loss, w, jit=False).hvp(np.eye(len(w)))
    np.testing.assert_allclose(found, H, atol=1e-12 * np.abs(H).max())


@pytest.mark.parametrize("name", INVERSE)
def test_an_inverse_transform_that_leaves_entries_out_has_its_hessian(name):
    transform, numpy, shape, lengths = INVERSE[name]
    axes = tuple(range(-len(lengths), 0))
    A = np.concatenate(
        [matrix(lambda x, unit=unit: numpy(unit * x, lengths, axes), shape) for unit in (1, 1j)], 1
    )
    w = np.random.default_rng(0).normal(size=A.shape[1])

    def loss(w):
        real, imaginary = tf.unstack(tf.reshape(w, (2, *shape)))
        return tf.reduce_sum(transform(tf.complex(real, imaginary), lengths) ** 3)

    H = A.T @ np.diag(6 * (A @ w)) @ A
    found = hvp.linearize_function(loss, w, jit=False).hvp(np.eye(len(w)))
    np.testing.assert_allclose(found, H, atol=1e-12 * np.abs(H).max())


@pytest.mark.parametrize("is_known", [True, False])
def test_a_length_is_known_or_depends_on_the_parameters(is_known):
    """Also where TensorFlow's own gradient, which `fit` would follow, cannot be built."""

    def loss(w):
        lengths = [4] if is_known else 4 + tf.where(w[:1] > 9, 1, 0)
        return tf.reduce_sum(tf.abs(tf.signal.rfft(w, lengths)) ** 2)

    A = np.fft.rfft(np.eye(4), axis=0)
    lin = hvp.linearize_function(loss, np.arange(6.0) / 7, jit=False)
    expected = np.zeros((6, 6))
    expected[:4, :4] = 2 * (A.conj().T @ A).real
    np.testing.assert_allclose(lin.hvp(np.eye(6)), expected, atol=1e-13)


@pytest.mark.parametrize(
    ("loss", "instead"),
    [
        (lambda w: tf.math.real(tf.signal.rfftnd(w, [2, 2], [0, 1])[0, 0]), "tf.signal.fft3d"),
        (lambda w: tf.linalg.trace(tf.math.real(tf.linalg.logm(tf.cast(w, "complex128")))), "eigh"),
        (lambda w: tf.reduce_sum(tf.math.zeta(w, 2.0)), "a sum of terms"),
    ],
    ids=["RFFTND", "MatrixLogarithm", "Zeta"],
)
def test_a_refusal_names_what_to_put_in_its_place(loss, instead):
    with pytest.raises(hvp.InputError, match=f"; use [^;]*{instead}"):
        hvp.linearize_function(loss, np.array([[3.0, 1.0], [1.0, 2.0]]), jit=False)

"""The CTC loss with dense labels: loss and gradient of TensorFlow."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import relative
from support.sweep import sweep

import hvp

LABELS, COUNTS, LENGTHS = np.array([[1, 2, 0], [3, 3, 1], [2, 0, 0]]), [2, 3, 1], [5, 6, 6]

SEQUENCES = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float32)

CTC = {
    "blank first": lambda z: tf.nn.ctc_loss(LABELS, z, COUNTS, LENGTHS, blank_index=0),
    "blank last": lambda z: tf.nn.ctc_loss(
        np.maximum(LABELS - 1, 0), tf.roll(z, -1, 2), COUNTS, LENGTHS, blank_index=-1
    ),
    "unique labels": lambda z: tf.nn.ctc_loss(
        LABELS, z, COUNTS, LENGTHS, blank_index=0, unique=tf.nn.ctc_unique_labels(LABELS)
    ),
    "named": lambda z: tf.nn.ctc_loss(LABELS, z, COUNTS, LENGTHS, blank_index=0, name="mine"),
    "of Keras": lambda z: keras.ops.ctc_loss(LABELS, tf.transpose(z, [1, 0, 2]), COUNTS, LENGTHS),
}


@pytest.mark.parametrize("name", sweep(CTC, set()))
def test_dense_labels_of_sequences_have_the_loss_and_gradient_of_tensorflow(name):
    losses = CTC[name]

    def loss(z):
        return tf.reduce_sum(losses(z) ** 2)

    lin = hvp.linearize_function(loss, SEQUENCES)
    variable = tf.Variable(SEQUENCES)
    with tf.GradientTape() as tape:
        value = loss(variable)
    assert lin.loss() == pytest.approx(float(value), rel=1e-5)
    assert relative(lin.gradient(), tape.gradient(value, variable).numpy().ravel()) < 1e-5
    assert not lin.findings


def test_a_scope_with_the_name_of_a_function_is_not_taken_for_it():
    """A sum of cubes with as many arguments as CTC has: H is diag(6x)."""

    @tf.custom_gradient
    def cubes(x, labels, sizes, lengths):
        def gradient(upstream):
            return 3 * x**2 * upstream[None, :, None], None, None, None

        return tf.reduce_sum(x**3, [0, 2]), gradient

    def loss(x):
        with tf.name_scope("ctc_loss_dense"):
            return tf.reduce_sum(cubes(x, *map(tf.constant, (LABELS, COUNTS, LENGTHS))))

    lin = hvp.linearize_function(loss, SEQUENCES.astype(np.float64))
    x = SEQUENCES.astype(np.float64).ravel()
    assert lin.loss() == pytest.approx(np.sum(x**3), rel=1e-12)
    assert np.allclose(lin.gradient(), 3 * x**2, rtol=1e-12)
    assert np.allclose(lin.hvp(np.eye(x.size)), np.diag(6 * x), rtol=1e-12)

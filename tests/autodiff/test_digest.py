"""The digest of a loss is the same for the same loss, and another for another."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvp

X = np.random.default_rng(0).standard_normal((12, 4)).astype("float32")
LABELS = np.arange(12) % 3


def digest(activation="tanh", *, smoothing=0.0, penalty=None, size=5, weights=0, **options):
    keras.utils.set_random_seed(weights)
    net = keras.Sequential([
        keras.Input((4,)),
        keras.layers.Dense(size, activation, kernel_regularizer=penalty),
        keras.layers.Dense(3),
    ])  # fmt: skip
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    return hvp.linearize(net, (X, np.eye(3)[LABELS]), loss, **options).objective_digest


@pytest.fixture(scope="module")
def reference():
    return digest()


def test_names_weights_sizes_batches_and_precision_do_not_matter(reference):
    assert digest(weights=1, batch_size=5) == reference
    assert digest(size=6, dtype="float64") == reference


@pytest.mark.parametrize(
    "other", [{"activation": "relu"}, {"smoothing": 0.1}, {"penalty": keras.regularizers.L2(0.1)}]
)
def test_another_loss_has_another_digest(reference, other):
    assert digest(**other) != reference


def test_factors_and_constants_count_and_so_does_what_a_loop_does():
    def of(loss):
        return hvp.linearize_function(loss, np.array([1.0, 2.0])).objective_digest

    def looped(factor):
        return lambda w: tf.while_loop(
            lambda i, s: i < 3, lambda i, s: (i + 1, s * factor), (0, w[0] * w[1])
        )[1]

    assert of(lambda w: 2.0 * w[0] ** 2) == of(lambda w: 2.0 * w[0] ** 2)
    assert of(lambda w: 2.0 * w[0] ** 2) != of(lambda w: 3.0 * w[0] ** 2)
    assert of(looped(2.0)) == of(looped(2.0))
    assert of(looped(2.0)) != of(looped(3.0))


def test_another_point_has_the_same_digest():
    lin = hvp.linearize_function(lambda w: w[0] ** 3, np.array([2.0]))
    assert lin.at(np.array([3.0])).objective_digest == lin.objective_digest

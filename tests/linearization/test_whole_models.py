"""Whole architectures, with random weights and small images.

The large ones take minutes each: `pytest -m slow` runs them.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvp
from hvp.testing import check

layers, applications = keras.layers, keras.applications
CLASSES = 5
IMAGES = {"weights": None, "input_shape": (32, 32, 3), "classes": CLASSES}
LOGITS = {**IMAGES, "classifier_activation": None}
LARGE = {
    "ResNet50V2": lambda: applications.ResNet50V2(**LOGITS),
    "MobileNetV3Small": lambda: applications.MobileNetV3Small(
        **LOGITS, include_preprocessing=False
    ),
    "EfficientNetB0": lambda: applications.EfficientNetB0(**LOGITS),
    "ConvNeXtTiny": lambda: applications.ConvNeXtTiny(**LOGITS),
    "DenseNet121": lambda: applications.DenseNet121(**LOGITS),
}

# A kink within every step leaves these unmeasured or widens their bound, and `check` passes them.
MEASURED = ["Hv by differences of the gradient", "Jv by differences of the outputs"]
BOUND = 1e-4


class Positions(layers.Layer):
    """A vector to learn for each position."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer="random_normal", name="table")

    def call(self, x):
        return x + self.table


def decoder(width=8, length=6, words=11, blocks=2):
    """A decoder in the style of GPT: normalisation first, causal attention, GELU."""
    tokens = keras.Input((length,), dtype="int32")
    x = Positions()(layers.Embedding(words, width)(tokens))
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(2, width // 2)(y, y, use_causal_mask=True)
        y = layers.LayerNormalization()(x)
        x = x + layers.Dense(width)(layers.Dense(4 * width, "gelu")(y))
    return keras.Model(tokens, layers.Dense(words)(layers.LayerNormalization()(x)))


def images(count):
    """Squares of eight pixels each: images that differ by more than their noise."""
    squares = np.random.default_rng(0).uniform(size=(count, 4, 4, 3))
    return np.kron(squares, np.ones((1, 8, 8, 1))).astype("float32")


def alive(model):
    """The model with offsets and scales of its own, and with statistics of images.

    As it begins, signals die out on the way to its outputs, and rectifiers stand at their kinks.
    """
    rng = np.random.default_rng(2)
    for variable in model.trainable_variables:
        if len(variable.shape) == 1:
            variable.assign_add(0.1 * rng.standard_normal(variable.shape))
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(images(64), training=True)
    return model


def held(model, x, y, digits=None):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    lin = hvp.linearize(model, (x, y), loss, jit=False)
    v = 0.5 + np.random.default_rng(1).standard_normal(lin.size)
    assert np.isfinite(lin.hvp(v)).all()
    assert np.isfinite(lin.gnvp(v)).all()
    report = check(lin)
    print(report)
    checks = {c.name: c for c in report.checks}
    if digits is not None:
        assert checks.pop("digits of Hv").error < digits, str(report)
    assert all(c.passed for c in checks.values()), str(report)
    for name in MEASURED:
        assert checks[name].error is not None, str(report)
        assert checks[name].bound <= BOUND, str(report)


def test_a_decoder():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    held(decoder(), rng.integers(0, 11, (3, 6)), rng.integers(0, 11, (3, 6)))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_one(name):
    keras.utils.set_random_seed(0)
    model, x = alive(LARGE[name]()), images(4)
    assert np.std(model(x), axis=0).mean() > 1e-3
    # In float32 some of a million rectifiers stand on the other side of their kinks.
    held(model, x, np.arange(4) % CLASSES, digits=0.05)
    tf.keras.backend.clear_session()

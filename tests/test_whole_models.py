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


def held(model, x, y):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    lin = hvp.linearize(model, (x, y), loss, jit=False)
    v = 0.5 + np.random.default_rng(1).standard_normal(lin.size)
    assert np.isfinite(lin.hvp(v)).all()
    assert np.isfinite(lin.gnvp(v)).all()
    report = check(lin)
    assert report.passed, str(report)


def test_a_decoder():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    held(decoder(), rng.integers(0, 11, (3, 6)), rng.integers(0, 11, (3, 6)))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_one(name):
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).uniform(size=(4, 32, 32, 3)).astype("float32")
    held(LARGE[name](), images, np.arange(4) % CLASSES)
    tf.keras.backend.clear_session()

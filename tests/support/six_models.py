"""Six small models of different kinds as files, as a user would save them: a model and its data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from hvp import examples

Arrays = dict[str, np.ndarray]
layers = keras.layers


def _digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = examples.mnist()
    return x[:count], y[:count]


def convolutional() -> tuple[keras.Model, Arrays]:
    """A convolutional network with batch normalisation, on digits."""
    x, y = _digits(1000)
    side = int(np.sqrt(x[0].size))
    model = keras.Sequential(
        [
            keras.Input((side, side, 1)),
            layers.Conv2D(8, 3, strides=2),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss)
    return model, {"x": x.reshape(-1, side, side, 1), "y": y}


def recurrent() -> tuple[keras.Model, Arrays]:
    """A masked LSTM on sequences of unequal lengths: which of two symbols comes more often."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 6, (300, 12))
    tokens[np.arange(12) >= rng.integers(4, 13, 300)[:, None]] = 0
    y = ((tokens == 1).sum(1) > (tokens == 2).sum(1)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((12,), dtype="int32"),
            layers.Embedding(6, 8, mask_zero=True),
            layers.LSTM(12),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer="adam", loss=keras.losses.BinaryCrossentropy(from_logits=True))
    return model, {"x": tokens.astype("int32"), "y": y[:, None]}


def transformer() -> tuple[keras.Model, Arrays]:
    """A transformer block that classifies sequences."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 20, (300, 16))
    y = tokens.sum(1) % 3
    inputs = keras.Input((16,), dtype="int32")
    z = layers.Embedding(20, 32)(inputs)
    z = layers.LayerNormalization()(z + layers.MultiHeadAttention(4, 8)(z, z))
    z = layers.LayerNormalization()(z + layers.Dense(32)(layers.Dense(64, "gelu")(z)))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(z)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss)
    return model, {"x": tokens.astype("int32"), "y": y}


def two_outputs() -> tuple[keras.Model, Arrays]:
    """A regression with two outputs."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((500, 6)).astype("float32")
    inputs = keras.Input((6,))
    z = layers.Dense(24, "tanh")(layers.Dense(24, "tanh")(inputs))
    outputs = {"mean": layers.Dense(1, name="mean")(z), "both": layers.Dense(2, name="both")(z)}
    model = keras.Model(inputs, outputs)
    model.compile(optimizer="adam", loss={"mean": "mse", "both": "huber"})
    targets = {"y.mean": x.mean(1, keepdims=True), "y.both": np.sin(x[:, :2])}
    return model, {"x": x, **targets}


def autoencoder() -> tuple[keras.Model, Arrays]:
    """An autoencoder of digits."""
    x, _ = _digits(500)
    x = x.reshape(len(x), -1)
    model = keras.Sequential(
        [
            keras.Input((x.shape[1],)),
            layers.Dense(32, "elu"),
            layers.Dense(8),
            layers.Dense(32, "elu"),
            layers.Dense(x.shape[1], "sigmoid"),
        ]
    )
    model.compile(optimizer="adam", loss="mse")
    return model, {"x": x, "y": x}


def residual(count: int = 2000) -> tuple[keras.Model, Arrays]:
    """A ResNet-20 with 0.27 million parameters on 2,000 images of 32 x 32."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 10, count)
    x = (rng.random((count, 32, 32, 3)) + y[:, None, None, None] / 10).astype("float32") / 2

    def block(z: keras.KerasTensor, filters: int, strides: int) -> keras.KerasTensor:
        short = z
        if strides > 1 or z.shape[-1] != filters:
            short = layers.Conv2D(filters, 1, strides=strides, use_bias=False)(z)
        z = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(z)
        z = layers.ReLU()(layers.BatchNormalization()(z))
        z = layers.Conv2D(filters, 3, padding="same", use_bias=False)(z)
        return layers.ReLU()(layers.BatchNormalization()(z) + short)

    inputs = keras.Input((32, 32, 3))
    z = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    z = layers.ReLU()(layers.BatchNormalization()(z))
    for filters in (16, 32, 64):
        for i in range(3):
            z = block(z, filters, 2 if filters > 16 and i == 0 else 1)
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(z)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss)
    return model, {"x": x, "y": y}


MODELS: dict[str, Callable[[], tuple[keras.Model, Arrays]]] = {
    made.__name__: made
    for made in (convolutional, recurrent, transformer, two_outputs, autoencoder, residual)
}


def write(name: str, directory: Path) -> tuple[Path, Path]:
    """Train one of the models for an epoch, and write it with its data."""
    keras.utils.set_random_seed(0)
    model, arrays = MODELS[name]()
    targets = {key[2:]: array for key, array in arrays.items() if key.startswith("y.")}
    model.fit(arrays["x"], targets or arrays["y"], epochs=1, verbose=0)
    files = directory / f"{name}.keras", directory / f"{name}.npz"
    model.save(files[0])
    np.savez(files[1], **arrays)
    return files

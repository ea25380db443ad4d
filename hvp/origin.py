"""The network this project began with: Flatten - Dense(30) - Dense(30) - Dense(10) on digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

ACTIVATIONS = ("relu", "tanh")
EPOCHS = 12


def network(activation: str, *, dtype: str = "float32", seed: int = 0) -> keras.Model:
    """The untrained network with layers dense1, dense2 and dense3, compiled for `fit`."""
    initial = [keras.initializers.GlorotUniform(seed=seed + layer) for layer in range(3)]
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28), dtype=dtype),
            layers.Flatten(dtype=dtype),
            layers.Dense(30, activation, kernel_initializer=initial[0], dtype=dtype, name="dense1"),
            layers.Dense(30, activation, kernel_initializer=initial[1], dtype=dtype, name="dense2"),
            layers.Dense(10, kernel_initializer=initial[2], dtype=dtype, name="dense3"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype=dtype)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    return model


def train(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    seed: int = 0,
    callbacks: Sequence[Any] = (),
) -> float:
    """Fit the network and return the training accuracy; the same seed gives the same weights."""
    order = np.random.default_rng(seed).permutation(len(x))
    model.fit(
        x[order], y[order], batch_size=64, epochs=EPOCHS, shuffle=False, verbose=0,
        callbacks=list(callbacks),
    )  # fmt: skip
    return float(model.evaluate(x, y, batch_size=1000, verbose=0)[1])

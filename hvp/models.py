"""Named models: the network this project began with, and Keras files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from hvp.errors import InputError

ACTIVATIONS = ("relu", "tanh")
EPOCHS = 8


def origin(activation: str, *, dtype: str = "float32", seed: int = 0) -> keras.Model:
    """Flatten - Dense(30) - Dense(30) - Dense(10) on digits, untrained, compiled for `fit`.

    The layers with weights are named dense1, dense2 and dense3; the loss is the cross-entropy from
    logits.
    """
    layers = keras.layers
    initial = [keras.initializers.GlorotUniform(seed=seed + layer) for layer in range(3)]
    model = keras.Sequential(
        [
            keras.Input((28, 28), dtype=dtype),
            layers.Flatten(dtype=dtype),
            layers.Dense(30, activation, kernel_initializer=initial[0], dtype=dtype, name="dense1"),
            layers.Dense(30, activation, kernel_initializer=initial[1], dtype=dtype, name="dense2"),
            layers.Dense(10, kernel_initializer=initial[2], dtype=dtype, name="dense3"),
        ],
        name=f"origin_{activation}",
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype=dtype)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    return model


def train(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    seed: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Fit the origin's network in a fixed order: the same seed gives the same weights."""
    order = np.random.default_rng(seed).permutation(len(x))
    model.fit(
        x[order],
        y[order],
        batch_size=64,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )


def load(path: str | Path) -> keras.Model:
    """The model of a ``.keras`` file, in Keras's safe mode: layers with Python code are refused."""
    path = Path(path)
    if not path.is_file():
        raise InputError("a .keras file", f"no file {str(path)!r}", "check the path")
    try:
        return keras.models.load_model(path)
    except Exception as error:  # whatever Keras and the file formats below it raise
        reason = _first_line(error)
        raise InputError(
            "a .keras file that Keras can load",
            f"{str(path)!r}: {reason}",
            "save it with model.save",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

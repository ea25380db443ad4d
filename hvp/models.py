"""Named models: the network this project began with, and Keras files in the precision asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from hvp.errors import InputError

ACTIVATIONS = ("relu", "tanh")
DTYPES = ("float32", "float64")
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


def load(path: str | Path, dtype: str | None = None) -> keras.Model:
    """The model of a ``.keras`` file, in `dtype` where one is given.

    Files are read in Keras's safe mode: layers that hold Python code are refused. A model in
    another precision is built anew from its configuration, with its weights and its compiled loss.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("a .keras file", f"no file {str(path)!r}", "check the path")
    try:
        model = keras.models.load_model(path)
    except Exception as error:  # whatever Keras and the file formats below it raise
        reason = _first_line(error)
        raise InputError(
            "a .keras file that Keras can load",
            f"{str(path)!r}: {reason}",
            "save it with model.save",
        ) from error
    dtypes = {variable.dtype for variable in model.weights}
    return model if dtype is None or dtypes <= {dtype} else _in_dtype(model, dtype)


def _in_dtype(model: keras.Model, dtype: str) -> keras.Model:
    if not hasattr(model, "inputs"):
        raise InputError(
            "a Sequential or Functional model to change the precision of",
            type(model).__name__,
            "build it in that precision and save it",
        )

    def clone(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": dtype})

    inputs = [
        keras.Input(
            batch_shape=i.shape, dtype=dtype if "float" in i.dtype else i.dtype, name=i.name
        )
        for i in model.inputs
    ]
    remedy = f"build it in {dtype} and save it"
    try:
        copy = keras.models.clone_model(
            model, input_tensors=inputs[0] if len(inputs) == 1 else inputs, clone_function=clone
        )
        copy.set_weights(model.get_weights())
        if model.compiled:
            copy.compile_from_config(model.get_compile_config())
    except Exception as error:  # of any layer that cannot be built anew
        raise InputError(
            "a model that can be built anew in another precision", _first_line(error), remedy
        ) from error
    left = sorted(v.path for v in copy.weights if v.dtype != dtype and "float" in v.dtype)
    if left:
        raise InputError(f"a model all of whose layers can turn to {dtype}", left[0], remedy)
    return copy


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

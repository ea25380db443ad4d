"""The digits and the network that the command line uses without arguments."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import keras
import numpy as np

ACTIVATIONS = ("relu", "tanh")
EPOCHS = 8


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """The sample of MNIST in this package: images (5000, 28, 28) in [0, 1], labels (5000,).

    There are 500 digits of each class.

    Y. LeCun, C. Cortes, C. Burges: The MNIST database of handwritten digits. CC BY-SA 3.0.

    >>> x, y = mnist()
    >>> x.shape, x.dtype.name, int(y.max())
    ((5000, 28, 28), 'float32', 9)
    """
    file = resources.files("hvp") / "mnist" / "mnist_5k.npz"
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        return arrays["images"].astype(np.float32) / 255, arrays["labels"].astype(np.int32)


def network(activation: str, *, dtype: str = "float32", seed: int = 0) -> keras.Model:
    """The network 784-30-30-10 for digits, compiled but not trained.

    Its dense layers are named dense1, dense2 and dense3. The outputs are logits, and the loss is
    the cross-entropy.
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
        name=f"digits_{activation}",
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
    """Fit the network with the examples in a fixed order: the same seed gives the same weights."""
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

"""Large layers as cases: a dense, convolutional, attention or recurrent network on random data."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hvp.errors import InputError

if TYPE_CHECKING:
    import keras

CLASSES = 10
JIT: dict[str, str | bool] = {"auto": "auto", "on": True, "off": False}


@dataclass(frozen=True)
class Loaded:
    """A model, its data and its loss, a Keras loss or the name of one.

    `data` is (x, y) or (x, y, sample_weight).
    """

    model: keras.Model
    data: tuple[Any, ...]
    loss: Any


@dataclass(frozen=True)
class LayerCase:
    """A network of one kind of layer with random weights, on standard normal inputs.

    Its loss is the mean cross-entropy of random classes: those of a dense network are its outputs,
    the others end in a dense layer with ten.

    Attributes:
        kind: "dense", "conv", "attention" or "lstm".
        sizes: the widths of a dense network; height, width, channels and filters of convolutions;
            length, width and heads of an attention; steps, features and units of LSTMs.
        batch: the number of examples.
        jit: "auto", "on" or "off", see ``jit=`` of `hvp.linearize`.
        seed: of weights and data.
    """

    kind: Literal["dense", "conv", "attention", "lstm"]
    sizes: tuple[int, ...]
    batch: int
    jit: str = "auto"
    seed: int = 0

    @property
    def title(self) -> str:
        return f"{self.kind} {' × '.join(map(str, self.sizes))}, batch {self.batch}"

    @property
    def name(self) -> str:
        return f"{self.kind}-{'x'.join(map(str, self.sizes))}-batch-{self.batch}"

    def load(self) -> Loaded:
        """The network with its data, the same for the same seed."""
        import keras

        keras.utils.set_random_seed(self.seed)
        shape, layers = NETWORKS[self.kind](*self.sizes)
        model = keras.Sequential([keras.Input(shape), *layers])
        rng = np.random.default_rng([self.seed, 1])
        x = rng.standard_normal((self.batch, *shape), dtype=np.float32)
        y = rng.integers(model.output_shape[-1], size=self.batch, dtype=np.int32)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return Loaded(model, (x, y), loss)


def parsed(kind: Any, text: str, batch: int, jit: str, seed: int) -> LayerCase:
    """The case of sizes such as "8192x8192". Raises InputError where they are not such.

    >>> parsed("lstm", "50x128x256", 32, "auto", 0).title
    'lstm 50 × 128 × 256, batch 32'
    """
    example, least = EXAMPLES[kind]
    words = re.split("[x×]", text)
    sizes = tuple(int(word) for word in words if word.isascii() and word.isdigit())
    if len(sizes) != len(words) or len(sizes) < least or min(sizes) < 1:
        raise InputError(f"--{kind} with sizes such as {example}", repr(text), "write it so")
    if kind == "attention" and (len(sizes) > 3 or sizes[1] % sizes[2]):
        expected = f"--attention with length, width and heads that divide it, such as {example}"
        raise InputError(expected, repr(text), "write it so")
    return LayerCase(kind, sizes, batch, jit, seed)


def _dense(*widths: int) -> tuple[tuple[int, ...], list[Any]]:
    from keras import layers

    first, *inner, last = widths
    return (first,), [*(layers.Dense(width, "tanh") for width in inner), layers.Dense(last)]


def _conv(height: int, width: int, channels: int, *filters: int) -> tuple[tuple[int, ...], Any]:
    from keras import layers

    convolutions = [layers.Conv2D(count, 3, padding="same", activation="tanh") for count in filters]
    end = [layers.GlobalAveragePooling2D(), layers.Dense(CLASSES)]
    return (height, width, channels), [*convolutions, *end]


def _attention(length: int, width: int, heads: int) -> tuple[tuple[int, ...], list[Any]]:
    import keras

    x = keras.Input((length, width))
    attention = keras.Model(x, keras.layers.MultiHeadAttention(heads, width // heads)(x, x))
    end = [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(CLASSES)]
    return (length, width), [attention, *end]


def _lstm(steps: int, features: int, *units: int) -> tuple[tuple[int, ...], list[Any]]:
    from keras import layers

    *inner, last = units
    loops = [*(layers.LSTM(count, return_sequences=True) for count in inner), layers.LSTM(last)]
    return (steps, features), [*loops, layers.Dense(CLASSES)]


NETWORKS: dict[str, Callable[..., tuple[tuple[int, ...], list[Any]]]] = {
    "dense": _dense,
    "conv": _conv,
    "attention": _attention,
    "lstm": _lstm,
}
# Kind -> sizes as they are written, and the least number of them.
EXAMPLES = {
    "dense": ("8192x8192", 2),
    "conv": ("32x32x64x128", 4),
    "attention": ("128x512x8", 3),
    "lstm": ("50x128x256", 3),
}
TINY = LayerCase("dense", (9, 6, 5, 3), 6)

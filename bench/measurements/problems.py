"""The problems: an architecture, its weights and its data, the same for every implementation.

An architecture is a tuple of layers, plain descriptions from which each framework builds a network.
A vector of P entries has the layout of Keras, layer by layer: kernels are (inputs, units) or
(height, width, channels, filters).
"""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import dataclass
from importlib import resources

import numpy as np

from hvp import InputError
from hvp.benchmark.layer_cases import Loaded


@dataclass(frozen=True)
class Dense:
    """xW + b on the last axis."""

    inputs: int
    units: int
    activation: str = "linear"


@dataclass(frozen=True)
class Conv:
    """A 3 × 3 convolution with bias and stride one, padded so that the image keeps its size."""

    channels: int
    filters: int
    activation: str = "linear"


@dataclass(frozen=True)
class MaxPool:
    """The maximum over windows of 2 × 2."""


@dataclass(frozen=True)
class GlobalAverage:
    """The mean over all positions."""


@dataclass(frozen=True)
class Encoder:
    """x + attention(norm(x)), then x + dense(gelu(dense(norm(x))))."""

    width: int
    heads: int
    hidden: int


Layer = Dense | Conv | MaxPool | GlobalAverage | Encoder
# The epsilon of LayerNormalization: the default of Keras, set in all frameworks.
EPSILON = 1e-3


@dataclass(frozen=True)
class Weight:
    """One parameter tensor, in the shape it has in Keras.

    `role` is matrix (a linear map from `fan_in` inputs, its first axes), filter, scale or shift.
    """

    shape: tuple[int, ...]
    role: str
    fan_in: int = 1

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def layer_weights(layer: Layer) -> list[Weight]:
    """The parameter tensors of a layer, in the order of Keras."""
    match layer:
        case Dense():
            return [
                Weight((layer.inputs, layer.units), "matrix", layer.inputs),
                Weight((layer.units,), "shift"),
            ]
        case Conv():
            shape = (3, 3, layer.channels, layer.filters)
            return [Weight(shape, "filter", 9 * layer.channels), Weight((layer.filters,), "shift")]
        case Encoder():
            return _encoder_weights(layer)
    return []


def _encoder_weights(layer: Encoder) -> list[Weight]:
    width, depth = layer.width, layer.width // layer.heads
    norm = [Weight((width,), "scale"), Weight((width,), "shift")]
    heads = [
        Weight((width, layer.heads, depth), "matrix", width),
        Weight((layer.heads, depth), "shift"),
    ]
    together = [Weight((layer.heads, depth, width), "matrix", width), Weight((width,), "shift")]
    wide = layer_weights(Dense(width, layer.hidden))
    narrow = layer_weights(Dense(layer.hidden, width))
    return norm + 3 * heads + together + norm + wide + narrow


@dataclass(frozen=True)
class Problem:
    """A network with softmax cross-entropy, averaged over a batch.

    Attributes:
        name: its name on the command line.
        title: its name in the tables.
        shape: the shape of one input.
        layers: the architecture; the outputs are the logits.
        batch: the number of examples, all in one batch.
        digits: whether the inputs are the digits of hvp; else they are standard normal.
        quick: whether a run with `--quick` includes it.
        jit: see ``jit=`` of `hvp.linearize`.
    """

    name: str
    title: str
    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    batch: int
    digits: bool = False
    quick: bool = True
    jit: str = "auto"

    def load(self) -> Loaded:
        """The problem in Keras, as the implementations of `hvp.benchmark` take it."""
        from bench.backends import keras_models

        return Loaded(keras_models.build(self), data(self), keras_models.loss())

    @property
    def weights(self) -> list[Weight]:
        return [weight for layer in self.layers for weight in layer_weights(layer)]

    @property
    def size(self) -> int:
        """P."""
        return sum(weight.size for weight in self.weights)

    @property
    def classes(self) -> int:
        last = self.layers[-1]
        assert isinstance(last, Dense)
        return last.units

    @property
    def is_dense(self) -> bool:
        return all(isinstance(layer, Dense) for layer in self.layers)


def values(problem: Problem, seed: int = 0) -> list[np.ndarray]:
    """The weights in float32: normal, with variance 1/fan_in, so that signals keep their size."""
    rng = np.random.default_rng(seed)
    return [_draw(weight, rng) for weight in problem.weights]


def _draw(weight: Weight, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(weight.shape, dtype=np.float32)
    if weight.role in ("matrix", "filter"):
        return noise / np.float32(math.sqrt(weight.fan_in))
    # Neither one nor zero, so that an exchange of scale and shift changes the product.
    return np.float32(weight.role == "scale") + np.float32(0.1) * noise


def data(problem: Problem, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The inputs (N, *shape), float32, and the labels (N,), int32."""
    rng = np.random.default_rng([seed, 1])
    if problem.digits:
        x, y = read_digits()
        chosen = rng.permutation(len(x))[: problem.batch]
        return x[chosen], y[chosen]
    x = rng.standard_normal((problem.batch, *problem.shape), dtype=np.float32)
    return x, rng.integers(problem.classes, size=problem.batch, dtype=np.int32)


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """The digits in the package hvp: images (5000, 784) in [0, 1], and labels (5000,)."""
    stored = (resources.files("hvp") / "mnist" / "mnist_5k.npz").read_bytes()
    with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
        images = arrays["images"].reshape(len(arrays["images"]), -1)
        return images.astype(np.float32) / 255, arrays["labels"].astype(np.int32)


def _net(*widths: int) -> tuple[Layer, ...]:
    *inner, last = itertools.pairwise(widths)
    return (*(Dense(*sizes, "tanh") for sizes in inner), Dense(*last))


_SMALL = _net(784, 30, 30, 10)
_CONVOLUTIONS: tuple[Layer, ...] = (
    Conv(3, 32, "relu"), MaxPool(), Conv(32, 64, "relu"), MaxPool(), Conv(64, 128, "relu"),
    GlobalAverage(), Dense(128, 10),
)  # fmt: skip
_TRANSFORMER: tuple[Layer, ...] = (
    Encoder(128, 4, 512), Encoder(128, 4, 512), GlobalAverage(), Dense(128, 10),
)  # fmt: skip

PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("small-1", "784-30-30-10, batch 1", (784,), _SMALL, 1, digits=True),
        Problem("small-256", "784-30-30-10, batch 256", (784,), _SMALL, 256, digits=True),
        Problem(
            "wide", "784-1024-1024-10, batch 256", (784,), _net(784, 1024, 1024, 10), 256, True
        ),
        Problem("convnet", "convnet 32-64-128, batch 64", (32, 32, 3), _CONVOLUTIONS, 64),
        Problem("transformer", "two encoder blocks, batch 32", (32, 128), _TRANSFORMER, 32),
        Problem("dense-4096", "dense 4096 × 4096, batch 128", (4096,), (Dense(4096, 4096),), 128),
        Problem(
            "dense-8192",
            "dense 8192 × 8192, batch 128",
            (8192,),
            (Dense(8192, 8192),),
            128,
            quick=False,
        ),
    )
}
# Tiny problems for the warm-up and for the tests; together they have all kinds of layers.
TINY = {
    "tiny-dense": Problem("tiny-dense", "tiny dense net", (9,), _net(9, 6, 5, 3), 6),
    "tiny-convnet": Problem(
        "tiny-convnet",
        "tiny convnet",
        (4, 4, 2),
        (Conv(2, 3, "relu"), MaxPool(), GlobalAverage(), Dense(3, 3)),
        2,
    ),
    "tiny-transformer": Problem(
        "tiny-transformer",
        "tiny transformer",
        (3, 4),
        (Encoder(4, 2, 6), GlobalAverage(), Dense(4, 3)),
        2,
    ),
}
EIGENVALUES = Problem("digits", "784-30-30-10, 5,000 digits", (784,), _SMALL, 5000, digits=True)


def find(name: str) -> Problem:
    """The problem with this name. Raises InputError for an unknown name."""
    known = {**PROBLEMS, **TINY, EIGENVALUES.name: EIGENVALUES}
    if name not in known:
        raise InputError(
            f"a problem among {', '.join(PROBLEMS)}", repr(name), "choose one of these"
        )
    return known[name]

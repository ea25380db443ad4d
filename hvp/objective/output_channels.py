"""Which axes of the weights of Keras layers number the output channels.

The layouts are those of Keras, and where Keras itself quantises a layer to eight bits the channels
are those that it gives a scale of their own: columns of dense kernels, the output axes of an
`EinsumDense`, and rows of embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import keras

Axes = tuple[int, ...]
# Layers whose weight of this name has other axes than the last one; by its number of axes.
EXCEPTIONS: tuple[tuple[tuple[type[keras.Layer], ...], str, Callable[[int], Axes]], ...] = (
    # (…, channels in, multiplier): each input channel has outputs of its own.
    (
        (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
        "kernel",
        lambda rank: (rank - 2, rank - 1),
    ),
    (
        (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D),
        "depthwise_kernel",
        lambda rank: (rank - 2, rank - 1),
    ),
    # (…, channels out, channels in)
    (
        (
            keras.layers.Conv1DTranspose,
            keras.layers.Conv2DTranspose,
            keras.layers.Conv3DTranspose,
        ),
        "kernel",
        lambda rank: (rank - 2,),
    ),
    # (words, features): a word is a row.
    ((keras.layers.Embedding,), "embeddings", lambda rank: (0,)),
)


def channel_axes(layers: Iterable[keras.Layer], variables: Sequence[keras.Variable]) -> list[Axes]:
    """For each variable the axes that number its channels; the last one by default."""
    known = {id(v): axes for layer in layers for v, axes in _of_layer(layer)}
    return [known.get(id(variable), last_axis(variable.shape)) for variable in variables]


def last_axis(shape: Sequence[int]) -> Axes:
    """The last axis; none for a scalar, which is one channel."""
    return (len(shape) - 1,) if len(shape) else ()


def _of_layer(layer: keras.Layer) -> Iterable[tuple[keras.Variable, Axes]]:
    if isinstance(layer, keras.layers.EinsumDense):
        yield from _of_einsum(layer)
    for classes, name, axes in EXCEPTIONS:
        if isinstance(layer, classes):
            yield from ((v, axes(len(v.shape))) for v in layer.weights if v.name == name)


def _of_einsum(layer: keras.layers.EinsumDense) -> Iterable[tuple[keras.Variable, Axes]]:
    """The axes of a kernel whose letters are those of outputs; all of a bias."""
    inputs, outputs = layer.equation.split("->")
    letters = inputs.split(",")[1].strip()
    of_kernel = tuple(i for i, letter in enumerate(letters) if letter in outputs)
    for variable in layer.weights:
        if variable.name == "kernel":
            yield variable, of_kernel
        elif variable.name == "bias":
            yield variable, tuple(range(len(variable.shape)))

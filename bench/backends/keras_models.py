"""The problems as Keras models."""

from __future__ import annotations

import keras

from bench.measurements.problems import (
    EPSILON,
    Conv,
    Dense,
    Encoder,
    GlobalAverage,
    Layer,
    MaxPool,
    Problem,
    values,
)


def build(problem: Problem) -> keras.Model:
    """The network with its weights; its outputs are logits."""
    inputs = tensor = keras.Input(problem.shape)
    for layer in problem.layers:
        tensor = _apply(layer, tensor)
    model = keras.Model(inputs, tensor)
    model.set_weights(values(problem))
    return model


def loss() -> keras.losses.Loss:
    """The mean cross-entropy of logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _apply(layer: Layer, x: keras.KerasTensor) -> keras.KerasTensor:
    layers = keras.layers
    match layer:
        case Dense():
            return layers.Dense(layer.units, layer.activation)(x)
        case Conv():
            return layers.Conv2D(layer.filters, 3, padding="same", activation=layer.activation)(x)
        case MaxPool():
            return layers.MaxPooling2D()(x)
        case GlobalAverage():
            return (
                layers.GlobalAveragePooling2D if x.ndim == 4 else layers.GlobalAveragePooling1D
            )()(x)
        case Encoder():
            normed = layers.LayerNormalization(epsilon=EPSILON)(x)
            attention = layers.MultiHeadAttention(layer.heads, layer.width // layer.heads)
            x = layers.Add()([x, attention(normed, normed)])
            normed = layers.LayerNormalization(epsilon=EPSILON)(x)
            hidden = layers.Dense(layer.hidden, "gelu")(normed)
            return layers.Add()([x, layers.Dense(layer.width)(hidden)])

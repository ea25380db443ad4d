"""The table of cases: every layer and activation that Keras ships, as a small network in float64.

The products of a case are right, or the case is refused with the words given. The table of
`tests/README.md` is made from these cases: run this file to print it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

layers = keras.layers
Stack = Callable[[], Sequence[Any]]


@dataclass(frozen=True, eq=False)
class LayerCase:
    """A network: the layers of `stack`, one after the other, on inputs of this shape.

    Attributes:
        refused: words of the refusal; None where the products are right.
        training: whether the network is called in training mode.
        indices: whether the inputs are whole numbers, for an Embedding.
        lower: whether TensorFlow computes some operation in float32 only.
        floatx: the precision of the network.
        batch_size: the one batch size that the network is built for; None for any.
    """

    group: str
    name: str
    stack: Stack
    shape: tuple[int, ...] = (4,)
    refused: str | None = None
    training: bool = False
    indices: bool = False
    lower: bool = False
    floatx: str = "float64"
    batch_size: int | None = None

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"

    def model(self, seed: int = 1) -> keras.Model:
        dtype = "int32" if self.indices else self.floatx
        inputs = keras.Input(self.shape, dtype=dtype, batch_size=self.batch_size)
        z = inputs
        for layer in self.stack():
            z = layer(z)
        model = keras.Model(inputs, z, name="net")
        rng = np.random.default_rng(seed)
        for variable in model.trainable_variables:
            variable.assign(0.6 * rng.standard_normal(variable.shape) + 0.1)
        return model

    def inputs(self, count: int = 3) -> np.ndarray:
        rng = np.random.default_rng(2)
        if self.indices:
            return rng.integers(0, 5, (count, *self.shape))
        return rng.standard_normal((count, *self.shape)).astype(self.floatx)


def dense(units: int = 3, **options: Any) -> keras.Layer:
    return layers.Dense(units, **options)


def tanh(units: int = 4) -> keras.Layer:
    return layers.Dense(units, "tanh")


def attention(layer: keras.Layer) -> Callable[[Any], Any]:
    """A layer of queries and values on one tensor."""
    return lambda t: layer(t, t)


def on_a_list(layer: keras.Layer) -> Callable[[Any], Any]:
    """A layer of a list [queries, values], both of them one tensor."""
    return lambda t: layer([t, t])


ACTIVATIONS = [
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu",
    "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6",
    "selu", "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus",
    "sparse_sigmoid", "sparsemax", "squareplus", "tanh", "tanh_shrink", "threshold",
]  # fmt: skip


def _activation(name: str) -> LayerCase:
    def stack() -> Sequence[Any]:
        if name == "threshold":
            return [dense(4), lambda t: keras.activations.threshold(t, 0.1, -0.2), dense()]
        if name == "glu":  # halves the channels, which Activation does not support
            return [dense(4), layers.Lambda(keras.activations.glu, output_shape=(2,)), dense()]
        return [dense(4), layers.Activation(name), dense()]

    return LayerCase("activations", name, stack)


class Branching(layers.Layer):
    """tanh where the mean of the input is positive, its square elsewhere."""

    def call(self, x):
        return tf.cond(tf.reduce_mean(x) > 0, lambda: tf.tanh(x), lambda: tf.tanh(x) ** 2)


class Looping(layers.Layer):
    """Ten steps of an iteration."""

    def call(self, x):
        start = (tf.constant(0), x)
        return tf.while_loop(
            lambda i, y: i < 10, lambda i, y: (i + 1, tf.tanh(y + 0.5 * x)), start
        )[1]


class Nested(layers.Layer):
    """A layer that calls a `tf.function` of its own."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    @tf.function
    def product(self, x):
        return tf.tanh(x @ self.kernel)

    def call(self, x):
        return self.product(x)


class CustomGradient(layers.Layer):
    """A custom gradient that is the derivative of its function."""

    def call(self, x):
        @tf.custom_gradient
        def cube(x):
            return x**3, lambda upstream: upstream * 3 * x**2

        return cube(x)


def _rnn(name: str, stack: Stack, shape: tuple[int, ...] = (5, 3), **options: Any) -> LayerCase:
    return LayerCase("recurrent", name, stack, shape, **options)


def _conv(name: str, *stack: Any, shape: tuple[int, ...] = (5, 5, 2), **options: Any) -> LayerCase:
    return LayerCase(
        "convolutions",
        name,
        lambda: [
            *(make() for make in stack),
            layers.Activation("tanh"),
            layers.Flatten(),
            dense(2),
        ],
        shape,
        **options,
    )


def _pool(name: str, make: Callable[[], Any], shape: tuple[int, ...], **options: Any) -> LayerCase:
    conv = [layers.Conv1D, layers.Conv2D, layers.Conv3D][len(shape) - 2]
    return LayerCase(
        "pooling",
        name,
        lambda: [conv(2, 2, activation="tanh"), make(), layers.Flatten(), dense(2)],
        shape,
        **options,
    )


def _norm(name: str, make: Callable[[], Any], **options: Any) -> LayerCase:
    return LayerCase(
        "normalisation",
        name,
        lambda: [dense(4), make(), layers.Activation("tanh"), dense()],
        **options,
    )


def _attention(name: str, *stack: Callable[[], Any], **options: Any) -> LayerCase:
    return LayerCase(
        "attention",
        name,
        lambda: [tanh(4), *(make() for make in stack), dense(2)],
        (3, 4),
        **options,
    )


def _mask(t: Any, *steps: bool) -> Any:
    """A mask over the steps of t, the same for each example."""
    return keras.ops.logical_and(t[..., 0] < np.inf, np.array(steps))


def _masked(layer: keras.Layer) -> Callable[[Any], Any]:
    """Attention with a mask on the last value and on the first query."""

    def call(t: Any) -> Any:
        z = layer([t, t], mask=[_mask(t, False, True, True), _mask(t, True, True, False)])
        return keras.ops.reshape(z, (-1, 12))  # the result has no mask

    return call


def _shaping(
    name: str, make: Callable[[], Any], shape: tuple[int, ...], **options: Any
) -> LayerCase:
    return LayerCase(
        "shapes and images",
        name,
        lambda: [dense(2, activation="tanh"), make(), layers.Flatten(), dense(2)],
        shape,
        **options,
    )


CASES = [
    *map(_activation, ACTIVATIONS),
    LayerCase("activations", "PReLU", lambda: [dense(4), layers.PReLU(), dense()]),
    LayerCase("activations", "ReLU layer", lambda: [dense(4), layers.ReLU(1.5, 0.1), dense()]),
    LayerCase("activations", "ELU layer", lambda: [dense(4), layers.ELU(), dense()]),
    LayerCase("activations", "LeakyReLU", lambda: [dense(4), layers.LeakyReLU(), dense()]),
    LayerCase("activations", "Softmax layer", lambda: [dense(4), layers.Softmax(), dense()]),
    LayerCase("core", "Dense", lambda: [tanh(), dense()]),
    LayerCase("core", "EinsumDense", lambda: [
        layers.EinsumDense("ab,bc->ac", 4, bias_axes="c", activation="tanh"), dense()]),
    LayerCase("core", "Embedding", lambda: [
        layers.Embedding(5, 3), layers.Flatten(), tanh(), dense()], indices=True),
    LayerCase("core", "ReversibleEmbedding", lambda: [
        layers.ReversibleEmbedding(5, 3), layers.Flatten(), tanh(), dense()], indices=True),
    LayerCase("core", "a frozen layer", lambda: [dense(4, trainable=False), tanh(), dense()]),
    LayerCase("core", "Identity", lambda: [tanh(), layers.Identity(), dense()]),
    LayerCase("core", "ActivityRegularization", lambda: [
        tanh(), layers.ActivityRegularization(0.1, 0.2), dense()]),
    LayerCase("core", "Masking", lambda: [layers.Masking(), tanh(), dense(1)], (4, 2)),
    LayerCase("core", "Lambda", lambda: [tanh(), layers.Lambda(lambda t: t**3), dense()]),
    LayerCase("core", "tf.cond", lambda: [dense(4), Branching(), dense()]),
    LayerCase("core", "tf.while_loop", lambda: [dense(4), Looping(), dense()]),
    LayerCase("core", "a nested tf.function", lambda: [dense(4), Nested(), dense()]),
    LayerCase("core", "tf.custom_gradient", lambda: [dense(4), CustomGradient(), dense()]),
    LayerCase("core", "Add", lambda: [tanh(), lambda t: layers.Add()([t, t**2]), dense()]),
    LayerCase("core", "merging layers", lambda: [
        tanh(), lambda t: layers.Concatenate()([layers.Multiply()([t, t]), layers.Average()([
            t, layers.Subtract()([t, layers.Maximum()([t, 0.1 * t])])])]), dense()]),
    LayerCase("core", "Dot and Minimum", lambda: [
        tanh(), lambda t: layers.Dot(1)([t, layers.Minimum()([t, t**2])]), dense()]),
    _conv("Conv1D", lambda: layers.Conv1D(3, 2), shape=(6, 2)),
    _conv("Conv1D, causal and dilated", lambda: layers.Conv1D(
        3, 2, padding="causal", dilation_rate=2), shape=(6, 2)),
    _conv("Conv2D", lambda: layers.Conv2D(3, 2, strides=2, padding="same")),
    _conv("Conv2D, dilated", lambda: layers.Conv2D(2, 2, dilation_rate=2)),
    _conv("Conv3D", lambda: layers.Conv3D(2, 2), shape=(3, 3, 3, 2)),
    _conv("Conv3D, dilated", lambda: layers.Conv3D(2, 2, dilation_rate=2), shape=(3, 3, 3, 2)),
    _conv("Conv1D, grouped", lambda: layers.Conv1D(4, 2, groups=2), shape=(6, 4)),
    _conv("Conv2D, grouped", lambda: layers.Conv2D(
        4, 2, strides=2, padding="same", groups=2), shape=(5, 5, 4)),
    _conv("Conv2D, a group a channel", lambda: layers.Conv2D(8, 3, padding="same", groups=4),
          shape=(5, 5, 4)),
    _conv("Conv2D, grouped and dilated", lambda: layers.Conv2D(
        4, 2, dilation_rate=2, groups=2), shape=(5, 5, 4)),
    _conv("Conv3D, grouped", lambda: layers.Conv3D(4, 2, groups=2), shape=(3, 3, 3, 4)),
    _conv("DepthwiseConv1D", lambda: layers.DepthwiseConv1D(2), shape=(6, 2)),
    _conv("DepthwiseConv1D, dilated", lambda: layers.DepthwiseConv1D(2, dilation_rate=2),
          shape=(6, 2)),
    _conv("DepthwiseConv2D", lambda: layers.DepthwiseConv2D(2, depth_multiplier=2)),
    _conv("DepthwiseConv2D, strided", lambda: layers.DepthwiseConv2D(
        2, strides=2, padding="same")),
    _conv("DepthwiseConv2D, dilated", lambda: layers.DepthwiseConv2D(2, dilation_rate=2)),
    _conv("DepthwiseConv2D, channels first", lambda: layers.DepthwiseConv2D(
        2, data_format="channels_first"), shape=(2, 5, 5)),
    _conv("SeparableConv1D", lambda: layers.SeparableConv1D(3, 2), shape=(6, 2)),
    _conv("SeparableConv1D, dilated", lambda: layers.SeparableConv1D(3, 2, dilation_rate=2),
          shape=(6, 2)),
    _conv("SeparableConv2D", lambda: layers.SeparableConv2D(3, 2)),
    _conv("SeparableConv2D, dilated", lambda: layers.SeparableConv2D(
        3, 2, dilation_rate=2, padding="same")),
    _conv("SeparableConv2D, channels first", lambda: layers.SeparableConv2D(
        3, 2, data_format="channels_first"), shape=(2, 5, 5)),
    _conv("Conv1DTranspose", lambda: layers.Conv1DTranspose(3, 2), shape=(5, 2)),
    _conv("Conv1DTranspose, output padding", lambda: layers.Conv1DTranspose(
        3, 3, strides=3, output_padding=1), shape=(5, 2)),
    _conv("Conv2DTranspose", lambda: layers.Conv2DTranspose(3, 2, strides=2)),
    _conv("Conv2DTranspose, output padding", lambda: layers.Conv2DTranspose(
        3, 3, strides=2, output_padding=1, padding="same"), shape=(4, 4, 2)),
    _conv("Conv3DTranspose", lambda: layers.Conv3DTranspose(2, 2), shape=(3, 3, 3, 2)),
    _conv("Conv3DTranspose, output padding", lambda: layers.Conv3DTranspose(
        2, 3, strides=2, output_padding=1), shape=(2, 2, 2, 2)),
    _pool("MaxPooling1D", lambda: layers.MaxPooling1D(2), (7, 2)),
    _pool("MaxPooling2D", lambda: layers.MaxPooling2D(2), (6, 6, 2)),
    _pool("MaxPooling2D, overlapping", lambda: layers.MaxPooling2D(3, 2, "same"), (6, 6, 2)),
    _pool("MaxPooling2D, same shape", lambda: layers.MaxPooling2D(3, 1, "same"), (5, 5, 2)),
    _pool("MaxPooling3D", lambda: layers.MaxPooling3D(2), (5, 5, 5, 1),
          lower=True, floatx="float32"),
    _pool("MaxPooling3D, same shape", lambda: layers.MaxPooling3D(2, 1, "same"), (3, 3, 3, 1),
          lower=True, floatx="float32"),
    _pool("AveragePooling1D", lambda: layers.AveragePooling1D(2), (7, 2)),
    _pool("AveragePooling2D", lambda: layers.AveragePooling2D(2), (6, 6, 2)),
    _pool("AveragePooling3D", lambda: layers.AveragePooling3D(2), (5, 5, 5, 1),
          lower=True, floatx="float32"),
    _pool("GlobalMaxPooling1D", lambda: layers.GlobalMaxPooling1D(), (7, 2)),
    _pool("GlobalMaxPooling2D", lambda: layers.GlobalMaxPooling2D(), (6, 6, 2)),
    _pool("GlobalMaxPooling3D", lambda: layers.GlobalMaxPooling3D(), (4, 4, 4, 1)),
    _pool("GlobalAveragePooling1D", lambda: layers.GlobalAveragePooling1D(), (7, 2)),
    _pool("GlobalAveragePooling2D", lambda: layers.GlobalAveragePooling2D(), (6, 6, 2)),
    _pool("GlobalAveragePooling3D", lambda: layers.GlobalAveragePooling3D(), (4, 4, 4, 1)),
    _pool("AdaptiveAveragePooling1D", lambda: layers.AdaptiveAveragePooling1D(3), (7, 2)),
    _pool("AdaptiveMaxPooling1D", lambda: layers.AdaptiveMaxPooling1D(3), (7, 2)),
    _pool("AdaptiveAveragePooling3D", lambda: layers.AdaptiveAveragePooling3D(2), (4, 4, 4, 1),
          lower=True, floatx="float32"),
    _pool("AdaptiveMaxPooling3D", lambda: layers.AdaptiveMaxPooling3D(2), (4, 4, 4, 1),
          lower=True, floatx="float32"),
    _pool("AdaptiveAveragePooling2D", lambda: layers.AdaptiveAveragePooling2D(2), (6, 6, 2)),
    _pool("AdaptiveMaxPooling2D", lambda: layers.AdaptiveMaxPooling2D(2), (6, 6, 2)),
    _norm("BatchNormalization, inference", layers.BatchNormalization),
    _norm("BatchNormalization, training", layers.BatchNormalization, training=True),
    LayerCase("normalisation", "BatchNormalization of images, training", lambda: [
        layers.Conv2D(3, 2), layers.BatchNormalization(), layers.Activation("tanh"),
        layers.Flatten(), dense(2)], (3, 3, 2), training=True),
    _norm("LayerNormalization", layers.LayerNormalization),
    LayerCase("normalisation", "LayerNormalization, two axes", lambda: [
        dense(4), layers.LayerNormalization(axis=(1, 2)), layers.Activation("tanh"), dense(2)],
        (3, 4)),
    _norm("RMSNormalization", layers.RMSNormalization),
    _norm("GroupNormalization", lambda: layers.GroupNormalization(2)),
    _norm("UnitNormalization", layers.UnitNormalization),
    _norm("Normalization", lambda: layers.Normalization(mean=0.3, variance=2.0)),
    LayerCase("normalisation", "SpectralNormalization", lambda: [
        layers.SpectralNormalization(dense(4)), layers.Activation("tanh"), dense()]),
    LayerCase("normalisation", "SpectralNormalization, training", lambda: [
        layers.SpectralNormalization(dense(4)), layers.Activation("tanh"), dense()], training=True,
        refused="does not change its parameters when it is called, got .* assigned by its"),
    _attention("MultiHeadAttention", lambda: attention(layers.MultiHeadAttention(2, 3))),
    _attention("MultiHeadAttention, causal", lambda: (
        lambda t: layers.MultiHeadAttention(2, 3)(t, t, use_causal_mask=True))),
    _attention("GroupQueryAttention", lambda: attention(layers.GroupQueryAttention(3, 4, 2))),
    _attention("AdditiveAttention", lambda: on_a_list(layers.AdditiveAttention())),
    _attention("AdditiveAttention, masked", lambda: _masked(layers.AdditiveAttention())),
    _attention("Attention", lambda: on_a_list(layers.Attention(use_scale=True))),
    _attention("Attention, masked", lambda: _masked(layers.Attention())),
    _attention("MultiHeadAttention, masked", lambda: (
        lambda t: layers.MultiHeadAttention(2, 3)(
            t, t, key_mask=_mask(t, True, True, False)))),
    _rnn("LSTM", lambda: [layers.LSTM(3), dense(2)]),
    _rnn("LSTM, unrolled", lambda: [layers.LSTM(3, unroll=True), dense(2)]),
    _rnn("LSTM, stacked", lambda: [
        layers.LSTM(2, return_sequences=True), layers.LSTM(2), dense(2)]),
    _rnn("LSTM, masked", lambda: [layers.Masking(), layers.LSTM(3), dense(2)]),
    _rnn("LSTM, masked, unrolled", lambda: [
        layers.Masking(), layers.LSTM(3, unroll=True), dense(2)]),
    _rnn("LSTM, backwards", lambda: [layers.LSTM(2, go_backwards=True), dense(2)]),
    _rnn("GRU", lambda: [layers.GRU(3), dense(2)]),
    _rnn("GRU, reset before", lambda: [layers.GRU(2, reset_after=False), dense(2)]),
    _rnn("GRU, unrolled", lambda: [layers.GRU(3, unroll=True), dense(2)]),
    _rnn("GRU, sequences", lambda: [layers.GRU(2, return_sequences=True), dense(2)]),
    _rnn("SimpleRNN", lambda: [layers.SimpleRNN(3), dense(2)]),
    _rnn("SimpleRNN, unrolled", lambda: [layers.SimpleRNN(3, unroll=True), dense(2)]),
    _rnn("Bidirectional", lambda: [layers.Bidirectional(layers.LSTM(2)), dense(2)]),
    _rnn("Bidirectional, masked and stacked", lambda: [
        layers.Masking(), layers.Bidirectional(layers.GRU(2, return_sequences=True)),
        layers.LSTM(2), dense(2)]),
    _rnn("Bidirectional, unrolled", lambda: [
        layers.Bidirectional(layers.SimpleRNN(2, unroll=True)), dense(2)]),
    _rnn("GRU, masked", lambda: [layers.Masking(), layers.GRU(2), dense(2)]),
    _rnn("SimpleRNN, masked and stacked", lambda: [
        layers.Masking(), layers.SimpleRNN(2, return_sequences=True), layers.SimpleRNN(2),
        dense(2)], (4, 3)),
    _rnn("SimpleRNN, stateful", lambda: [
        layers.SimpleRNN(2, stateful=True), dense(2)], batch_size=3),
    _rnn("StackedRNNCells of SimpleRNNCell, unrolled", lambda: [
        layers.RNN(layers.StackedRNNCells([layers.SimpleRNNCell(2), layers.SimpleRNNCell(2)]),
                   unroll=True), dense(2)]),
    _rnn("RNN of stacked cells", lambda: [
        layers.RNN([layers.LSTMCell(2), layers.GRUCell(2)]), dense(2)]),
    _rnn("TimeDistributed", lambda: [
        layers.TimeDistributed(tanh(3)), layers.SimpleRNN(2), dense(2)]),
    _rnn("ConvLSTM1D", lambda: [layers.ConvLSTM1D(2, 2), layers.Flatten(), dense(2)], (3, 4, 1)),
    _rnn("ConvLSTM2D", lambda: [layers.ConvLSTM2D(2, 2), layers.Flatten(), dense(2)], (3, 3, 3, 1)),
    _rnn("ConvLSTM3D", lambda: [
        layers.ConvLSTM3D(2, 2), layers.Flatten(), dense(2)], (2, 2, 2, 2, 1)),
    _rnn("ConvLSTM1D, unrolled", lambda: [
        layers.ConvLSTM1D(1, 2, unroll=True), layers.Flatten(), dense(2)], (2, 3, 1)),
    _rnn("ConvLSTM1D, masked", lambda: [
        layers.TimeDistributed(layers.Masking()), layers.ConvLSTM1D(1, 2), layers.Flatten(),
        dense(2)], (2, 3, 1)),
    _rnn("Embedding with mask, LSTM", lambda: [
        layers.Embedding(5, 3, mask_zero=True), layers.LSTM(2), dense(2)], (5,), indices=True),
    _shaping("UpSampling1D", lambda: layers.UpSampling1D(2), (3, 2)),
    _shaping("UpSampling2D, nearest", lambda: layers.UpSampling2D(2), (3, 3, 2)),
    _shaping("UpSampling2D, bilinear", lambda: layers.UpSampling2D(
        2, interpolation="bilinear"), (3, 3, 2), lower=True),
    _shaping("UpSampling2D, bicubic", lambda: layers.UpSampling2D(
        2, interpolation="bicubic"), (3, 3, 2), lower=True),
    _shaping("UpSampling3D", lambda: layers.UpSampling3D(2), (2, 2, 2, 1)),
    _shaping("Resizing", lambda: layers.Resizing(4, 5), (3, 3, 2), lower=True),
    _shaping("Resizing, nearest", lambda: layers.Resizing(
        4, 5, interpolation="nearest"), (3, 3, 2)),
    _shaping("Resizing, bicubic", lambda: layers.Resizing(
        4, 5, interpolation="bicubic"), (3, 3, 2), lower=True),
    _shaping("ZeroPadding2D and Cropping2D", lambda: (
        lambda t: layers.Cropping2D(1)(layers.ZeroPadding2D(2)(t))), (3, 3, 2)),
    _shaping("ZeroPadding1D and Cropping1D", lambda: (
        lambda t: layers.Cropping1D(1)(layers.ZeroPadding1D(2)(t))), (3, 2)),
    _shaping("ZeroPadding3D and Cropping3D", lambda: (
        lambda t: layers.Cropping3D(1)(layers.ZeroPadding3D(2)(t))), (2, 2, 2, 2)),
    _shaping("STFTSpectrogram", lambda: layers.STFTSpectrogram(
        mode="log", frame_length=4, frame_step=2, fft_length=4), (8, 2)),
    LayerCase("shapes and images", "MelSpectrogram", lambda: [
        tanh(16), layers.MelSpectrogram(
            fft_length=8, sequence_stride=4, sequence_length=8, sampling_rate=80, num_mel_bins=4,
            min_freq=2), layers.Flatten(), dense(2)], lower=True, floatx="float32"),
    _shaping("Permute and Reshape", lambda: (
        lambda t: layers.Reshape((6,))(layers.Permute((2, 1))(t))), (3, 2)),
    _shaping("RepeatVector", lambda: layers.RepeatVector(2), (3,)),
    _shaping("CenterCrop", lambda: layers.CenterCrop(2, 2), (4, 4, 2)),
    _shaping("Rescaling", lambda: layers.Rescaling(0.5, 0.1), (3, 2)),
    *[
        LayerCase("dropout", f"{name}{', training' if training else ''}", lambda make=make: [
            tanh(4), make(), dense()], training=training)
        for name, make in {
            "Dropout": lambda: layers.Dropout(0.4, seed=3),
            "AlphaDropout": lambda: layers.AlphaDropout(0.4, seed=3),
            "GaussianDropout": lambda: layers.GaussianDropout(0.4, seed=3),
            "GaussianNoise": lambda: layers.GaussianNoise(0.4, seed=3),
        }.items()
        for training in (False, True)
    ],
    LayerCase("dropout", "SpatialDropout1D, training", lambda: [
        tanh(4), layers.SpatialDropout1D(0.4, seed=3), dense()], (3, 4), training=True),
    LayerCase("dropout", "SpatialDropout2D, training", lambda: [
        tanh(4), layers.SpatialDropout2D(0.4, seed=3), dense()], (2, 3, 4), training=True),
    LayerCase("dropout", "SpatialDropout3D, training", lambda: [
        tanh(4), layers.SpatialDropout3D(0.4, seed=3), dense()], (2, 2, 2, 4), training=True),
    LayerCase("dropout", "Dropout without a seed, training", lambda: [
        tanh(4), layers.Dropout(0.4), dense()], training=True),
    LayerCase("dropout", "SimpleRNN with dropout, training", lambda: [
        layers.SimpleRNN(2, dropout=0.3, recurrent_dropout=0.3, seed=3), dense(2)], (3, 3),
        training=True),
    LayerCase("dropout", "LSTM with dropout", lambda: [
        layers.LSTM(2, dropout=0.3, recurrent_dropout=0.3, seed=3), dense(2)], (5, 3)),
]  # fmt: skip

NO_SUBJECT = {
    "base classes, and classes without a computation of their own": "InputLayer Layer Wrapper",
    "layers of other frameworks, which TensorFlow cannot trace or differentiate twice":
        "FlaxLayer JaxLayer TFSMLayer TorchModuleWrapper",
    "layers on strings and whole numbers, which have no derivatives":
        "CategoryEncoding Discretization HashedCrossing Hashing IntegerLookup StringLookup "
        "TextVectorization",
    "augmentation of input images, random, and the identity for inference":
        "AugMix CutMix MixUp RandAugment RandomBrightness RandomColorDegeneration "
        "RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing "
        "RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective "
        "RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear "
        "RandomTranslation RandomZoom",
    "preparation of input images by their histograms, before any parameter":
        "AutoContrast ContrastLimitedAdaptiveHistogramEqualization Equalization Solarization",
    "a list of such layers, and of boxes": "MaxNumBoundingBoxes Pipeline",
}  # fmt: skip


def coverage() -> str:
    """The table of `tests/README.md`, in Markdown."""
    groups: dict[str, list[str]] = {}
    for case in CASES:
        if not case.refused:
            groups.setdefault(case.group, []).append(case.name)
    lines = ["| | right against central differences |", "|---|---|"]
    lines += [f"| {group} | {'; '.join(names)} |" for group, names in groups.items()]
    refused = [f"{case.name} ({case.group})" for case in CASES if case.refused]
    lower = [case.name for case in CASES if case.lower]
    lines += ["", f"Refused by name: {'; '.join(refused)}."]
    lines += ["", f'In float32 alone unless `dtype="float64"` is given: {"; ".join(lower)}.']
    return "\n".join(lines)


if __name__ == "__main__":
    print(coverage())

"""Curvature by ways that share nothing with the library, and the networks it is held against.

Closed forms, dense matrices from eager tapes on the user's own function, and central differences.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

layers = keras.layers
Loss = Callable[[], tf.Tensor]


@contextlib.contextmanager
def kept_precision(floatx: str) -> Iterator[None]:
    """Keras layers and losses in this precision, and then as before."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


# --- dense matrices by eager TensorFlow over variables ---


def flat(tensors: Sequence[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(tensor) for tensor in tensors])


def variables_of(model: keras.Model, *layer_names: str) -> list[tf.Variable]:
    chosen = [model.get_layer(name) for name in layer_names] or [model]
    return [v.value for layer in chosen for v in layer.trainable_variables]


def gradient(loss: Loss, variables: Sequence[tf.Variable]) -> np.ndarray:
    with tf.GradientTape() as tape:
        value = loss()
    grads = tape.gradient(value, variables, unconnected_gradients="zero")
    return flat([tf.convert_to_tensor(grad) for grad in grads])


def jacobian(outputs: Loss, variables: Sequence[tf.Variable]) -> np.ndarray:
    """(M, P), one backward pass a row."""
    with tf.GradientTape(persistent=True) as tape:
        z = tf.reshape(outputs(), [-1])
    return _rows(tape, z, variables)


def hessian(loss: Loss, variables: Sequence[tf.Variable]) -> np.ndarray:
    """(P, P), one backward pass of the gradient a row. Wrong where tf.nn.moments is used."""
    with tf.GradientTape(persistent=True) as outer:
        with tf.GradientTape() as inner:
            value = loss()
        grads = inner.gradient(value, variables, unconnected_gradients="zero")
        joined = tf.concat([tf.reshape(tf.convert_to_tensor(g), [-1]) for g in grads], axis=0)
    return _rows(outer, joined, variables)


def gauss_newton(
    outputs: Loss, loss_of: Callable[[tf.Tensor], tf.Tensor], variables: Sequence[tf.Variable]
) -> np.ndarray:
    """The Hessian of the loss of the linearised network z + J·δ at δ = 0."""
    z, J = outputs(), jacobian(outputs, variables)
    step = tf.Variable(tf.zeros(J.shape[1], z.dtype))
    return hessian(lambda: loss_of(z + tf.reshape(tf.linalg.matvec(J, step), z.shape)), [step])


def _rows(tape: tf.GradientTape, target: tf.Tensor, variables: Sequence[tf.Variable]) -> np.ndarray:
    parts = tape.jacobian(
        target, variables, unconnected_gradients="zero", experimental_use_pfor=False
    )
    return np.concatenate([np.reshape(part, (len(target), -1)) for part in parts], axis=1)


# --- central differences ---


def along(
    function: Callable[[], np.ndarray],
    variables: Sequence[tf.Variable],
    v: np.ndarray,
    step: float = 2e-4,
) -> np.ndarray:
    """The derivative of `function` along v, to about 1e-10 of its size in float64.

    (8[f(ε) - f(-ε)] - [f(2ε) - f(-2ε)]) / 12ε with ε = step/‖v‖: truncation ε⁴f⁽⁵⁾/30, 1e-16 of
    f⁽⁵⁾; rounding about 1e-16·f/ε, some 1e-12 of f.
    """
    start = [variable.numpy() for variable in variables]
    pieces = np.split(v, np.cumsum([value.size for value in start])[:-1])
    epsilon = step / np.linalg.norm(v)

    def at(distance: float) -> np.ndarray:
        for variable, value, piece in zip(variables, start, pieces, strict=True):
            variable.assign(value + distance * piece.reshape(value.shape))
        return function()

    try:
        near, far = at(epsilon) - at(-epsilon), at(2 * epsilon) - at(-2 * epsilon)
    finally:
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
    return (8 * near - far) / (12 * epsilon)


def hessian_along(loss: Loss, variables: Sequence[tf.Variable], v: np.ndarray) -> np.ndarray:
    """Hv by central differences of the gradient."""
    return along(lambda: gradient(loss, variables), variables, v)


def differenced_hessian(loss: Loss, variables: Sequence[tf.Variable]) -> np.ndarray:
    size = sum(int(tf.size(variable)) for variable in variables)
    return np.stack([hessian_along(loss, variables, unit) for unit in np.eye(size)], axis=1)


# --- losses written out in TensorFlow, the mean over all examples ---


def softmax_loss(y: np.ndarray, z: tf.Tensor) -> tf.Tensor:
    right = tf.gather(z, y.astype(int), axis=-1, batch_dims=1)
    return tf.reduce_mean(tf.math.reduce_logsumexp(z, axis=-1) - right)


def onehot_loss(y: np.ndarray, z: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.math.reduce_logsumexp(z, -1) - tf.reduce_sum(z * y, -1))


def squared_loss(y: np.ndarray, z: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean((z - y) ** 2)


def sigmoid_loss(y: np.ndarray, z: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.math.softplus(z) - z * y)


# --- networks ---


def randomised(model: keras.Model, seed: int = 1, scale: float = 0.7) -> keras.Model:
    """The model with trainable weights, biases included, that no symmetry singles out."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(scale * rng.standard_normal(variable.shape))
    return model


def dense_net(
    activation: str = "tanh", *, dtype: str = "float64", last: str | None = None, **options: Any
) -> keras.Model:
    """4 inputs - dense1 (4) - dense2 (3) - dense3 (3): 20 + 15 + 12 = 47 parameters."""
    net = [
        keras.Input((4,), dtype=dtype),
        layers.Dense(4, activation, dtype=dtype, name="dense1", **options),
        layers.Dense(3, activation, dtype=dtype, name="dense2"),
        layers.Dense(3, last, dtype=dtype, name="dense3"),
    ]
    return randomised(keras.Sequential(net, name="net"))


def sequential(shape: tuple[int, ...], *stack: keras.Layer, dtype: str = "float64") -> keras.Model:
    return randomised(keras.Sequential([keras.Input(shape, dtype=dtype), *stack], name="net"))


def conv_net(dtype: str = "float64") -> keras.Model:
    return sequential(
        (6, 6, 1),
        layers.Conv2D(2, 3, activation="tanh", dtype=dtype, name="dense1"),
        layers.MaxPooling2D(2, dtype=dtype),
        layers.Flatten(dtype=dtype),
        layers.Dense(3, dtype=dtype, name="dense3"),
        dtype=dtype,
    )


def norm_net(dtype: str = "float64") -> keras.Model:
    return sequential(
        (4,),
        layers.Dense(5, dtype=dtype, name="dense1"),
        layers.LayerNormalization(dtype=dtype, name="norm"),
        layers.Activation("tanh", dtype=dtype),
        layers.Dense(3, dtype=dtype, name="dense3"),
        dtype=dtype,
    )


def examples(shape: tuple[int, ...], count: int = 7, *, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, *shape)).astype(dtype)


LABELS = np.array([0, 2, 1, 2, 1, 0, 2])


def cut(data: tuple[np.ndarray, ...], sizes: Iterable[int]) -> list[tuple[np.ndarray, ...]]:
    edges = [0, *itertools.accumulate(sizes)]
    return [tuple(a[start:stop] for a in data) for start, stop in itertools.pairwise(edges)]


# --- the table of cases: model × loss × batches × dtype ---


@dataclass(frozen=True, eq=False)
class Case:
    name: str
    build: Callable[..., keras.Model]
    loss: Any
    written: Callable[[np.ndarray, tf.Tensor], tf.Tensor]
    targets: np.ndarray
    sizes: tuple[int, ...] = (3, 3, 1)
    dtype: str = "float64"
    hessian: Callable[[Loss, Sequence[tf.Variable]], np.ndarray] = hessian
    layer: str = "dense1"

    def __str__(self) -> str:
        return self.name

    @property
    def tolerance(self) -> float:
        """Relative to the largest entry: some 1,000 roundings; differences reach 1e-9."""
        if self.dtype == "float32":
            return 1e-4
        return 1e-11 if self.hessian is hessian else 1e-8

    @functools.cached_property
    def model(self) -> keras.Model:
        return self.build(dtype=self.dtype)

    @functools.cached_property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        x = examples(self.model.input_shape[1:], dtype=self.dtype)
        return x, self.targets

    @property
    def batches(self) -> list[tuple[np.ndarray, ...]]:
        return cut(self.data, self.sizes)

    def matrix(self, kind: str, layer: str | None = None) -> np.ndarray:
        """H, G, R or J from the same weights in float64."""
        model = self.build(dtype="float64")
        model.set_weights(self.model.get_weights())
        x, y = (np.asarray(a, "float64") for a in self.data)
        variables = variables_of(model, *([layer] if layer else []))

        def outputs() -> tf.Tensor:
            return model(x)

        if kind == "J":
            return jacobian(outputs, variables)
        H = G = 0.0
        if kind in "HR":
            H = self.hessian(lambda: self.written(y, outputs()), variables)
        if kind in "GR":
            G = gauss_newton(outputs, lambda z: self.written(y, z), variables)
        return H - G if kind == "R" else H + G


_sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
_onehot = keras.losses.CategoricalCrossentropy(from_logits=True)
_binary = keras.losses.BinaryCrossentropy(from_logits=True)
_real = np.random.default_rng(4).standard_normal((7, 3))
_tanh, _relu, _gelu, _softplus = (
    functools.partial(dense_net, name) for name in ("tanh", "relu", "gelu", "softplus")
)

CASES = [
    Case("tanh-softmax-whole", _tanh, _sparse, softmax_loss, LABELS, sizes=(7,)),
    Case("tanh-softmax-ragged", _tanh, _sparse, softmax_loss, LABELS),
    Case("tanh-softmax-ragged-float32", _tanh, _sparse, softmax_loss, LABELS, dtype="float32"),
    Case("relu-onehot-ragged", _relu, _onehot, onehot_loss, np.eye(3)[LABELS], sizes=(5, 2)),
    Case("gelu-sigmoid-ragged", _gelu, _binary, sigmoid_loss, np.eye(3)[LABELS]),
    Case("softplus-squares-ragged", _softplus, "mse", squared_loss, _real),
    Case("conv-softmax-ragged", conv_net, _sparse, softmax_loss, LABELS, sizes=(4, 3)),
    Case("norm-squares-ragged", norm_net, "mse", squared_loss, _real, hessian=differenced_hessian),
]


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest error in units of the largest entry expected."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@functools.cache
def moments_are_falsified() -> bool:
    """Whether TensorFlow has the second derivatives of a variance wrong, as before 2.22."""
    x = tf.constant([0.0, 1.0])
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            variance = tf.nn.moments(x, [0])[1]
        slope = inner.gradient(variance, x)[0]
    return bool(abs(outer.gradient(slope, x)[0] - 0.5) > 0.1)

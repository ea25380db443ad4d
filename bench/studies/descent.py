"""Training of 784-50-50-10 on all digits at once, and the curvature along it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf
from scipy.sparse.linalg import aslinearoperator

import hvp
from hvp import examples

Tensors = Sequence[tf.Tensor]


def squared(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum((outputs - targets) ** 2, axis=-1) / 2


def network(width: int) -> keras.Model:
    def dense(units: int, activation: str | None, seed: int) -> keras.layers.Layer:
        # U(-1/√fan_in, 1/√fan_in), from which sharpness begins low.
        initial = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)
        return keras.layers.Dense(units, activation, kernel_initializer=initial)

    layers = [dense(width, "tanh", 0), dense(width, "tanh", 1), dense(10, None, 2)]
    return keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), *layers])


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Centred images and one-hot targets, chosen at random."""
    x, y = examples.mnist()
    chosen = np.random.default_rng(0).permutation(len(x))[:count]
    return x[chosen] - x[chosen].mean(axis=0), np.eye(10, dtype=np.float32)[y[chosen]]


class Sharpness:
    """The largest eigenvalue of H along a training: one trace, and warm starts."""

    def __init__(self, model: keras.Model, x: np.ndarray, targets: np.ndarray):
        self._model = model
        self._lin = hvp.linearize(
            model, (x, targets), squared, ad="forward-over-reverse", jit=False
        )
        self._before: hvp.Eigenpairs | None = None

    def __call__(self, preconditioner: np.ndarray | None = None) -> float:
        """λ_max of H, or of P⁻¹ᐟ²HP⁻¹ᐟ² with the diagonal of P, (P,), at the present weights."""
        with self._lin.at(self._model) as there:
            matrix = hvp.Hessian(there)
            if preconditioner is not None:
                roots = 1 / np.sqrt(preconditioner.astype(np.float32))
                scaling = aslinearoperator(scipy.sparse.diags_array(roots))
                matrix = scaling @ matrix @ scaling
            self._before = hvp.eigsh(matrix, k=1, tol=3e-3, start=self._before)
        return float(self._before.values[0])


def descend(
    model: keras.Model,
    change: Callable[[Tensors], Tensors],
    data: tuple[np.ndarray, np.ndarray],
    num_steps: int,
    every: int,
    measure: Callable[[], float],
) -> tuple[np.ndarray, np.ndarray]:
    """What `measure` gives at every `every`-th step, and the loss before each step.

    `change` makes the change of the weights from the slopes of the loss.
    """
    x, targets = data
    weights = [variable.value for variable in model.trainable_variables]

    @tf.function(jit_compile=True)
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(squared(targets, model(x)))
        changes = change(tape.gradient(loss, weights))
        for weight, each in zip(weights, changes, strict=True):
            weight.assign_add(each)
        return loss

    measured, losses = [], []
    for number in range(num_steps + 1):
        if number % every == 0:
            measured.append(measure())
        losses.append(float(step()))
    return np.array(measured), np.array(losses)


def zeros(model: keras.Model) -> list[tf.Variable]:
    """A variable for each of the weights, to average over the steps."""
    return [tf.Variable(tf.zeros(variable.shape)) for variable in model.trainable_variables]

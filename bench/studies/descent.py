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
Data = tuple[np.ndarray, np.ndarray]


def squared(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum((outputs - targets) ** 2, axis=-1) / 2


def network(width: int, num_pixels: int = 784) -> keras.Model:
    def dense(units: int, activation: str | None, seed: int) -> keras.layers.Layer:
        # U(-1/√fan_in, 1/√fan_in), from which sharpness begins low.
        initial = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)
        return keras.layers.Dense(units, activation, kernel_initializer=initial)

    layers = [dense(width, "tanh", 0), dense(width, "tanh", 1), dense(10, None, 2)]
    return keras.Sequential([keras.Input((num_pixels,)), *layers])


def digits(count: int) -> Data:
    """Centred images, (count, 784), and one-hot targets, chosen at random."""
    x, y = examples.mnist()
    chosen = np.random.default_rng(0).permutation(len(x))[:count]
    x = x[chosen].reshape(count, -1)
    return x - x.mean(axis=0), np.eye(10, dtype=np.float32)[y[chosen]]


def used_pixels(width: int, x: np.ndarray, targets: np.ndarray) -> tuple[keras.Model, Data]:
    """The network and the data without the pixels that are 0 in all images.

    The loss does not depend on their weights, so that the rest trains as it does in the whole.
    """
    used = x.any(axis=0)
    kernel, *others = network(width).get_weights()
    model = network(width, int(used.sum()))
    model.set_weights([kernel[used], *others])
    return model, (x[:, used], targets)


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

    def gradient_norm(self) -> float:
        """‖∇L‖ at the present weights."""
        with self._lin.at(self._model) as there:
            return float(np.linalg.norm(there.gradient()))


def descend(
    model: keras.Model,
    change: Callable[[Tensors], Tensors],
    data: Data,
    num_steps: int,
    every: int,
    measure: Callable[[], float],
    *,
    radius: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """What `measure` gives at every `every`-th step, and the loss before each step.

    `change` makes the change of the weights from the slopes of the loss. With a `radius` ρ they are
    those at w + ρ∇L/‖∇L‖.
    """
    x, targets = data
    weights = [variable.value for variable in model.trainable_variables]

    def loss_and_slopes() -> tuple[tf.Tensor, Tensors]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(squared(targets, model(x)))
        return loss, tape.gradient(loss, weights)

    def move(changes: Tensors) -> None:
        for weight, each in zip(weights, changes, strict=True):
            weight.assign_add(each)

    def step() -> tf.Tensor:
        loss, slopes = loss_and_slopes()
        if radius:
            shifts = [radius / tf.linalg.global_norm(slopes) * slope for slope in slopes]
            move(shifts)
            _, slopes = loss_and_slopes()
            move([-shift for shift in shifts])
        move(change(slopes))
        return loss

    # One call for all steps between two measurements. XLA would be slower: it transposes x anew.
    @tf.function
    def steps(count: tf.Tensor) -> tf.Tensor:
        losses = tf.TensorArray(tf.float32, size=count)
        for number in tf.range(count):
            losses = losses.write(number, step())
        return losses.stack()

    measured, losses = [], []
    for number in range(0, num_steps + 1, every):
        measured.append(measure())
        losses.append(steps(tf.constant(min(every, num_steps + 1 - number))))
    return np.array(measured), np.concatenate(losses)


def zeros(model: keras.Model) -> list[tf.Variable]:
    """A variable for each of the weights, to average over the steps."""
    return [tf.Variable(tf.zeros(variable.shape)) for variable in model.trainable_variables]

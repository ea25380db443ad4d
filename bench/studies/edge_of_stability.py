"""Full-batch gradient descent: sharpness rises to 2/η and stays near it.

Cohen, Kaur, Li, Kolter and Talwalkar 2021, arXiv 2103.00065, figure 1: the sharpness is the
largest eigenvalue of H. Below 2/η it tends to rise; then it stays at 2/η or just above. There the
loss rises and falls from step to step, but falls in the long run. The paper uses CIFAR-10. Here is
784-50-50-10 with tanh and squared loss on 1,000 digits.

Criteria: the sharpness begins below half of 2/η, and its mean over the second half of the steps is
within 5 % of 2/η. If η is so small that 2/η is not reached, the sharpness exceeds the level at
which it stops for larger η, and the loss never rises.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import hvp
from bench.studies import study
from bench.studies.study import Row, Study
from hvp import examples

RATES, SMALL = (0.4, 0.2), 0.05


def squared(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum((outputs - targets) ** 2, axis=-1) / 2


def network(width: int) -> keras.Model:
    def dense(units: int, activation: str | None, seed: int) -> keras.layers.Layer:
        # U(-1/√fan_in, 1/√fan_in), from which sharpness begins low.
        initial = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)
        return keras.layers.Dense(units, activation, kernel_initializer=initial)

    layers = [dense(width, "tanh", 0), dense(width, "tanh", 1), dense(10, None, 2)]
    return keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), *layers])


def train(
    rate: float, x: np.ndarray, targets: np.ndarray, width: int, num_steps: int, every: int
) -> tuple[np.ndarray, np.ndarray]:
    """The sharpness at every `every`-th step, and the loss before each step."""
    model = network(width)
    weights = [variable.value for variable in model.trainable_variables]

    @tf.function(jit_compile=True)
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(squared(targets, model(x)))
        for weight, slope in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(rate * slope)
        return loss

    sharpness, losses = [], []
    for number in range(num_steps + 1):
        if number % every == 0:
            lin = hvp.linearize(model, (x, targets), squared, ad="forward-over-reverse", jit=False)
            sharpness.append(hvp.eigsh(hvp.Hessian(lin), k=1, tol=1e-2).values[0])
        losses.append(float(step()))
    return np.array(sharpness), np.array(losses)


def run(quick: bool) -> Study:
    count, width, num_steps, every = (100, 8, 40, 40) if quick else (1000, 50, 4000, 100)
    x, y = examples.mnist()
    chosen = np.random.default_rng(0).permutation(len(x))[:count]
    x, targets = x[chosen] - x[chosen].mean(axis=0), np.eye(10, dtype=np.float32)[y[chosen]]
    canvas = study.figure("Gradient descent on 784-50-50-10: sharpness rises to 2/η and stays")
    left, right = canvas.subplots(1, 2)
    rows, at = [], np.arange(0, num_steps + 1, every)
    for rate, colour, marker in zip((*RATES, SMALL), study.COLOURS, study.MARKERS, strict=False):
        sharpness, losses = train(rate, x, targets, width, num_steps, every)
        left.plot(at, sharpness, color=colour, marker=marker, markersize=3.5, label=f"η = {rate}")
        right.plot(losses, color=colour, linewidth=0.8, label=f"η = {rate}")
        late, falling = sharpness[len(at) // 2 :], losses[num_steps // 2 :]
        rises, falls = np.mean(np.diff(falling) > 0), bool(falling[-1] < falling[0])
        if rate == SMALL:
            stop = 2 / min(RATES)
            laws = f"passes {stop:.3g}, where η = {min(RATES)} stops", "falls at every step"
            here = f"{sharpness[0]:.3g} at first, {sharpness[-1]:.4g} at the end"
            holds = sharpness[-1] > stop, rises == 0
        else:
            left.axhline(2 / rate, color=colour, linestyle="--", linewidth=1)
            laws = f"rises to 2/η = {2 / rate:.3g} and stays near it", "rises and falls, and falls"
            here = f"{sharpness[0]:.3g} at first, then {late.mean():.4g} ± {late.std():.2g}"
            near = abs(late.mean() * rate / 2 - 1) < 0.05
            holds = sharpness[0] < 1 / rate and near, falls and rises > 0
        rows.append(Row(f"η = {rate}: sharpness", laws[0], here, bool(holds[0])))
        here = f"rises in {rises:.0%} of steps, from {falling[0]:.2g} to {falling[-1]:.2g}"
        rows.append(Row(f"η = {rate}: loss, second half", laws[1], here, bool(holds[1])))
    left.set(xlabel="step", ylabel="largest eigenvalue of H", ylim=(0, None))
    right.set(xlabel="step", ylabel="loss", yscale="log")
    left.legend(frameon=False, title="dashed: 2/η")
    remark = f"{count:,} digits, {num_steps:,} steps, sharpness every {every}; ± is the spread in"
    remark += f" time. For η = {SMALL}, 2/η = {2 / SMALL:.3g} is out of reach."
    return Study("Edge of stability (Cohen et al. 2021, fig. 1)", tuple(rows), canvas, (remark,))

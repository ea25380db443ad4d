"""Adam: the preconditioned sharpness rises to 38/η and stays near it, at β₁ = 0.9.

Cohen et al. 2022, arXiv 2207.14484: Adam takes steps -ηP⁻¹m with the averaged slope m and
P = diag(√v + ε) up to its corrections for the first steps. With P held constant it is descent with
momentum on P⁻¹ᐟ²HP⁻¹ᐟ², whose largest eigenvalue is the preconditioned sharpness: it rises to
(2 + 2β₁)/((1 - β₁)η), which is 38/η. The sharpness of H itself is not bounded so. The papers use
CIFAR-10. Here is the network of `edge_of_stability` on 1,000 digits.

Criteria: the mean of the preconditioned sharpness over the second half of the steps is within 10 %
of 38/η. It is half as large for twice the η, within 10 %.
"""

from __future__ import annotations

import math
from functools import partial

import keras
import numpy as np
import tensorflow as tf

import hvp
from bench.studies import study
from bench.studies.descent import Sharpness, Tensors, descend, digits, used_pixels, zeros
from bench.studies.study import Row, Study

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7
RATES = (5e-4, 1e-3)


def edge(rate: float) -> float:
    """The largest stable preconditioned sharpness, which is known after a first step."""
    optimizer, weight = keras.optimizers.Adam(rate, BETA1, BETA2, EPSILON), keras.Variable([0.0])
    optimizer.apply([tf.zeros([1])], [weight])
    return hvp.callbacks.stability_edge(optimizer, [weight]).value


class Adam:
    """The steps of Adam as Keras takes them, and its preconditioner."""

    def __init__(self, means: list[tf.Variable], squares: list[tf.Variable], rate: float):
        self.means, self.squares, self.rate = means, squares, rate
        self.count = tf.Variable(0.0)

    def diagonals(self) -> Tensors:
        """The diagonal of P for each tensor of weights."""
        first, second = (1 - beta**self.count for beta in (BETA1, BETA2))
        return [first * (tf.sqrt(v) + EPSILON) / tf.sqrt(second) for v in self.squares]

    def change(self, slopes: Tensors) -> Tensors:
        self.count.assign_add(1.0)
        for mean, square, slope in zip(self.means, self.squares, slopes, strict=True):
            mean.assign(BETA1 * mean + (1 - BETA1) * slope)
            square.assign(BETA2 * square + (1 - BETA2) * slope**2)
        pairs = zip(self.means, self.diagonals(), strict=True)
        return [-self.rate * mean / diagonal for mean, diagonal in pairs]


def train(
    rate: float, data: tuple[np.ndarray, np.ndarray], width: int, num_steps: int, every: int
) -> tuple[np.ndarray, np.ndarray]:
    """The preconditioned and the plain sharpness, at every `every`-th step but the first."""
    model, data = used_pixels(width, *data)
    adam = Adam(zeros(model), zeros(model), rate)
    preconditioned, plain = Sharpness(model, *data), Sharpness(model, *data)
    found = []

    def measure() -> float:
        if adam.count.numpy() == 0:  # P is of the slopes so far
            return math.nan
        P = np.concatenate([np.ravel(diagonal) for diagonal in adam.diagonals()])
        found.append(plain())
        return preconditioned(P)

    scaled, _ = descend(model, adam.change, data, num_steps, every, measure)
    return scaled[1:], np.array(found)


def run(quick: bool) -> Study:
    count, width, num_steps, every = (100, 8, 40, 20) if quick else (1000, 50, 2000, 50)
    data = digits(count)
    canvas = study.figure("Adam on 784-50-50-10: the preconditioned sharpness stays at 38/η")
    left, right = canvas.subplots(1, 2)
    rows, levels, at = [], [], np.arange(every, num_steps + 1, every)
    for rate, colour, marker in zip(RATES, study.COLOURS, study.MARKERS, strict=False):
        arguments = rate, data, width, num_steps, every
        scaled, plain = study.kept(f"η = {rate}", partial(train, *arguments))
        for panel, values in ((left, scaled * rate), (right, plain)):
            panel.plot(at, values, color=colour, marker=marker, markersize=3, label=f"η = {rate}")
        late = scaled[len(scaled) // 2 :]
        levels.append(late.mean())
        law, here = f"38/η = {edge(rate):,.0f}", f"{levels[-1]:,.0f} ± {late.std():,.0f}"
        here += f"; of H {plain[0]:.3g} at step {every}, {plain[-1]:.3g} at the end"
        holds = bool(abs(levels[-1] / edge(rate) - 1) < 0.1)
        rows.append(Row(f"η = {rate}: preconditioned sharpness", law, here, holds))
    ratio = levels[0] / levels[1]
    rows.append(Row("at η over that at 2η", "2", f"{ratio:.3f}", bool(abs(ratio / 2 - 1) < 0.1)))
    left.axhline(edge(1.0), color="0.3", linestyle="--", linewidth=1)
    left.set(xlabel="step", ylabel="η times the largest eigenvalue of P⁻¹ᐟ²HP⁻¹ᐟ²", ylim=(0, None))
    right.set(xlabel="step", ylabel="largest eigenvalue of H", ylim=(0, None))
    left.legend(frameon=False, title="dashed: 38")
    remark = f"{count:,} digits, {num_steps:,} steps, β₁ = {BETA1}, β₂ = {BETA2}, measured every"
    remark += f" {every}; ± is the spread in time, over the second half of the steps."
    return Study("Adam's edge of stability (Cohen et al. 2022)", tuple(rows), canvas, (remark,))

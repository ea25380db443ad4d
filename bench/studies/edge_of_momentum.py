"""Momentum: sharpness rises to 38/η with the heavy ball and 13.6/η with Nesterov's, at β = 0.9.

Cohen, Kaur, Li, Kolter and Talwalkar 2021, arXiv 2103.00065, appendix B: on a quadratic, descent
with momentum β and the step η is stable for λ < (2 + 2β)/η with Polyak's heavy ball and for
λ < (2 + 2β)/((1 + 2β)η) with Nesterov's. Here slopes are averaged, m ← βm + (1 - β)∇L, so that η is
1/(1 - β) times theirs: at β = 0.9 the edges are 38/η and 13.6/η. The paper uses CIFAR-10. Here is
the network of `edge_of_stability` on 1,000 digits.

Criteria: the sharpness begins below half of the edge, and its mean over the second half of the
steps is within 5 % of it. It is half as large for twice the η, within 5 %.
"""

from __future__ import annotations

from functools import partial

import keras
import numpy as np

import hvp
from bench.studies import study
from bench.studies.descent import Sharpness, Tensors, descend, digits, used_pixels, zeros
from bench.studies.study import Row, Study

BETA = 0.9
RULES = {"heavy ball": (1.9, 3.8), "Nesterov": (0.68, 1.36)}


def edge(rule: str, rate: float) -> float:
    """The largest stable sharpness. Keras sums the slopes that are averaged here."""
    sgd = keras.optimizers.SGD((1 - BETA) * rate, BETA, nesterov=rule == "Nesterov")
    return hvp.callbacks.stability_edge(sgd).value


def train(
    rule: str, rate: float, data: tuple[np.ndarray, np.ndarray], width: int, num_steps: int,
    every: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The sharpness at every `every`-th step, and the loss before each step."""
    model, data = used_pixels(width, *data)
    means = zeros(model)

    def change(slopes: Tensors) -> Tensors:
        for mean, slope in zip(means, slopes, strict=True):
            mean.assign(BETA * mean + (1 - BETA) * slope)
        if rule == "heavy ball":
            return [-rate * mean for mean in means]
        both = zip(means, slopes, strict=True)
        return [-rate * (BETA * mean + (1 - BETA) * slope) for mean, slope in both]

    return descend(model, change, data, num_steps, every, Sharpness(model, *data))


def run(quick: bool) -> Study:
    count, width, num_steps, every = (100, 8, 40, 20) if quick else (1000, 50, 2000, 50)
    data = digits(count)
    canvas = study.figure("Momentum 0.9 on 784-50-50-10: sharpness rises to the edge and stays")
    rows, at = [], np.arange(0, num_steps + 1, every)
    for panel, (rule, rates) in zip(canvas.subplots(1, 2), RULES.items(), strict=True):
        levels = []
        for rate, colour, marker in zip(rates, study.COLOURS, study.MARKERS, strict=False):
            arguments = rule, rate, data, width, num_steps, every
            sharpness, _ = study.kept(f"{rule}, η = {rate}", partial(train, *arguments))
            panel.plot(
                at, sharpness, color=colour, marker=marker, markersize=3, label=f"η = {rate}"
            )
            limit, late = edge(rule, rate), sharpness[len(at) // 2 :]
            panel.axhline(limit, color=colour, linestyle="--", linewidth=1)
            levels.append(late.mean())
            holds = bool(sharpness[0] < limit / 2 and abs(levels[-1] / limit - 1) < 0.05)
            law = f"rises to {edge(rule, 1.0):.3g}/η = {limit:.4g} and stays near it"
            here = f"{sharpness[0]:.3g} at first, then {levels[-1]:.4g} ± {late.std():.2g}"
            rows.append(Row(f"{rule}, η = {rate}: sharpness", law, here, holds))
        ratio = levels[0] / levels[1]
        rows.append(Row(f"{rule}: sharpness at η over that at 2η", "2", f"{ratio:.3f}",
                        bool(abs(ratio / 2 - 1) < 0.05)))  # fmt: skip
        panel.set(xlabel="step", ylabel="largest eigenvalue of H", ylim=(0, None), title=rule)
        panel.legend(frameon=False, title="dashed: the edge")
    remark = f"{count:,} digits, {num_steps:,} steps, β = {BETA}, sharpness every {every}; ± is the"
    remark += " spread in time. Slopes are averaged: η is ten times that of Keras."
    return Study("Edge of stability with momentum (Cohen et al. 2021, appendix B)", tuple(rows),
                 canvas, (remark,))  # fmt: skip

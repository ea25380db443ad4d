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

from functools import partial

import numpy as np

from bench.studies import study
from bench.studies.descent import Sharpness, descend, digits, used_pixels
from bench.studies.study import Row, Study

RATES, SMALL = (0.4, 0.2), 0.05


def train(
    rate: float, x: np.ndarray, targets: np.ndarray, width: int, num_steps: int, every: int
) -> tuple[np.ndarray, np.ndarray]:
    """The sharpness at every `every`-th step, and the loss before each step."""
    model, data = used_pixels(width, x, targets)
    sharpness = Sharpness(model, *data)
    return descend(
        model, lambda slopes: [-rate * s for s in slopes], data, num_steps, every, sharpness
    )


def run(quick: bool) -> Study:
    count, width, num_steps, every = (100, 8, 40, 40) if quick else (1000, 50, 4000, 100)
    x, targets = digits(count)
    canvas = study.figure("Gradient descent on 784-50-50-10: sharpness rises to 2/η and stays")
    left, right = canvas.subplots(1, 2)
    rows, at = [], np.arange(0, num_steps + 1, every)
    for rate, colour, marker in zip((*RATES, SMALL), study.COLOURS, study.MARKERS, strict=False):
        arguments = rate, x, targets, width, num_steps, every
        sharpness, losses = study.kept(f"η = {rate}", partial(train, *arguments))
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

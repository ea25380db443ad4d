"""SGD, momentum and Adam in `fit`: sharpness rises to each optimiser's edge and stays near it.

Cohen, Kaur, Li, Kolter and Talwalkar 2021, arXiv 2103.00065, for gradient descent (2/η), heavy ball
((2 + 2β)/η) and Nesterov's momentum ((2 + 2β)/((1 + 2β)η)); Cohen et al. 2022, arXiv 2207.14484,
for Adam: the largest eigenvalue of P⁻¹ᐟ²HP⁻¹ᐟ² rises to (2 + 2β₁)/((1 - β₁)η), 38/η at β₁ = 0.9.
All take steps on the whole data. The papers use CIFAR-10. Here is the network of
`edge_of_stability`, measured by `hvp.callbacks.Curvature` while Keras trains it.

Criteria: the measured curvature begins below 0.6 of the edge, and its mean over the last third of
the steps is within 10 % of the edge. The first step of Adam counts as no beginning: there P is the
size of a single gradient.

`python -m bench.studies sharpness_in_fit` draws the picture of README.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import tensorflow as tf

import hvp
from bench.studies import study
from bench.studies.descent import digits, network, squared
from bench.studies.study import Row, Study

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
OPTIMISERS: dict[str, tuple[str, Callable[[], keras.optimizers.Optimizer]]] = {
    "SGD, η = 0.4": ("2/η", lambda: SGD(0.4)),
    "SGD, η = 0.2": ("2/η", lambda: SGD(0.2)),
    "heavy ball, β = 0.9": ("3.8/η", lambda: SGD(0.38, momentum=0.9)),
    "Nesterov, β = 0.9": ("1.36/η", lambda: SGD(0.136, momentum=0.9, nesterov=True)),
    "Adam, β₁ = 0.9": ("38/η", lambda: Adam(1e-3)),
}


def train(
    optimizer: keras.optimizers.Optimizer, data: tuple[np.ndarray, np.ndarray], width: int,
    num_steps: int, every: int,
) -> tuple[np.ndarray, np.ndarray, float]:  # fmt: skip
    """The steps measured, the curvature that the edge bounds there, and the edge."""
    model = network(width)
    model.compile(optimizer, squared)
    callback = hvp.callbacks.Curvature(data, every=every, unit="step", tol=1e-2)
    whole = tf.data.Dataset.from_tensors(data).repeat()
    model.fit(whole, steps_per_epoch=num_steps, shuffle=False, verbose=0, callbacks=[callback])
    rows = callback.rows()
    name = "preconditioned_sharpness" if isinstance(optimizer, Adam) else "sharpness"
    steps, found = (np.array([row[key] for row in rows]) for key in ("step", name))
    return steps, found, rows[-1]["edge"]


def run(quick: bool) -> Study:
    count, width, num_steps, every = (100, 8, 40, 20) if quick else (1000, 50, 2400, 40)
    data = digits(count)
    canvas = study.figure("Sharpness during model.fit, measured by hvp.callbacks.Curvature", 8, 3.3)
    left, right = canvas.subplots(1, 2)
    rows = []
    for (name, (law, build)), colour in zip(OPTIMISERS.items(), study.COLOURS, strict=False):
        arguments = build(), data, width, num_steps, every
        steps, found, edge = study.kept(name, partial(train, *arguments))
        if name.startswith("SGD"):
            left.plot(steps, found, color=colour, label=name)
            left.axhline(edge, color=colour, linestyle="--", linewidth=1)
            left.annotate(f"2/η = {edge:.3g}", (num_steps, edge), (0, -13), ha="right",
                          textcoords="offset points", color=colour)  # fmt: skip
        if name != "SGD, η = 0.2":
            right.plot(steps, found / edge, color=colour, label=name)
        late, first = found[-(len(found) // 3) :], found[1]
        here = f"{first:.4g} at first, then {late.mean():.4g} ± {late.std():.2g}"
        holds = bool(first < 0.6 * edge and abs(late.mean() / edge - 1) < 0.1)
        rows.append(Row(name, f"rises to {law} = {edge:.4g} and stays near it", here, holds))
    right.axhline(1, color="0.3", linestyle="--", linewidth=1, zorder=0)
    left.set(xlabel="step", ylabel="λmax of H", ylim=(0, None))
    right.set(xlabel="step", ylabel="curvature / edge of the optimiser", ylim=(0, 1.4))
    left.legend(frameon=False, loc="lower right")
    right.legend(frameon=False, loc="lower right")
    remark = f"{count:,} digits, {num_steps:,} steps, measured every {every}; ± is the spread in"
    remark += " time. Heavy ball η = 0.38, Nesterov 0.136, Adam 0.001, for which the curvature is"
    remark += " that of P⁻¹ᐟ²HP⁻¹ᐟ². 'At first' is the second measurement."
    return Study("Sharpness in fit (Cohen et al. 2021 and 2022)", tuple(rows), canvas, (remark,))

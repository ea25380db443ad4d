"""Batch normalisation suppresses outliers of H, and the gradient leaves their eigenspace.

Ghorbani, Krishnan and Xiao 2019, arXiv 1901.10159: without batch normalisation, large isolated
eigenvalues appear rapidly, and the gradient concentrates in their eigenspaces; with it, both
effects are almost absent. The paper has ResNets on CIFAR-10 and ImageNet. Here are four hidden
layers of 50 with ReLU on 2,000 digits of 14 × 14, at two learning rates. H is that of all digits as
one batch in training mode, so it includes derivatives through the batch statistics.

Criteria, for ten classes: without normalisation λ₁/λ₁₀ exceeds 10 in the first quarter of training,
and with it never 3. In the second half of the checkpoints the share of ‖∇L‖² in the space of the
ten largest eigenvalues is always above 1/2 without it, and always below 1/2 with it.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import keras
import numpy as np

import hvp
from bench.studies import study
from bench.studies.study import Row, Study
from hvp import examples

CLASSES, TOP, SHOWN, WIDTH, RATES = 10, 20, 4, 0.1, (0.02, 0.1)
OPTIONS: Any = {"ad": "forward-over-reverse", "jit": False}
EPOCHS = (0, 1, 2, 3, 4, 6, 8, 12, 16)
STYLES = {"without": ("o", study.BLUE), "with": ("s", study.VERMILION)}
LAWS = {"without": ("large, early", "concentrates"), "with": ("small", "does not concentrate")}


def network(normalised: bool, rate: float, depth: int, width: int) -> keras.Model:
    layers: list[keras.layers.Layer] = [keras.layers.Flatten()]
    for number in range(depth):
        initial = keras.initializers.HeNormal(seed=number)
        layers.append(keras.layers.Dense(width, kernel_initializer=initial))
        layers += [keras.layers.BatchNormalization()] if normalised else []
        layers.append(keras.layers.ReLU())
    initial = keras.initializers.GlorotUniform(seed=depth)
    layers.append(keras.layers.Dense(CLASSES, kernel_initializer=initial))
    model = keras.Sequential([keras.Input((14, 14)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss)
    return model


def trajectory(model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: tuple[int, ...]) -> Any:
    """λ₁/λ₁₀, share of the gradient and accuracy at each checkpoint, and one density."""
    rows, rng = [], np.random.default_rng(0)
    for epoch in range(epochs[-1] + 1):
        if epoch in epochs:
            lin = hvp.linearize(model, (x, y), training=True, batch_size=len(x), **OPTIONS)
            H, gradient = hvp.Hessian(lin), lin.gradient()
            top = hvp.eigsh(H, k=TOP, tol=1e-3)
            inside = top.vectors[:, -CLASSES:].T @ gradient
            share = inside @ inside / (gradient @ gradient)
            rows.append((top.values[-1] / top.values[-CLASSES], share, lin.accuracy))
        if epoch == min(SHOWN, epochs[-1]):
            density = hvp.density(H, num_probes=4, num_steps=60, pairs=top)
        order = rng.permutation(len(x))
        model.fit(x[order], y[order], batch_size=125, shuffle=False, verbose=0)
    return np.array(rows, dtype=float).T, density


def run(quick: bool) -> Study:
    count, depth, width, epochs = (200, 1, 8, (0, 1)) if quick else (2000, 4, 50, EPOCHS)
    x, y = examples.mnist()
    chosen = np.random.default_rng(0).permutation(len(x))[:count]
    x, y = x[chosen, ::2, ::2], y[chosen]
    canvas = study.figure("Outliers of H with and without batch normalisation", 12.0)
    panels, accuracies = canvas.subplots(1, 3), []
    rows: list[Row] = []
    for rate, name in itertools.product(RATES[: 2 - quick], STYLES):
        model = network(name == "with", rate, depth, width)
        case, (marker, colour) = f"{name}, η = {rate}", STYLES[name]
        found = study.kept(case, partial(trajectory, model, x, y, epochs))
        (ratios, shares, reached), density = found
        if rate == RATES[0]:
            grid = density.grid(width=WIDTH)
            panels[0].plot(grid, density.curve(grid, WIDTH)[0], color=colour)
        line = marker + ("-" if rate == RATES[0] else "--")
        panels[1].plot(epochs, ratios, line, color=colour, label=case)
        panels[2].plot(epochs, shares, line, color=colour)
        early, late = ratios[np.array(epochs) <= epochs[-1] / 4], shares[len(epochs) // 2 :]
        holds = early.max() > 10, late.min() > 0.5
        holds = holds if name == "without" else (ratios.max() <= 3, late.max() < 0.5)
        peak = f"at most {ratios.max():.3g}, after {epochs[ratios.argmax()]} epochs"
        here = f"{ratios[0]:.2g} at first, {peak}", f"{late.min():.0%} to {late.max():.0%}"
        claims = f"{case}: λ₁/λ₁₀", f"{case}: gradient's share in the top ten"
        rows += map(Row, claims, LAWS[name], here, map(bool, holds))
        accuracies.append(f"{reached[-1]:.1%}")
    panels[0].set(yscale="log", ylim=(1e-5, None), ylabel="density of eigenvalues")
    panels[0].set_xlabel(f"λ after {min(SHOWN, epochs[-1])} epochs, η = {RATES[0]}")
    panels[1].set(xlabel="epoch", xticks=epochs[::2], ylabel="λ₁/λ₁₀ of H", ylim=(0, None))
    panels[2].set(xlabel="epoch", xticks=epochs[::2], ylabel="share of ∇L in top 10", ylim=(0, 1))
    canvas.legend(loc="outside lower center", ncols=4, frameon=False)
    remark = f"{count:,} digits, accuracies at the end {', '.join(accuracies)}."
    return Study("Batch normalisation (Ghorbani et al. 2019)", tuple(rows), canvas, (remark,))

"""H has about as many outlying eigenvalues as there are classes, and they are those of G.

Sagun et al. 2017, arXiv 1706.04454: a bulk at zero and about as many outliers as classes. Papyan
2018, arXiv 1811.07062: the outliers of H = G + R are those of G, the bulk comes from both G and R.
Here is 784-128-128-10 on 5,000 digits, with tanh and with ReLU.

Rule: among the twenty largest eigenvalues, the outliers are those above the largest ratio of two
neighbours. Criteria after the first epoch, for C classes: there are C - 1 to C + 1 outliers; the
spaces of the C - 1 largest of H and of G have a mean squared cosine of at least 0.95; and ‖R‖² is
between 1/10 and 10 times the squared Frobenius norm of G without its C - 1 largest eigenvalues.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import hvp
from bench.studies import study
from bench.studies.study import Row, Study
from hvp import examples

C, TOP, SHOWN, EPOCHS, WIDTH = 10, 20, 3, (0, 1, 2, 3, 5, 10), 0.02
OPTIONS: Any = {"ad": "forward-over-reverse", "jit": False}
OPERATORS: Any = {"G": hvp.GaussNewton, "H": hvp.Hessian, "R": hvp.Residual}
COLOURS = {"H": study.H, "G": study.G, "R": study.R}
MARKERS: Any = {"H": {"marker": "o"}, "G": {"marker": "s", "mfc": "none", "ms": 9}}


def network(activation: str, width: int) -> keras.Model:
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten()])
    for seed, units in enumerate((width, width, C)):
        glorot, form = keras.initializers.GlorotUniform(seed=seed), activation if seed < 2 else None
        model.add(keras.layers.Dense(units, form, kernel_initializer=glorot))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    return model


def gap(values: np.ndarray) -> tuple[int, float]:
    """How many eigenvalues are above the largest ratio of two neighbours, and that ratio."""
    ratios = values[:0:-1] / values[-2::-1]
    return int(np.argmax(ratios)) + 1, float(ratios.max())


def bulk_norms(lin: hvp.Linearization, tops: Any, panels: Any) -> dict[str, float]:
    """Squared Frobenius norms without the outliers; also draws eigenvalues and densities."""
    bulk = {}
    for name, operator in OPERATORS.items():
        density = hvp.density(operator(lin), num_probes=4, num_steps=40, pairs=tops.get(name))
        x = density.grid(width=WIDTH)
        panels[2].plot(x, density.curve(x, WIDTH)[0], color=COLOURS[name], linewidth=1, label=name)
        bulk[name] = lin.size * density.moment(2).value - sum(density.outliers[1 - C :] ** 2)
    for name, top in tops.items():
        panels[0].plot(range(TOP, 0, -1), top.values, color=COLOURS[name], **MARKERS[name])
    panels[0].set(xlabel="rank", ylabel="eigenvalue", yscale="log", xticks=(1, 5, 9, 15, 20))
    panels[2].set(xlabel="λ", ylabel="density", yscale="log", ylim=(1e-5, None))
    panels[2].legend(frameon=False)
    return bulk


def run(quick: bool) -> Study:
    stride, width, epochs = (20, 8, (0, 1)) if quick else (1, 128, EPOCHS)
    x, y = (array[::stride] for array in examples.mnist())
    canvas = study.figure("Outliers of H, G and R = H - G on digits", 12.0, 7.0)
    grid, shown, rows = canvas.subplots(2 - quick, 3, squeeze=False), min(SHOWN, epochs[-1]), []
    for panels, activation in zip(grid, ("tanh", "relu"), strict=False):
        model, rng, counts, overlaps = network(activation, width), np.random.default_rng(0), [], []
        for epoch in range(epochs[-1] + 1):
            if epoch in epochs:
                lin = hvp.linearize(model, (x, y), **OPTIONS)
                tops = {n: hvp.eigsh(OPERATORS[n](lin), TOP, tol=1e-3) for n in "HG"}
                gaps = {name: gap(top.values) for name, top in tops.items()}
                here = ", ".join(f"{k} of {name} (ratio {r:.2f})" for name, (k, r) in gaps.items())
                claim = f"{activation}, epoch {epoch}, accuracy {lin.accuracy:.1%}: outliers"
                counts.append([gaps["H"][0], gaps["G"][0]])
                holds = abs(counts[-1][0] - C) <= 1 if epoch else None
                rows.append(Row(claim, f"about {C}", here, holds))
                cosines = tops["H"].vectors.T @ tops["G"].vectors
                overlaps.append([np.sum(cosines[-k:, -k:] ** 2) / k for k in (C - 1, TOP)])
            if epoch == shown:
                bulk = bulk_norms(lin, tops, panels)
            i = rng.permutation(len(x))
            model.fit(x[i], y[i], batch_size=64, shuffle=False, verbose=0)
        (first, _), (least, wide) = overlaps[0], np.min(overlaps[1:], axis=0)
        here = f"{first:.1%} at first, then {least:.1%} or more (top {TOP}: {wide:.1%})"
        claim = f"{activation}: overlap of H's and G's top {C - 1}"
        rows.append(Row(claim, "the same outliers", here, bool(least >= 0.95)))
        here = ", ".join(f"{name} {bulk[name]:.3g}" for name in "HGR")
        claim = f"{activation}, epoch {shown}: ‖A‖² without the top {C - 1}"
        rows.append(Row(claim, "from both G and R", here, bool(0.1 < bulk["R"] / bulk["G"] < 10)))
        panels[1].axhspan(C - 1, C + 1, color="0.9")
        for name, numbers in zip("HG", np.transpose(counts), strict=True):
            panels[1].plot(epochs, numbers, color=COLOURS[name], **MARKERS[name])
        panels[1].set(xlabel="epoch", ylabel="outliers", yticks=(1, 5, 9, 11, 15, 20))
        panels[1].set_title(f"{activation}; left and right: epoch {shown}")
    return Study("Outliers (Sagun et al. 2017, Papyan 2018)", tuple(rows), canvas)

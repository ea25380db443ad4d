"""Curvature of each layer at initialisation: for which initialisers it is balanced.

Glorot and Bengio 2010, section 4.2.1: if all weights have the same variance, the gradients of
layers of the same width have the same size, as signals shrink forward as much as errors do
backward. The trace of a diagonal block has both factors, tr G_ll = E ‖a_{l-1}‖² ‖∂z/∂s_l‖²_Λ, so

    tr G_ll ∝ q̂_{l-1} χ_l ⋯ χ_{L-2},   q_l = v q̂_{l-1},   v = n Var(w),   L layers,
    q̂_l = E φ(√q_l z)²,   χ_l = v E φ'(√q_l z)²,   z ~ N(0, 1)

by mean-field theory (Poole et al. 2016; Schoenholz et al. 2017). It is equal in all layers with
ReLU for every v, and almost with tanh for v ≤ 1 (Glorot, LeCun); for larger v it falls from layer
to layer. Agreement means two standard deviations: 5/n is the variance of log ‖a‖² per ReLU layer.
"""

from collections.abc import Callable
from functools import partial
from itertools import product

import keras
import numpy as np
from keras import initializers as init

import hvp
from bench.studies import study
from bench.studies.study import Row, Study
from hvp import examples

WIDTH = 256
# Name -> v for square layers, and the function that makes the initialiser.
INITIALISERS: dict[str, tuple[float, Callable]] = {
    "RandomNormal(0.05)": (WIDTH * 0.05**2, partial(init.RandomNormal, 0.0, 0.05)),
    "GlorotUniform": (1.0, init.GlorotUniform),
    "LecunNormal": (1.0, init.LecunNormal),
    "HeNormal": (2.0, init.HeNormal),
    "LecunNormal, gain 2": (4.0, partial(init.VarianceScaling, 4.0)),
}
PHI: dict[str, Callable] = {"relu": lambda s: np.maximum(s, 0), "tanh": np.tanh}
SLOPE: dict[str, Callable] = {"relu": lambda s: 1.0 * (s > 0), "tanh": lambda s: np.cosh(s) ** -2}
OPERATORS = {"tr G": hvp.GaussNewton, "E ‖∇ℓ‖²": hvp.EmpiricalFisher}


def run(quick: bool) -> Study:
    depth, step, num_products = (4, 100, 8) if quick else (8, 20, 40)
    x, y = (array[::step] for array in examples.mnist())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    allowed = np.exp(2 * np.sqrt(5 * (depth - 3) / WIDTH))
    rows, curves = [], {}
    for phi, name in product(PHI, list(INITIALISERS)[-1 if quick else 0 :]):
        v, initialiser = INITIALISERS[name]
        model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten()])
        for seed in range(depth):
            units, kind = (WIDTH, phi) if seed < depth - 1 else (10, None)
            model.add(keras.layers.Dense(units, kind, False, initialiser(seed=seed)))
        lin = hvp.linearize(model, (x, y), loss, jit=False)
        found = {}
        for what, operator in OPERATORS.items():
            traces = hvp.layer_traces(operator(lin), lin, num_products=num_products)
            found[what] = [block.trace.value for block in traces.layers.values()]
        H = [hvp.Hessian(block) for block in lin.blocks().values()]
        found["λ_max H"] = [hvp.eigsh(block, 1, tol=1e-3).values[0] for block in H]
        found["‖∇L‖²"] = [np.sum(lin.gradient()[part] ** 2) for part in lin.layout.slices]
        q = np.var(lin.theta[lin.layout.slices[0]]) * np.sum(x**2) / len(x)
        theory = _mean_field(phi, v, q, depth)
        curves[phi, name] = found, theory * found["tr G"][-2]
        ratios = {what: values[1] / values[-2] for what, values in found.items()}
        here = ", ".join(f"{what} {ratio:.2f}" for what, ratio in ratios.items())
        holds = all(abs(np.log(ratios[what] / theory[0])) < np.log(allowed) for what in OPERATORS)
        claim = f"{phi}, {name}: layer 2 over layer {depth - 1}"
        rows.append(Row(claim, f"tr G, E ‖∇ℓ‖² {theory[0]:.2f}", here, holds))
    remark = f"{len(x)} digits, layers {WIDTH} wide; ratios agree within a factor of {allowed:.2f}."
    title = "Initialisation: curvature across layers (Glorot and Bengio 2010, section 4.2.1)"
    return Study(title, tuple(rows), _figure(curves), (remark,))


def _mean_field(phi: str, v: float, q: float, depth: int) -> np.ndarray:
    """tr G_ll of layers 2 to L - 1, divided by that of layer L - 1; q is E s² of layer 1."""
    z, weights = np.polynomial.hermite_e.hermegauss(100)
    signals, slopes = [], []
    for _ in range(depth - 2):
        signals.append(np.average(PHI[phi](np.sqrt(q) * z) ** 2, weights=weights))
        q = v * signals[-1]
        slopes.append(v * np.average(SLOPE[phi](np.sqrt(q) * z) ** 2, weights=weights))
    traces = np.array(signals) * np.cumprod([1.0, *slopes[-2::-1]])[::-1]
    return traces / traces[-1]


def _figure(curves: dict) -> study.Figure:
    canvas = study.figure("Each layer's own block at initialisation; dotted: mean field", height=7)
    panels = canvas.subplots(2, 2, sharex=True, sharey="row")
    for (phi, name), (found, theory) in curves.items():
        number, column = list(INITIALISERS).index(name), panels[:, list(PHI).index(phi)]
        for panel, what in zip(column, ("tr G", "λ_max H"), strict=True):
            colour, marker = study.COLOURS[number], study.MARKERS[number]
            layers = np.arange(1, len(found[what]) + 1)
            panel.plot(layers, found[what], color=colour, marker=marker, label=name)
            panel.set(title=f"{phi}: {what}", xlabel="layer", xticks=layers, yscale="log")
        column[0].plot(layers[1:-1], theory, color="0.3", linestyle=":")
    panels[1, 1].legend(frameon=False, fontsize=8)
    return canvas

"""Curvature at initialisation: λ_max grows like the width, the mean falls like its inverse.

Karakida, Akaho and Amari 2019, "Universal statistics of Fisher information in deep neural
networks": the Fisher matrix of a random network with one output and Gaussian inputs, all of width
M, on T examples, satisfies for large M

    tr F ~ κ₁ M,  so that the mean of the P ~ M² eigenvalues falls like 1/M,  and
    λ_max ~ ((T - 1) κ₂ + κ₁) M / T,

with κ₁ = Σ_l q̂_{l-1} q̃_l from the signals and errors of one example, and κ₂ the same for two
examples. Both follow from mean-field recursions, for ReLU with the arc-cosine kernels of Cho and
Saul 2009. F is half of G of the squared error. A power agrees within three standard errors of the
fit or 0.1; a constant agrees at the largest width within three standard errors or 15 %.
"""

import keras
import numpy as np
from scipy import stats

import hvp
from bench.studies import study
from bench.studies.study import Row, Study

DEPTH = 3
VARIANCE = 2.0  # n Var(w), of He et al. 2015


def run(quick: bool) -> Study:
    widths, T, seeds = ((16, 32), 10, 2) if quick else ((32, 64, 128, 256, 512), 50, 3)
    found = []
    for M in widths:
        for seed in range(seeds):
            F = hvp.GaussNewton(_network(M, T, seed))
            top = hvp.eigsh(F, 1, tol=1e-3).values[0] / 2
            # The rank of F is T, so that the trace is exact.
            found.append((M, top, hvp.trace(F, num_products=2 * T + 4, seed=seed).value / 2))
    M, tops, traces = np.array(found).T
    kappa_1, kappa_2 = _mean_field()
    size = (DEPTH - 1) * M**2 + M
    top_law, mean_law = ((T - 1) * kappa_2 + kappa_1) / T * M, kappa_1 * M / size
    laws = {"λ_max": (tops, top_law, 1), "mean eigenvalue": (traces / size, mean_law, -1)}
    rows = []
    for what, (values, law, power) in laws.items():
        fit = stats.linregress(np.log(M), np.log(values))
        last = (values / law)[-seeds:]
        error = last.std(ddof=1) / np.sqrt(seeds)
        rows += [
            Row(
                f"power of the width in {what}",
                f"{power}",
                f"{fit.slope:.2f} ± {fit.stderr:.2f}",
                bool(abs(fit.slope - power) <= max(3 * fit.stderr, 0.1)),
            ),
            Row(
                f"{what} over the law, at width {widths[-1]}",
                "1",
                f"{last.mean():.2f} ± {error:.2f}",
                bool(abs(last.mean() - 1) <= max(0.15, 3 * error)),
            ),
        ]
    remarks = (f"ReLU, {DEPTH} layers, no biases, {T} Gaussian inputs, {seeds} networks a width.",)
    title = "Width (Karakida, Akaho and Amari 2019, mean and largest eigenvalue)"
    return Study(title, tuple(rows), _figure(M, laws), remarks)


def _network(M: int, T: int, seed: int) -> hvp.Linearization:
    model = keras.Sequential([keras.Input((M,))])
    for layer in range(DEPTH):
        units, kind = (M, "relu") if layer < DEPTH - 1 else (1, None)
        initial = keras.initializers.VarianceScaling(VARIANCE, seed=DEPTH * seed + layer)
        model.add(keras.layers.Dense(units, kind, use_bias=False, kernel_initializer=initial))
    x = np.random.default_rng(seed).standard_normal((T, M), dtype=np.float32)
    return hvp.linearize(model, (x, np.zeros((T, 1))), "mean_squared_error", jit=False)


def _mean_field() -> tuple[float, float]:
    """κ₁ of an example with itself, and κ₂ of two examples with orthogonal inputs."""
    signals, errors = [np.array([1.0, 0.0])], []
    for _ in range(DEPTH - 1):
        s, t = VARIANCE * signals[-1]
        angle = np.arccos(t / s)
        mixed = s * (np.sin(angle) + np.cos(angle) * (np.pi - angle)) / (2 * np.pi)
        signals.append(np.array([s / 2, mixed]))
        errors.append(VARIANCE * np.array([0.5, (np.pi - angle) / (2 * np.pi)]))
    back = np.cumprod([np.ones(2), *errors[::-1]], axis=0)[::-1]
    kappa_1, kappa_2 = np.sum(np.array(signals) * back, axis=0)
    return kappa_1, kappa_2


def _figure(M: np.ndarray, laws: dict) -> study.Figure:
    canvas = study.figure("The Fisher matrix at initialisation against width", height=4.0)
    for panel, (what, (values, law, _)) in zip(canvas.subplots(1, 2), laws.items(), strict=True):
        panel.loglog(M, law, color=study.VERMILION, label="mean field")
        panel.loglog(M, values, "o", color=study.BLUE, fillstyle="none", label="here")
        panel.set(xlabel="width M", ylabel=what)
        panel.set_xticks(np.unique(M), [f"{width:g}" for width in np.unique(M)])
        panel.xaxis.minorticks_off()
        panel.legend(frameon=False)
    return canvas

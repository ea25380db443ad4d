"""Sharpness-aware minimisation: sharpness follows an edge that falls with the gradient.

Long and Bartlett 2023, arXiv 2309.12488: SAM steps along the slopes at w + ρ∇L/‖∇L‖. On a quadratic
whose gradient is along an eigenvector of λ, a step is stable while ηλ(1 + ρλ/‖∇L‖) < 2, that is for

    λ < ‖∇L‖/(2ρ) (√(1 + 8ρ/(η‖∇L‖)) - 1).

The gradient falls during training, and this edge with it, well below 2/η. The paper finds that
λ_max of H stays near the edge, on MNIST, CIFAR-10 and a language model. Here is the network of
`edge_of_stability` on 1,000 digits, with all of them in each step.

Criteria, over the second half of the steps: the mean of sharpness over edge is within 10 % of 1;
and the mean sharpness is below half of 2/η.
"""

from __future__ import annotations

import numpy as np

from bench.studies import study
from bench.studies.descent import Data, Sharpness, Tensors, descend, digits, used_pixels
from bench.studies.study import Row, Study

SETTINGS = ((0.2, 0.05), (0.2, 0.1), (0.1, 0.1))


def edge(norm: np.ndarray, rate: float, radius: float) -> np.ndarray:
    """The largest stable sharpness at gradients of these norms."""
    return norm / (2 * radius) * (np.sqrt(1 + 8 * radius / (rate * norm)) - 1)


def train(
    rate: float, radius: float, data: Data, width: int, num_steps: int, every: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sharpness and gradient norm at every `every`-th step."""
    model, data = used_pixels(width, *data)
    sharpness = Sharpness(model, *data)
    norms: list[float] = []

    def measure() -> float:
        norms.append(sharpness.gradient_norm())
        return sharpness()

    def change(slopes: Tensors) -> Tensors:
        return [-rate * slope for slope in slopes]

    found, _ = descend(model, change, data, num_steps, every, measure, radius=radius)
    return found, np.array(norms)


def run(quick: bool) -> Study:
    count, width, num_steps, every = (100, 8, 40, 20) if quick else (1000, 50, 3000, 50)
    data = digits(count)
    canvas = study.figure("SAM on 784-50-50-10: sharpness follows its edge", 12.0)
    rows, at = [], np.arange(0, num_steps + 1, every)
    for panel, (rate, radius) in zip(canvas.subplots(1, 3), SETTINGS, strict=True):
        found, norms = train(rate, radius, data, width, num_steps, every)
        limit = edge(norms, rate, radius)
        panel.plot(at, found, color=study.BLUE, label="λmax of H")
        panel.plot(at, limit, "--", color=study.VERMILION, label="edge of SAM")
        panel.axhline(2 / rate, color="0.5", linestyle=":", label="2/η")
        panel.set(xlabel="step", title=f"η = {rate}, ρ = {radius}", ylim=(0, 2.2 / rate))
        late = found[len(at) // 2 :]
        ratios = late / limit[len(at) // 2 :]
        here = f"sharpness / edge {ratios.mean():.3f} ± {ratios.std():.2g}"
        near = bool(abs(ratios.mean() - 1) < 0.1)
        name = f"η = {rate}, ρ = {radius}"
        rows.append(Row(f"{name}: sharpness", "stays near the edge", here, near))
        low = bool(late.mean() < 1 / rate)
        here = f"{found[0]:.3g} at first, then {late.mean():.3g} ± {late.std():.2g}"
        rows.append(Row(f"{name}: 2/η = {2 / rate:.3g}", "is well above the sharpness", here, low))
    canvas.axes[0].set_ylabel("largest eigenvalue of H")
    canvas.axes[0].legend(frameon=False)
    remark = f"{count:,} digits, {num_steps:,} steps, measured every {every}; ± is the spread in"
    remark += " time, over the second half of the steps."
    return Study("Edge of SAM (Long and Bartlett 2023)", tuple(rows), canvas, (remark,))

"""Gradient descent with 2 < ηλ₀ < 4 first climbs, and then converges where it is less sharp.

Lewkowycz, Bahri, Dyer, Sohl-Dickstein and Gur-Ari 2020, arXiv 2003.02218: λ₀ is the largest
eigenvalue of the neural tangent kernel at the start, that of G here. With squared loss there are
three phases. For ηλ₀ < 2 the loss falls and λ changes little (lazy). For ηλ₀ between 2 and 4 the
loss first rises, λ falls, and training ends with ηλ < 2 (catapult). Above 4 it diverges. The bound
4 is derived for a wide linear network with one hidden layer; with ReLU the paper measures one of
about 12. Here are both, 1,000 units wide, on 100 digits zero and one of 14 × 14.

Criteria: lazy is a loss that never rises and a λ that changes by less than 10 %. The catapult is a
loss that rises above twice its first value, ends below a tenth of that, and ηλ < 2 at the end.
Divergence is a loss above 10⁶ times the first.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import hvp
from bench.studies import study
from bench.studies.study import Row, Study
from hvp import examples

RATIOS = {"linear": (1.0, 1.5, 2.5, 3.0, 3.5, 4.5, 6.0), "ReLU": (1.0, 3.0, 6.0, 9.0, 15.0)}
BOUNDS = {"linear": 4.0, "ReLU": 12.0}
LAZY, CATAPULT, DIVERGES = "lazy", "catapult", "diverges"
LAWS = {
    LAZY: "falls, λ stays", CATAPULT: "rises, then falls; ηλ < 2 at the end", DIVERGES: "diverges",
}  # fmt: skip


def linearized(kind: str, width: int, count: int) -> hvp.Linearization:
    """½(f - y)² of f = vᵀφ(Ux/√d)/√n, with standard normal U (n, d) and v (n,)."""
    x, y = examples.mnist()
    chosen = np.flatnonzero(y < 2)[:count]
    x, y = x[chosen, ::2, ::2].reshape(count, -1), 2.0 * y[chosen] - 1
    x = x[:, x.any(axis=0)]
    x /= np.linalg.norm(x, axis=1).mean() / np.sqrt(x.shape[1])
    rng, activation = np.random.default_rng(0), tf.nn.relu if kind == "ReLU" else tf.identity

    def outputs(weights: list[tf.Tensor], batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        hidden = activation(batch[0] @ weights[0] / np.sqrt(x.shape[1]))
        return tf.linalg.matvec(hidden, weights[1]) / np.sqrt(width)

    def loss(z: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return tf.reduce_mean((z - batch[1]) ** 2) / 2

    params = [rng.standard_normal((x.shape[1], width)), rng.standard_normal(width)]
    single = [each.astype(np.float32) for each in params]
    data = x.astype(np.float32), y.astype(np.float32)
    return hvp.linearize_function(loss, single, data, outputs=outputs, reduction="mean", jit=False)


def kernel_norm(lin: hvp.Linearization, theta: np.ndarray) -> float:
    """The largest eigenvalue of G, which is that of the neural tangent kernel over N."""
    with lin.at(theta) as there:
        return float(hvp.eigsh(hvp.GaussNewton(there), 1, tol=1e-3).values[0])


def descend(lin: hvp.Linearization, rate: float, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The last weights, and the loss before each step; it ends early where that diverges."""
    theta, losses = lin.theta.copy(), []
    for _ in range(num_steps):
        loss, slope = lin.loss_and_gradient(theta)
        losses.append(loss)
        if not loss < 1e6 * losses[0]:
            break
        theta = (theta - rate * slope).astype(theta.dtype)
    return theta, np.array(losses)


def run(quick: bool) -> Study:
    width, count, num_steps = (30, 20, 20) if quick else (1000, 100, 300)
    canvas = study.figure("Descent on digits 0 and 1: lazy, catapult, divergence")
    rows = []
    for panel, kind in zip(canvas.subplots(1, 2), RATIOS, strict=True):
        lin = linearized(kind, width, count)
        first = kernel_norm(lin, lin.theta)
        for i, ratio in enumerate(RATIOS[kind]):
            theta, losses = descend(lin, ratio / first, num_steps)
            relative = losses / losses[0]
            panel.plot(relative, color=f"C{i}", label=f"{ratio:g}")
            phase = LAZY if ratio < 2 else CATAPULT if ratio < BOUNDS[kind] else DIVERGES
            here = f"loss at most {relative.max():.2g} of the first, {relative[-1]:.2g} at the end"
            holds = not relative[-1] < 1e6
            if relative[-1] < 1e6:
                last = kernel_norm(lin, theta)
                here += f"; ηλ = {ratio * last / first:.3g}"
                holds = phase == LAZY and relative.max() == 1 and abs(last / first - 1) < 0.1
                caught = relative.max() > 2 and relative[-1] < 0.1 and ratio * last / first < 2
                holds |= phase == CATAPULT and caught
            else:
                holds = phase == DIVERGES
            rows.append(Row(f"{kind}, ηλ₀ = {ratio:g}", LAWS[phase], here, bool(holds)))
        panel.set(xlabel="step", ylabel="loss / first loss", yscale="log", title=kind)
        panel.legend(frameon=False, title="ηλ₀")
    remark = f"{count} digits, {width:,} units, {lin.size:,} parameters, {num_steps} steps."
    return Study("Catapult (Lewkowycz et al. 2020)", tuple(rows), canvas, (remark,))

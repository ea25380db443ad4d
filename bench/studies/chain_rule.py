"""The chain rule H = G + R: wᵀHw and wᵀGw, layer by layer.

With ReLU, R = 0 on the diagonal block of each layer, because the outputs are piecewise linear in
the weights of one layer (Botev, Ritter and Barber 2017, "Practical Gauss-Newton optimisation for
deep learning"). With tanh this holds only for the last layer. For the whole network R ≠ 0 with
both, because weights of different layers are multiplied with each other.

Two forms are equal if they differ by less than a hundred roundings of ‖w‖·‖Hw‖ (`Forms.equal`).
The forms test one direction. The squared Frobenius norm tests the whole block of R: it counts as
zero if it is below 10⁻¹⁰ of that of H.
"""

from __future__ import annotations

import numpy as np

import hvp
from bench.studies import study
from bench.studies.study import Row, Study
from hvp import examples

LAST = "dense3"
WHOLE = "whole network"
ROUNDING = 1e-10


def run(quick: bool) -> Study:
    step, num_products, jit = (50, 6, False) if quick else (1, 60, "auto")
    x, y = (array[::step] for array in examples.mnist())
    rows, forms, remarks = [], {}, []
    for activation in examples.ACTIVATIONS:
        model = examples.network(activation)
        examples.train(model, x, y)
        lin = hvp.linearize(model, (x, y), jit=jit)
        forms[activation] = hvp.chain_rule(lin)
        parts = {**lin.blocks(), WHOLE: lin}
        for form in forms[activation]:
            is_zero = form.layer != WHOLE and (activation == "relu" or form.layer == LAST)
            R, H = (
                hvp.squared_frobenius_norm(operator(parts[form.layer]), num_products=num_products)
                for operator in (hvp.Residual, hvp.Hessian)
            )
            share = R.value / H.value
            rows.append(
                Row(
                    f"{activation}, {form.layer}: wᵀHw {'=' if is_zero else '≠'} wᵀGw",
                    f"‖R‖² {'=' if is_zero else '>'} 0",
                    f"{form.vHv:.5f}, {form.vGv:.5f}, apart by {form.difference:.1e}; "
                    f"‖R‖²/‖H‖² = {share:.3g} ± {R.stderr / H.value:.1g}",
                    form.equal == is_zero and (share < ROUNDING) == is_zero,
                )
            )
        remarks.append(
            f"{activation}: {lin.num_examples:,} digits, {lin.size:,} parameters, trained to an "
            f"accuracy of {lin.accuracy:.1%}."
        )
    return Study("Chain rule (H = G + R on layers)", tuple(rows), _figure(forms), tuple(remarks))


def _figure(forms: dict[str, tuple]) -> study.Figure:
    canvas = study.figure("wᵀHw and wᵀGw, with w the kernels of a layer", height=4.0)
    for panel, (activation, rows) in zip(canvas.subplots(1, 2), forms.items(), strict=True):
        place = np.arange(len(rows))
        for shift, (name, colour) in enumerate(zip("HGR", study.COLOURS, strict=False), -1):
            heights = [getattr(row, f"v{name}v") for row in rows]
            bars = panel.bar(place + 0.27 * shift, heights, 0.25, color=colour, label=f"wᵀ{name}w")
            if name == "R":
                panel.bar_label(bars, [_short(height) for height in heights], fontsize=8)
        panel.axhline(0, color="0.4", linewidth=0.8)
        panel.set_xticks(place, [row.layer.replace("whole ", "whole\n") for row in rows])
        panel.set_title(f"{activation}; the numbers are wᵀRw", fontsize=10)
        panel.legend(frameon=False, loc="upper left")
    return canvas


def _short(x: float) -> str:
    return f"{x:.3f}" if abs(x) >= 5e-4 else f"{x:.0g}"

"""The panels of the loss along a direction, beside its parabola."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hvp.comparison.loss_slice import LossSlice
from hvp.report import entries
from hvp.report.figure_style import Hover, no_hover, short, write_out
from hvp.report.number_format import typeset
from hvp.report.palette import COLOURS, INK, MUTED

# Points of a parabola.
NUM_POINTS = 101
# The parabola is drawn as far as it stays within this many times the range of the loss.
MAX_RANGE = 0.6
MARGIN = 0.05


def loss_slice(panel: Axes, found: LossSlice, i: int, hover: Hover = no_hover) -> None:
    """The loss along the i-th direction: points joined by lines, over the dashed parabola."""
    t, losses = found.steps[i], found.losses[i]
    fine = np.linspace(t[0], t[-1], NUM_POINTS)
    slope, curvature = found.slopes[i], found.curvatures[i]
    parabola = found.loss + fine * slope + fine**2 * curvature / 2
    panel.plot(
        fine,
        parabola,
        color=COLOURS["H"],
        linestyle="--",
        linewidth=2.2,
        label="L + t gᵀv + ½ t² vᵀHv",
    )
    panel.plot(t, losses, color=INK, linewidth=1.0, label="loss")
    for x, y, by_parabola in zip(t, losses, found.parabolas[i], strict=True):
        (point,) = panel.plot([x], [y], "o", color=INK, markersize=3.5)
        hover(point, typeset(f"t = {x:.4g}: loss {y:.6g}, parabola {by_parabola:.6g}"))
    panel.axvline(0, color=MUTED, linewidth=0.8, zorder=0)
    panel.set_xlim(t[0] * 1.03, t[-1] * 1.03)
    panel.set_ylim(*_limits(losses, parabola))
    form, measured, *_ = entries.slice_numbers(found, i)
    title = f"{short(found.names[i])}: vᵀHv = {form}\nby the loss: {measured}"
    panel.set_title(typeset(title))
    panel.set_xlabel("t, the distance from the weights along v")
    panel.set_ylabel("loss")
    panel.legend(loc="best")
    panel.xaxis.set_major_locator(MaxNLocator(5))
    write_out(panel.xaxis)
    write_out(panel.yaxis)


def _limits(losses: np.ndarray, parabola: np.ndarray) -> tuple[float, float]:
    """The range of the loss, and of the parabola as far as it does not hide the loss."""
    finite = losses[np.isfinite(losses)]
    low, high = float(finite.min()), float(finite.max())
    most = MAX_RANGE * (high - low)
    low = max(min(low, float(parabola.min())), low - most)
    high = min(max(high, float(parabola.max())), high + most)
    margin = MARGIN * (high - low) or MARGIN * (abs(high) or 1.0)
    return low - margin, high + margin

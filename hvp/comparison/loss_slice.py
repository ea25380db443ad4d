"""The loss along directions, beside the parabola that the gradient and the Hessian give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from hvp.comparison import taylor_remainder
from hvp.comparison.spectrum import Spectrum
from hvp.errors import InputError, report_packages, shown
from hvp.linalg.blocks import float64_sum, gram, multiply, squared_lengths
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.operators import Curvature, Hessian, check_curvature
from hvp.progress import Progress, ProgressHook
from hvp.tables import ShownAsTable, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Points along each direction by default, and the fewest: the curvature is measured with three
# steps, each twice the one before.
NUM_POINTS, MIN_POINTS = 21, 9
# Roundings of a loss that is a sum over examples.
ROUNDINGS = 4.0


@dataclass(frozen=True, eq=False, repr=False)
class LossSlice(ShownAsTable):
    """The loss L(w + tv) along K directions v of length one, and the parabola of each.

    Attributes:
        names: of the directions.
        steps: (K, n) t, ascending, with 0 in the middle: the distance from w.
        losses: (K, n) L(w + tv), NaN where the loss is not finite.
        loss: L(w).
        slopes: (K,) gᵀv, of the gradient g.
        curvatures: (K,) vᵀHv.
        measured: (K,) the second derivative along v from `losses` alone, by central differences.
            NaN where the loss is not finite.
        measured_errors: (K,) the change of `measured` with steps twice as large, plus rounding.
        orders: (K,) the power of t by which `losses` and `parabolas` part near 0. It is 3 or more
            where g and H are right; with a wrong H it is 2, with a wrong g 1. NaN where they part
            by no more than rounding, as for a quadratic loss.
        num_losses: evaluations of the loss.

    With ReLU, `measured` includes the kinks between the steps and vᵀHv does not: then they may
    differ by more than the error, and the order may be below 3, although H is right.

    >>> import hvp
    >>> lin = hvp.linearize_function(lambda w: w[0] ** 4, np.array([1.0]))
    >>> found = hvp.loss_slice(lin, np.ones(1), radius=0.1, num_points=9)
    >>> found.losses[0, [0, 4, 8]].round(4).tolist(), found.parabolas[0, [0, 4, 8]].tolist()
    ([0.6561, 1.0, 1.4641], [0.66, 1.0, 1.46])
    """

    names: tuple[str, ...]
    steps: np.ndarray
    losses: np.ndarray
    loss: float
    slopes: np.ndarray
    curvatures: np.ndarray
    measured: np.ndarray
    measured_errors: np.ndarray
    orders: np.ndarray
    num_losses: int

    @property
    def parabolas(self) -> np.ndarray:
        """(K, n) L(w) + t gᵀv + ½ t² vᵀHv."""
        return _parabolas(self.steps, self.loss, self.slopes, self.curvatures)

    @property
    def differences(self) -> np.ndarray:
        """(K,) |measured - vᵀHv| relative to the larger of the two; 0 where both are 0."""
        gap = np.abs(self.measured - self.curvatures)
        size = np.maximum(np.abs(self.measured), np.abs(self.curvatures))
        return np.divide(gap, size, out=np.where(np.isnan(gap), np.nan, 0.0), where=size > 0)

    def rows(self) -> list[dict[str, float | str]]:
        """A dict for each point, as `pandas.DataFrame` takes them."""
        return [
            {"direction": name, "t": float(t), "loss": float(loss), "parabola": float(parabola)}
            for name, *line in zip(self.names, self.steps, self.losses, self.parabolas, strict=True)
            for t, loss, parabola in zip(*line, strict=True)
        ]

    def plot(self) -> Figure:
        """A figure of matplotlib: for each direction the loss, and its parabola dashed.

        Raises InputError where the packages of the extra "report" are not installed.
        """
        with report_packages():
            from hvp.report.plots import plot_loss_slice
        return plot_loss_slice(self)

    def _table(self) -> Table:
        rows = [
            (name, f"{t:.4g}", *(f"{x:.6g}" for x in numbers), f"{error:.1e}", f"{order:.2f}")
            for name, t, *numbers, error, order in zip(
                self.names,
                self.steps[:, -1],
                self.slopes,
                self.curvatures,
                self.measured,
                self.measured_errors,
                self.orders,
                strict=True,
            )
        ]
        K = len(self.names)
        count = "1 direction" if K == 1 else f"{K:,} directions"
        return Table(
            f"Loss along {count}, {self.num_losses:,} values",
            ("direction", "largest t", "gᵀv", "vᵀHv", "by the loss", "error", "order"),
            rows,
            [
                "order: the loss and its parabola part by this power of t: 3 or more where H is "
                "right, nan where they part by rounding alone."
            ],
        )


def loss_slice(
    lin: Curvature,
    directions: Eigenpairs | ArrayLike,
    radius: ArrayLike | None = None,
    *,
    num_points: int = NUM_POINTS,
    names: Sequence[str] | None = None,
    progress: ProgressHook | None = None,
) -> LossSlice:
    """The loss along directions v, beside L(w) + t gᵀv + ½ t² vᵀHv: a picture, and a test of H.

    Near t = 0 the loss and the parabola part by a third of a derivative, t³L‴/6, where the gradient
    g and H are right. The second derivative of the loss along v is also measured, from its values
    alone: central differences with steps h and 2h, extrapolated (Richardson). Both are in
    `LossSlice`.

    It takes one gradient, a product with H for each direction, and ``num_points - 1`` evaluations
    of the loss for each, with one for all.

    Args:
        lin: a `Linearization`.
        directions: an `Eigenpairs`, or an array (P,) or (P, K). They are divided by their length,
            so that t is the distance from w.
        radius: the largest t, a number or one for each direction. None for the distance at which
            the parabola has moved by half of L(w), and ‖w‖ at most.
        num_points: values of t, evenly from -radius to radius; odd, and 9 or more.
        names: of the directions.
        progress: called with the number of evaluations of the loss so far, a `hvp.Progress`.

    Raises:
        InputError: directions of another length, zero or not finite, or another bad argument.

    >>> import hvp
    >>> lin = hvp.linearize_function(lambda w: w[0] ** 3 + 2 * w[1] ** 2, np.array([1.0, 0.0]))
    >>> found = loss_slice(lin, np.eye(2), radius=0.5)
    >>> found.curvatures.tolist(), found.measured.round(6).tolist(), found.orders.round(6).tolist()
    ([6.0, 4.0], [6.0, 4.0], [3.0, nan])
    """
    check_curvature(lin)
    _check_num_points(num_points)
    V = _unit_columns(directions, lin)
    called = _names(directions, V.shape[1], names)
    theta, gradient = lin.theta, lin.gradient()
    losses_at = _Losses(lin, progress, (num_points - 1) * V.shape[1] + 1)
    here = losses_at(theta)
    if not np.isfinite(here):
        raise InputError("a finite loss at w", "NaN or infinity", "check the data and the weights")
    slopes = gram(V, gradient[:, None])[:, 0]
    curvatures = _forms(V, multiply(Hessian(lin), V))
    length = float(np.sqrt(squared_lengths(theta[:, None])[0]))
    radii = _radii(radius, length, here, slopes, curvatures)
    half = num_points // 2
    steps = radii[:, None] * (np.arange(-half, half + 1) / half)
    losses = np.array(
        [
            [losses_at(theta + float(t) * v) if t else here for t in line]
            for line, v in zip(steps, V.T, strict=True)
        ]
    )
    rounding = _rounding(lin, losses, theta, gradient)
    measured, errors = taylor_remainder.second_derivatives(steps, losses, rounding)
    remainders = losses - _parabolas(steps, here, slopes, curvatures)
    orders = taylor_remainder.orders(remainders, rounding)
    return LossSlice(
        called, steps, losses, here, slopes, curvatures, measured, errors, orders, losses_at.count
    )


def slices_at_ends(lin: Curvature, H: Spectrum, progress: ProgressHook | None = None) -> LossSlice:
    """The loss along the eigenvectors of the largest and of the smallest eigenvalue of H."""
    vectors = [H.largest.vectors[:, -1:], H.smallest.vectors[:, :1]][: H.size]
    names = ("largest λ", "smallest λ")[: H.size]
    return loss_slice(lin, np.concatenate(vectors, axis=1), names=names, progress=progress)


class _Losses:
    """The loss at other parameters, NaN where it is not finite; counted."""

    def __init__(self, lin: Curvature, progress: ProgressHook | None, total: int):
        self.count, self._lin, self._progress, self._total = 0, lin, progress, total

    def __call__(self, theta: np.ndarray) -> float:
        loss = self._lin.loss(theta)
        self.count += 1
        if self._progress is not None:
            self._progress(Progress(self.count, total=self._total))
        return loss if np.isfinite(loss) else np.nan


def _check_num_points(count: int) -> None:
    if not isinstance(count, int | np.integer) or count < MIN_POINTS or count % 2 == 0:
        raise InputError(f"an odd num_points of at least {MIN_POINTS}", count, "take 21")


def _unit_columns(directions: Eigenpairs | ArrayLike, lin: Curvature) -> np.ndarray:
    """The directions as columns (P, K) of length one, in the precision of the products."""
    given = directions.vectors if isinstance(directions, Eigenpairs) else directions
    try:
        V = np.asarray(given)
        V = V if V.dtype == np.float32 else V.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        got = shown(directions)
        raise InputError("Eigenpairs or an array of directions", got, "pass numbers") from error
    V = V[:, None] if V.ndim == 1 else V
    if V.ndim != 2 or len(V) != lin.size or not V.shape[1]:
        expected = f"directions of shape ({lin.size},) or ({lin.size}, K)"
        raise InputError(expected, str(np.shape(given)), "give one entry a parameter")
    lengths = np.sqrt(squared_lengths(V))
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise InputError("directions that are finite and not zero", "others", "leave these out")
    return np.asfortranarray(V / lengths.astype(V.dtype), dtype=lin.dtype)


def _names(
    directions: Eigenpairs | ArrayLike, count: int, names: Sequence[str] | None
) -> tuple[str, ...]:
    """The names given, or "eigenvector" with its rank, or "direction" with its number."""
    if names is not None:
        if isinstance(names, str) or len(names) != count:
            raise InputError(f"{count} names", shown(names), "give one for each direction")
        return tuple(map(str, names))
    if isinstance(directions, Eigenpairs) and directions.ranks is not None:
        return tuple(f"eigenvector {rank}" for rank in directions.ranks)
    return tuple(f"direction {i}" for i in range(1, count + 1))


def _forms(V: np.ndarray, products: np.ndarray) -> np.ndarray:
    """(K,) vᵀ(Hv) of the columns, summed in float64."""
    return float64_sum(lambda v, Hv: np.sum(v * Hv, axis=0), V, products)


def _radii(
    radius: ArrayLike | None,
    length: float,
    loss: float,
    slopes: np.ndarray,
    curvatures: np.ndarray,
) -> np.ndarray:
    """(K,) the largest t; by default where |gᵀv| t + ½|vᵀHv| t² is ½|L|, and `length` at most."""
    if radius is None:
        g, c = np.abs(slopes), np.abs(curvatures)
        root = g + np.sqrt(g**2 + c * abs(loss))
        most = length or 1.0
        moved = abs(loss) / np.where(root > 0, root, 1.0)
        return np.where((moved > 0) & (moved < most), moved, most)
    try:
        radii = np.broadcast_to(np.asarray(radius, np.float64), slopes.shape)
    except (TypeError, ValueError) as error:
        expected = f"a radius, or one for each of {len(slopes)} directions"
        raise InputError(expected, shown(radius), "pass a number") from error
    if not (np.isfinite(radii) & (radii > 0)).all():
        raise InputError("a radius above zero", shown(radius), "pass a positive number")
    return radii


def _parabolas(
    steps: np.ndarray, loss: float, slopes: np.ndarray, curvatures: np.ndarray
) -> np.ndarray:
    """(K, n) L + t gᵀv + ½ t² vᵀHv."""
    return loss + steps * slopes[:, None] + steps**2 * curvatures[:, None] / 2


def _rounding(lin: Curvature, losses: np.ndarray, theta: np.ndarray, gradient: np.ndarray) -> float:
    """The error of a loss: of its sum over examples, and of parameters that are rounded."""
    of_parameters = float64_sum(lambda w, g: np.sum((w * g) ** 2), theta, gradient)
    size = ROUNDINGS * float(np.nanmax(np.abs(losses))) + float(np.sqrt(of_parameters))
    return float(np.finfo(lin.dtype).eps) * size

"""A whole spectrum as nodes and weights by random probes, and figures that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from hvp.errors import InputError
from hvp.linalg.brackets import CountBracket, ProbeRules, misplaced_weight, share_bounds
from hvp.linalg.estimate import Estimate, standard_error_of_mean, student_factor
from hvp.linalg.lanczos import ROUNDINGS
from hvp.linalg.smoothing import (
    grid_points,
    local_widths,
    resolved_width,
    smoothed,
    smoothed_rows,
    to_log,
)
from hvp.sampling_error import jackknife
from hvp.tables import ShownAsTable, Table

# The power of `student_factor` by which an error from the spectrum itself is widened: less than one
# because that spectrum averages over more than the probes.
SPECTRAL_POWER = 0.5
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class BatchJackknife:
    """Nodes and weights of a density without each of B batches, or groups of neighbouring ones.

    Attributes:
        nodes, weights: (B, S, m) as those of a `Density`, for its first S probes, each in its own
            Krylov space.
        outliers: (B, k).
        examples: (B,) the number of examples in each batch.
    """

    nodes: np.ndarray
    weights: np.ndarray
    outliers: np.ndarray
    examples: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Density(ShownAsTable):
    """The spectrum of A by S probes: nodes and weights, and figures that follow from them.

    The cumulative spectrum is a step function. The mean over the rows of `nodes`, with their
    weights, has the mass (P - k)/P, and each of the k outliers the mass 1/P. Each figure is the
    mean over the probes.

    `stderr` of a figure is its standard error over the probes, NaN for a single one.

    `depth` of a figure is its change, in the mean over the probes, between m/2 and m Lanczos steps.
    The change from m steps to the limit is no larger where the error falls like 1/m or faster, as
    it does once the nodes resolve where f is steep. It is zero where Krylov spaces are complete.
    For counts and masses `depth` is at least the weight of the two nodes next to the threshold that
    may belong to its other side: for a node with error ε, the share of its Ritz vector in
    eigenvalues further than d away is at most (ε/d)², by Chebyshev's inequality.

    `sampling` of a figure is its sampling error, where `density` was asked for it: a jackknife over
    the batches, whose shares of A are known on the Krylov space K of a probe v. To first order, a
    change E of A changes vᵀf(A)v as the change of T on K changes f(T), for polynomials f of degree
    up to m (proof: for f = xⁿ the change is Σ vᵀAⁱ E Aʲv over i + j = n - 1, and Aⁱv, Aʲv lie in
    K). It includes some of the error of using few probes: see `hvp.sampling_error.jackknife`. For a
    count, the step is replaced by a ramp as wide as the distance between nodes.

    Products and recurrence are right to 32 roundings of the largest eigenvalue, the `floor`: a node
    within the floor of a threshold counts as equal to it. So the null space of a positive
    semidefinite G has no negative eigenvalues. Give `floor` where the noise was measured.

    Attributes:
        nodes: (S, m) Ritz values of each probe, ascending; where a probe ended early the last one
            is repeated, with weight zero.
        weights: (S, m) that sum to one in each row.
        errors: (S, m) β_m times the last entry of the node's eigenvector of T. A, with the outliers
            projected out, has an eigenvalue that close, up to the floor (Parlett 1998, section
            13.2). It holds only with reorthogonalisation.
        half_nodes, half_weights: the same after half as many steps, NaN for half a step.
        steps: (S,) Lanczos steps of each probe: fewer where its Krylov space was complete.
        outliers: (k,) eigenvalues of the pairs that were projected out, exact nodes of weight 1/P.
        size: P.
        precision: the relative rounding of the operator's numbers.
        seed: of the probes: the same seed draws the same probes for another operator.
        notes: where the computation differs from what was asked, and limits of the result.
        num_products: products with A.
        left_out: the same without each batch, None where it was not asked for.

    >>> from hvp import density
    >>> whole = density(np.diag([-1.0, 1.0, 1.0, 3.0]), num_probes=50, num_steps=4)
    >>> whole.nodes.shape, whole.nodes[0].round(9).tolist(), whole.notes
    ((50, 3), [-1.0, 1.0, 3.0], ())
    """

    nodes: np.ndarray
    weights: np.ndarray
    errors: np.ndarray
    half_nodes: np.ndarray
    half_weights: np.ndarray
    steps: np.ndarray
    outliers: np.ndarray
    size: int
    precision: float
    seed: int
    notes: tuple[str, ...]
    num_products: int
    left_out: BatchJackknife | None = None

    def _table(self) -> Table:
        probes, most = self.nodes.shape
        fewest = int(self.steps.min())
        outliers = "none"
        if len(self.outliers):
            low, high = self.outliers.min(), self.outliers.max()
            outliers = f"{len(self.outliers):,}, from {low:.6g} to {high:.6g}"
        rows = [
            ("probes", f"{probes:,}"),
            ("Lanczos steps of each", f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"),
            ("nodes", f"from {self.nodes.min():.6g} to {self.nodes.max():.6g}"),
            ("mass of the nodes", f"{self._bulk_share:.6g}"),
            ("outliers", outliers),
            ("floor", f"{self.floor:.2g}"),
            ("products", f"{self.num_products:,}"),
            ("seed", str(self.seed)),
        ]
        return Table(f"Density of {self.size:,} eigenvalues", (), rows, self.notes)

    @property
    def floor(self) -> float:
        """32 roundings of the largest eigenvalue in magnitude: smaller eigenvalues may be zero."""
        largest = max(np.abs(self.nodes).max(), np.abs(self.outliers).max(initial=0.0))
        return float(ROUNDINGS * self.precision * largest)

    @property
    def width(self) -> float:
        """The standard width of the bells of `curve`, in units of λ.

        It is half the weighted median, over the nodes of all probes, of the distance to the
        neighbouring nodes or the node's error bound, whichever is less. Bells of equal height,
        width h/2 and distance h add up to a level line within 2 exp(-π²/2), 1.4 %. The m steps,
        exact for polynomials of degree 2m - 1, cannot resolve more: on [-1, 1], where h = π/m at
        the centre, a bell of width h/2 is a polynomial of degree 2m within about
        exp(-(2m)²(h/2)²/2) = exp(-π²/2). More probes reduce the standard errors, not the width. It
        is at least 1/160 of the range of the nodes, which a figure can show; where all nodes are
        equal, 1/160 of their size. Where nodes are further apart their bells are wider: see
        `hvp.linalg.smoothing.local_widths`.
        """
        return resolved_width(self.nodes, self.errors, self.weights, self.precision)

    @property
    def origin(self) -> float:
        """x₀ of the logarithmic axis t = sign(x) log₁₀(1 + |x|/x₀): the floor, 1 where that is 0.

        Eigenvalues that may be zero lie within |t| < log₁₀ 2; beyond, t counts decades.
        """
        return self.floor or 1.0

    def log_width(self, origin: float | None = None) -> float:
        """The standard width on the logarithmic axis, in decades: `width` with distances there.

        Nodes within x₀ of zero are left out, unless there are no others.
        """
        origin = self._origin(origin)
        outside = self.weights * (np.abs(self.nodes) > origin)
        weights = outside if outside.any() else self.weights
        nodes, errors, _ = self._log_nodes(origin)
        return resolved_width(nodes, errors, weights, self.precision)

    def grid(self, num_points: int = 1001, width: float | None = None) -> np.ndarray:
        """Ascending points that show all of the curve: evenly over the bulk, closer at outliers."""
        width = _positive("width", width or self.width)
        widths = local_widths(self.nodes, self.errors, width)
        return grid_points(self.nodes, widths, self.outliers, num_points, width)

    def log_grid(
        self,
        num_points: int = 1001,
        origin: float | None = None,
        width: float | None = None,
        blur: float = 0.0,
    ) -> np.ndarray:
        """The same in coordinates t of the logarithmic axis; `from_log` gives the eigenvalues."""
        origin = self._origin(origin)
        width = _positive("width", width or self.log_width(origin))
        nodes, errors, slopes = self._log_nodes(origin)
        widths = local_widths(nodes, errors, np.hypot(width, blur * slopes))
        return grid_points(nodes, widths, to_log(self.outliers, origin), num_points, width)

    def curve(self, x: np.ndarray, width: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The density (n,) of eigenvalues at x, ∫ = 1, smoothed, and its standard errors (n,).

        Args:
            x: (n,) in units of λ.
            width: standard width of the Gaussian bells; None is `width`. It is that of outliers and
                of nodes that have converged to an eigenvalue; the bells of the others reach half
                way to their neighbours, so that a curve has no ripples between nodes.

        >>> from hvp import density
        >>> d = density(np.diag(np.linspace(0.0, 1.0, 100)), num_probes=3)
        >>> x = d.grid()
        >>> values, stderrs = d.curve(x)
        >>> round(float(np.trapezoid(values, x)), 3)
        1.0
        """
        width = self.width if width is None else width
        return self._curve(x, self.nodes, self.errors, self.outliers, width)

    def curve_sampling(self, x: np.ndarray, width: float | None = None) -> np.ndarray:
        """(n,) the sampling errors of `curve`; NaN where the batches are not known."""
        width = self.width if width is None else width
        widths = local_widths(self.nodes, self.errors, _positive("width", width))
        return self._curve_sampling(x, lambda x: x, width, widths)

    def log_curve(
        self,
        t: np.ndarray,
        *,
        origin: float | None = None,
        width: float | None = None,
        blur: float = 0.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The density of eigenvalues per unit of t = sign(x) log₁₀(1 + |x|/x₀), and its errors.

        Far from zero a unit is a decade. The bells have the same width in t everywhere.

        Args:
            t: (n,) coordinates, as `log_grid` returns them, or `to_log` of eigenvalues.
            origin: x₀ in units of λ; None is `origin`.
            width: standard width in decades; None is `log_width(origin)`.
            blur: a standard width in units of λ by which nodes are smoothed besides: that of what
                is not resolved near zero, so that two operators compare there.
        """
        origin = self._origin(origin)
        width = self.log_width(origin) if width is None else width
        nodes, errors, slopes = self._log_nodes(origin)
        widths = np.hypot(_positive("width", width), blur * slopes)
        return self._curve(t, nodes, errors, to_log(self.outliers, origin), width, widths)

    def log_curve_sampling(
        self,
        t: np.ndarray,
        *,
        origin: float | None = None,
        width: float | None = None,
        blur: float = 0.0,
    ) -> np.ndarray:
        """(n,) the sampling errors of `log_curve`; NaN where the batches are not known."""
        origin = self._origin(origin)
        width = self.log_width(origin) if width is None else width
        nodes, errors, slopes = self._log_nodes(origin)
        widths = local_widths(nodes, errors, np.hypot(_positive("width", width), blur * slopes))
        return self._curve_sampling(t, lambda x: to_log(x, origin), width, widths)

    def cumulative(
        self, x: np.ndarray, floor: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The share (n,) of eigenvalues up to and including each x (n,), and standard errors."""
        x = _points(x) + self._floor(floor)
        shares = [
            np.r_[0.0, np.cumsum(weights)][np.searchsorted(nodes, x, "right")]
            for nodes, weights in zip(self.nodes, self.weights, strict=True)
        ]
        outliers = np.searchsorted(np.sort(self.outliers), x, "right") / self.size
        return self._mean(np.stack(shares), outliers)

    def mass_below(self, threshold: float = 0.0, *, floor: float | None = None) -> Estimate:
        """The share of eigenvalues below the threshold by more than the floor.

        A large `depth` says that the share is not resolved: much of the spectrum is nearer to the
        threshold than the next node, as it is around zero for networks. Then give a wider
        floor, such as `width`.
        """
        limit = _number("threshold", threshold) - self._floor(floor)
        return self._below(limit, 1.0)

    def count_below(self, threshold: float, *, floor: float | None = None) -> Estimate:
        """The number of eigenvalues below the threshold by more than the floor."""
        limit = _number("threshold", threshold) - self._floor(floor)
        return self._below(limit, self.size)

    def count_above(self, threshold: float, *, floor: float | None = None) -> Estimate:
        """The number of eigenvalues above the threshold by more than the floor."""
        limit = _number("threshold", threshold) + self._floor(floor)
        return self._estimate(
            lambda x: x > limit,
            self.size,
            misplaced_weight(self._rules, limit),
            lambda x: 1 - self._ramp(x, limit),
        )

    def bracket_below(self, threshold: float) -> CountBracket:
        """Bounds of the number of eigenvalues below a threshold."""
        return self._bracket(threshold, 1)

    def bracket_above(self, threshold: float) -> CountBracket:
        """Bounds of the number of eigenvalues above a threshold."""
        return self._bracket(threshold, -1)

    def _bracket(self, threshold: float, sign: int) -> CountBracket:
        limit = _number("threshold", threshold)
        outliers = np.sum(sign * self.outliers < sign * limit) / self.size
        values, errors = self._mean(share_bounds(self._rules, limit, sign), outliers)
        lower, upper = self.size * values
        return CountBracket(limit, float(lower), float(upper), float(self.size * np.max(errors)))

    def moment(self, k: int) -> Estimate:
        """The mean of the k-th powers of the eigenvalues, tr Aᵏ / P."""
        return self._estimate(lambda x: x**k, 1.0)

    def integral(self, f: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """tr f(A), the sum of f over all eigenvalues.

        Args:
            f: a function from an array of eigenvalues to an array of the same shape.

        Raises:
            InputError: f returns another shape, or is not finite at a node.

        >>> from hvp import density
        >>> d = density(np.diag([0.5, 0.5, 2.0]), num_probes=400)
        >>> logdet = d.integral(np.log)
        >>> bool(abs(logdet.value - np.log(0.5)) < 3 * logdet.stderr), logdet.depth
        (True, 0.0)
        """
        return self._estimate(f, self.size)

    def bracketed_integral(self, f: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """tr f(A) of a positive semidefinite A, with a bracket for its depth.

        The derivatives of f at λ ≥ 0 must alternate in sign, f' > 0 > f'', as those of log(λ + δ)
        and λ/(λ + δ) do. Then the Gauss rule is an upper bound of vᵀf(A)v and the Gauss-Radau rule
        with a node at zero, less the floor, a lower bound, with every node moved by the floor. The
        value is their midpoint and `depth` half their distance: the error of stopping early is no
        larger.

        Args:
            f: as for `integral`; it is also called slightly below the smallest node.

        Source: Golub and Meurant 2010, *Matrices, moments and quadrature with applications*,
        theorem 6.4.
        """
        lowest = min(float(self.nodes.min()), 0.0)
        nodes, weights = self._rules.padded_with_node_at(lowest - self.floor)
        lower = np.sum(weights * _applied(f, np.maximum(nodes - self.floor, lowest)), axis=1)
        plain = np.sum(self.weights * _applied(f, self.nodes), axis=1)
        upper = np.sum(self.weights * _applied(f, self.nodes + self.floor), axis=1)
        # The node at zero cannot be moved below it: the change of the others stands for its own.
        lower -= upper - plain
        return self._estimate(f, self.size, bounds=(lower, upper))

    def without_batches(self, f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """(B, S) what tr f(A) would be without each batch, by probe.

        Raises:
            InputError: the density has no `left_out`.
        """
        left_out = self.left_out
        if left_out is None:
            raise InputError("a density that was resampled", "none", "give density num_resampled")
        rows = np.sum(left_out.weights * _applied(f, left_out.nodes), axis=2)
        outliers = np.sum(_applied(f, left_out.outliers), axis=1, keepdims=True)
        return (self.size - len(self.outliers)) * rows + outliers

    @property
    def _rules(self) -> ProbeRules:
        return ProbeRules(self.nodes, self.weights, self.errors, self.steps)

    @property
    def _bulk_share(self) -> float:
        """(P - k)/P, the mass of the nodes."""
        return 1 - len(self.outliers) / self.size

    def _floor(self, floor: float | None) -> float:
        return self.floor if floor is None else _positive("floor", floor, minimum=0.0)

    def _origin(self, origin: float | None) -> float:
        return self.origin if origin is None else _positive("origin", origin)

    def _mean(self, rows: np.ndarray, outliers: Any) -> tuple[Any, Any]:
        """The mean of rows (S, …) of the bulk plus the outliers' part, and its standard error."""
        share = self._bulk_share
        return share * rows.mean(axis=0) + outliers, share * standard_error_of_mean(rows)

    def _spectral_error(self, f: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> float:
        """The standard error of the mean over the bulk from the variance of f over the spectrum.

        That of vᵀf(A)v is 2/(n + 2) times it, for n bulk eigenvalues. This does not depend on the
        spread of a few probes, which may agree by chance where a few eigenvalues are all of f.
        """
        count = len(rows)
        if count < 2:
            return np.nan
        squares = np.sum(self.weights * _applied(f, self.nodes) ** 2, axis=1)
        variance = max(float(squares.mean() - rows.mean() ** 2), 0.0)
        bulk_size = self.size - len(self.outliers)
        error = np.sqrt(2 / (bulk_size + 2) * variance / count)
        return float(self._bulk_share * student_factor(count - 1) ** SPECTRAL_POWER * error)

    def _below(self, limit: float, factor: float) -> Estimate:
        return self._estimate(
            lambda x: x < limit,
            factor,
            misplaced_weight(self._rules, limit),
            lambda x: self._ramp(x, limit),
        )

    def _ramp(self, x: np.ndarray, limit: float) -> np.ndarray:
        """From one below the limit to zero above it, half a node distance wide."""
        above = np.clip(np.sum(self.nodes < limit, axis=1), 1, max(self.nodes.shape[1] - 1, 1))
        gaps = np.diff(self.nodes, axis=1, append=self.nodes[:, -1:] + self.width)
        width = np.median(np.take_along_axis(gaps, above[:, None] - 1, axis=1)) / 2
        return ndtr((limit - x) / max(width, self.floor, TINY))

    def _estimate(
        self,
        f: Callable[[np.ndarray], np.ndarray],
        factor: float,
        min_depths: Any = 0.0,
        smooth: Callable[[np.ndarray], np.ndarray] | None = None,
        bounds: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Estimate:
        """factor times the mean of f over all eigenvalues.

        `smooth` replaces f for `sampling`; `bounds` of each probe, (S,) and (S,), replace the Gauss
        rule's values and the change from m/2 to m steps.
        """
        rows = np.sum(self.weights * _applied(f, self.nodes), axis=1)
        spectral_error = self._spectral_error(f, rows)
        if bounds is not None:
            lower, upper = bounds
            rows, depths = (lower + upper) / 2, (upper - lower) / 2
        else:
            half = np.sum(self.half_weights * _applied(f, self.half_nodes), axis=1)
            depths = np.maximum(np.abs(rows - half), min_depths)
        value, stderr = self._mean(rows, np.sum(_applied(f, self.outliers)) / self.size)
        stderr = np.maximum(stderr, spectral_error)
        depth = self._mean(depths, 0.0)[0]
        sampling = self._sampling(smooth or f)
        return Estimate(
            float(factor * value),
            float(factor * stderr),
            self.num_products,
            float(factor * depth),
            sampling=float(factor * sampling),
        )

    def _sampling(self, f: Callable[[np.ndarray], np.ndarray]) -> float:
        """The sampling error of the mean of f over all eigenvalues."""
        if self.left_out is None:
            return np.nan
        return float(jackknife(self.without_batches(f), self.left_out.examples)) / self.size

    def _log_nodes(self, origin: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(S, m) each: the nodes on the logarithmic axis, their errors there, and dt/dλ."""
        slopes = 1 / (np.log(10) * (np.abs(self.nodes) + origin))
        return to_log(self.nodes, origin), self.errors * slopes, slopes

    def _curve_sampling(
        self,
        x: np.ndarray,
        to_axis: Callable[[np.ndarray], np.ndarray],
        width: float,
        widths: np.ndarray,
    ) -> np.ndarray:
        x = _points(x)
        left_out = self.left_out
        if left_out is None:
            return np.full(len(x), np.nan)
        widths = widths[: left_out.nodes.shape[1]]
        batches = zip(
            to_axis(left_out.nodes), left_out.weights, to_axis(left_out.outliers), strict=True
        )
        curves = [
            self._bulk_share * smoothed_rows(x, moved, weights, widths)
            + smoothed(x, outliers, width) / self.size
            for moved, weights, outliers in batches
        ]
        return jackknife(np.array(curves), left_out.examples)

    def _curve(
        self,
        x: np.ndarray,
        nodes: np.ndarray,
        errors: np.ndarray,
        outliers: np.ndarray,
        width: float,
        widths: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        x, width = _points(x), _positive("width", width)
        widths = local_widths(nodes, errors, width if widths is None else widths)
        rows = smoothed_rows(x, nodes, self.weights, widths)
        return self._mean(rows, smoothed(x, outliers, width) / self.size)


def _applied(f: Callable[[np.ndarray], np.ndarray], nodes: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        values = np.asarray(f(nodes))
    if values.shape != nodes.shape or not np.isfinite(values).all():
        got = "infinity or NaN" if values.shape == nodes.shape else f"shape {values.shape}"
        raise InputError(
            f"finite values of f at all nodes, of shape {nodes.shape}", got, "shift or clip in f"
        )
    return values


def _points(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise InputError("finite points of shape (n,)", f"shape {x.shape}", "use grid()")
    return x


def _number(name: str, number: float) -> float:
    if np.isnan(number):
        raise InputError(f"a {name} that is a number", number, "give one")
    return number


def _positive(name: str, number: float, minimum: float = TINY) -> float:
    if not minimum <= number < np.inf:
        raise InputError(f"a finite positive {name}", number, "leave it out")
    return number

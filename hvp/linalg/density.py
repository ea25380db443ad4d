"""A whole spectrum as probes see it, nodes and weights, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from hvp.errors import InputError
from hvp.linalg.estimate import Estimate
from hvp.linalg.lanczos import ROUNDINGS
from hvp.sampling_error import jackknife

# A picture shows so many widths side by side, and no more.
WIDTHS = 500
# Standard widths beyond the last node at which its bell has gone.
REACH = 4.0


@dataclass(frozen=True, eq=False)
class BatchJackknife:
    """Nodes and weights of a density without each of B batches, or groups of neighbouring ones.

    Attributes:
        nodes, weights: (B, S, m) as those of a `Density`, for its first S probes, each in its own
            Krylov space.
        outliers: (B, k).
        examples: (B,) how many each batch holds.
    """

    nodes: np.ndarray
    weights: np.ndarray
    outliers: np.ndarray
    examples: np.ndarray


@dataclass(frozen=True, eq=False)
class Density:
    """The spectrum of A as S probes see it: nodes and weights, and what follows from them.

    The cumulative spectrum is a step function: of mass (P - k)/P the mean over the rows of `nodes`,
    with their weights, and 1/P at each of the k outliers. Each figure is the mean over probes; its
    `stderr` is theirs, NaN for a single probe, and `depth` the mean over probes of what half as
    many Lanczos steps would have changed. That is at least what is missing still, where the error
    falls like 1/m or faster, as it does once the nodes resolve where f is steep; it is zero where
    Krylov spaces were complete. For counts and masses it is also no less than the weight of the two
    nodes beside the threshold that may belong on its other side: for a node with error ε, the share
    of its Ritz vector in eigenvalues further than d away is at most (ε/d)², by Chebyshev.

    `sampling` is the standard error had other examples been drawn, where `density` was asked for
    it: a jackknife over the batches, whose shares of A are known on the Krylov space K of a probe
    v. A change E of A changes vᵀf(A)v by the same as f(T) is changed by that of T on K, to first
    order and for polynomials f of degree up to m (proof: for f = xⁿ it is Σ vᵀAⁱ E Aʲv over
    i + j = n - 1, and Aⁱv, Aʲv lie in K). It includes some of the noise of the few probes that tell
    it: see `hvp.sampling_error.jackknife`. A count is for this end that of a ramp as wide as the
    nodes are apart.

    Products and recurrence are right to 32 roundings of the largest eigenvalue, the `floor`: a node
    counts as equal to a threshold within the floor of it. So the null space of a G that is positive
    semidefinite has no negative eigenvalues. Give `floor` where the noise was measured.

    Attributes:
        nodes: (S, m) Ritz values of each probe, ascending; where a probe ended early the last one
            is repeated, with weight zero.
        weights: (S, m) that sum to one in each row.
        errors: (S, m) β_m times the last entry of the node's eigenvector of T: A, with the outliers
            projected out, has an eigenvalue that close, up to the floor (Parlett 1998, section
            13.2). It holds with reorthogonalisation alone.
        half_nodes, half_weights: the same after half as many steps, NaN where that is none.
        steps: (S,) Lanczos steps of each probe: fewer where its Krylov space was complete.
        outliers: (k,) eigenvalues of the pairs that were projected out, exact nodes of weight 1/P.
        size: P.
        precision: the rounding of the operator's numbers, relative.
        seed: of the probes: the same seed draws the same probes for another operator.
        notes: what was done otherwise than asked, and what to mind.
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

    @property
    def floor(self) -> float:
        """32 roundings of the largest eigenvalue in magnitude: what is smaller may be zero."""
        scale = max(np.abs(self.nodes).max(), np.abs(self.outliers).max(initial=0.0))
        return float(ROUNDINGS * self.precision * scale)

    @property
    def width(self) -> float:
        """The standard width of the bells that `curve` puts on the nodes, in units of λ.

        Half the distance between the nodes that carry the mass: the weighted median, over the nodes
        of all probes, of the distance to the neighbours on either side or the node's error bound,
        whichever is less. Bells that are h/2 wide, h apart and equal in height add up to a level
        line within 2 exp(-π²/2), 1.4 %; and m steps, exact for polynomials of degree 2m - 1, cannot
        resolve more: on [-1, 1], where h = π/m at the centre, a bell of width h/2 is a polynomial
        of degree 2m within about exp(-(2m)²(h/2)²/2) = exp(-π²/2). More probes narrow the standard
        errors and not the width. At least 1/500 of the range of the nodes, which a picture can
        show, and where all nodes are equal 1/500 of their size.
        """
        return _width(self.nodes, self.errors, self.weights, self.precision)

    @property
    def origin(self) -> float:
        """x₀ of the logarithmic axis t = sign(x) log₁₀(1 + |x|/x₀): the floor, 1 where that is 0.

        What cannot be told from zero lies within |t| < log₁₀ 2; beyond, t counts decades.
        """
        return self.floor or 1.0

    def log_width(self, origin: float | None = None) -> float:
        """The standard width on the logarithmic axis, in decades: `width` with distances there.

        What lies within x₀ of zero has no say, unless there is nothing else.
        """
        origin = self._origin(origin)
        beyond = self.weights * (np.abs(self.nodes) > origin)
        slopes = 1 / (np.log(10) * (np.abs(self.nodes) + origin))
        return _width(
            to_log(self.nodes, origin),
            self.errors * slopes,
            beyond if beyond.any() else self.weights,
            self.precision,
        )

    def grid(self, num_points: int = 1001, width: float | None = None) -> np.ndarray:
        """Ascending points that show all of the curve: evenly over the bulk, closer at outliers."""
        return self._grid(self.nodes, self.outliers, num_points, width or self.width)

    def log_grid(
        self, num_points: int = 1001, origin: float | None = None, width: float | None = None
    ) -> np.ndarray:
        """The same in coordinates t of the logarithmic axis; `from_log` gives the eigenvalues."""
        origin = self._origin(origin)
        nodes, outliers = to_log(self.nodes, origin), to_log(self.outliers, origin)
        return self._grid(nodes, outliers, num_points, width or self.log_width(origin))

    def curve(self, x: np.ndarray, width: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The density of eigenvalues at x, ∫ = 1, smoothed by bells, and its standard errors.

        Args:
            x: (n,) in units of λ.
            width: standard width of the bells; None is `width`.

        >>> from hvp import density
        >>> d = density(np.diag(np.linspace(0.0, 1.0, 100)), num_probes=3)
        >>> x = d.grid()
        >>> values, stderrs = d.curve(x)
        >>> round(float(np.trapezoid(values, x)), 3)
        1.0
        """
        return self._curve(x, self.nodes, self.outliers, self.width if width is None else width)

    def curve_sampling(self, x: np.ndarray, width: float | None = None) -> np.ndarray:
        """(n,) the standard errors of `curve`, had other examples been drawn; NaN if not told."""
        return self._curve_sampling(x, lambda x: x, self.width if width is None else width)

    def log_curve(
        self, t: np.ndarray, *, origin: float | None = None, width: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The density of eigenvalues per unit of t = sign(x) log₁₀(1 + |x|/x₀), and its errors.

        Far from zero a unit is a decade. The bells are even in t: `log_width`, in decades.

        Args:
            t: (n,) coordinates, as `log_grid` gives and `to_log` makes them of eigenvalues.
            origin: x₀ in units of λ; None is `origin`.
            width: None is `log_width(origin)`.
        """
        origin = self._origin(origin)
        nodes, outliers = to_log(self.nodes, origin), to_log(self.outliers, origin)
        return self._curve(t, nodes, outliers, self.log_width(origin) if width is None else width)

    def log_curve_sampling(
        self, t: np.ndarray, *, origin: float | None = None, width: float | None = None
    ) -> np.ndarray:
        """(n,) those of `log_curve`."""
        origin = self._origin(origin)
        width = self.log_width(origin) if width is None else width
        return self._curve_sampling(t, lambda x: to_log(x, origin), width)

    def cumulative(
        self, x: np.ndarray, floor: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The share of eigenvalues up to each x (n,), with those at x, and standard errors."""
        x = _points(x) + self._floor(floor)
        shares = [np.r_[0.0, np.cumsum(w)][np.searchsorted(n, x, "right")] for n, w in self._rows]
        above = np.searchsorted(np.sort(self.outliers), x, "right") / self.size
        return self._mean(np.stack(shares), above)

    def mass_below(self, threshold: float = 0.0, *, floor: float | None = None) -> Estimate:
        """The share of eigenvalues below the threshold by more than the floor.

        Where much of the spectrum is nearer to the threshold than the nodes are apart, as networks
        have it around zero, `depth` says that it cannot be told; a wider floor, such as `width`,
        asks what can.
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
            lambda x: x > limit, self.size, self._leaks(limit), lambda x: 1 - self._ramp(x, limit)
        )

    def moment(self, k: int) -> Estimate:
        """The mean of the k-th powers of the eigenvalues, tr Aᵏ / P."""
        return self._estimate(lambda x: x**k, 1.0)

    def integral(self, f: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """tr f(A), the sum of f over all eigenvalues.

        Args:
            f: takes an array of eigenvalues and gives an array of the same shape.

        Raises:
            InputError: f gives another shape, or is not finite at a node.

        >>> from hvp import density
        >>> d = density(np.diag([0.5, 0.5, 2.0]), num_probes=400)
        >>> logdet = d.integral(np.log)
        >>> bool(abs(logdet.value - np.log(0.5)) < 3 * logdet.stderr), logdet.depth
        (True, 0.0)
        """
        return self._estimate(f, self.size)

    def without_batches(self, f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """(B, S) what tr f(A) would be without each batch, by resampled probe."""
        left = self.left_out
        if left is None:
            raise InputError("a density that was resampled", "none", "give density num_resampled")
        rows = np.sum(left.weights * _applied(f, left.nodes), axis=2)
        outliers = np.sum(_applied(f, left.outliers), axis=1, keepdims=True)
        return (self.size - len(self.outliers)) * rows + outliers

    @property
    def _rows(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return list(zip(self.nodes, self.weights, strict=True))

    def _floor(self, floor: float | None) -> float:
        return self.floor if floor is None else _positive("floor", floor, least=0.0)

    def _origin(self, origin: float | None) -> float:
        return self.origin if origin is None else _positive("origin", origin)

    def _mean(self, rows: np.ndarray, outliers: Any) -> tuple[Any, Any]:
        """The mean over probes of rows of the bulk, and its standard error, outliers added."""
        share = 1 - len(self.outliers) / self.size
        return share * rows.mean(axis=0) + outliers, share * _stderr(rows)

    def _leaks(self, limit: float) -> np.ndarray:
        """(S,) weight of the two nodes beside the limit that may lie on its other side."""
        beside = np.sum(self.nodes < limit, axis=1)[:, None] - [1, 0]
        real = (beside >= 0) & (beside < self.nodes.shape[1])
        beside = np.clip(beside, 0, self.nodes.shape[1] - 1)
        node, weight, error = (
            np.take_along_axis(array, beside, axis=1)
            for array in (self.nodes, self.weights, self.errors)
        )
        reach = error / np.maximum(np.abs(node - limit), np.finfo(np.float64).tiny)
        return np.sum(real * weight * np.minimum(reach, 1.0) ** 2, axis=1)

    def _below(self, limit: float, factor: float) -> Estimate:
        return self._estimate(
            lambda x: x < limit, factor, self._leaks(limit), lambda x: self._ramp(x, limit)
        )

    def _ramp(self, x: np.ndarray, limit: float) -> np.ndarray:
        """From one below the limit to zero above it, half as wide as the nodes are apart there."""
        above = np.clip(np.sum(self.nodes < limit, axis=1), 1, max(self.nodes.shape[1] - 1, 1))
        gaps = np.diff(self.nodes, axis=1, append=self.nodes[:, -1:] + self.width)
        width = np.median(np.take_along_axis(gaps, above[:, None] - 1, axis=1)) / 2
        return ndtr((limit - x) / max(width, self.floor, np.finfo(np.float64).tiny))

    def _estimate(
        self,
        f: Callable[[np.ndarray], np.ndarray],
        factor: float,
        leaks: Any = 0.0,
        smooth: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Estimate:
        """factor times the mean of f over all eigenvalues; `smooth` tells its sampling error."""
        rows = np.sum(self.weights * _applied(f, self.nodes), axis=1)
        half = np.sum(self.half_weights * _applied(f, self.half_nodes), axis=1)
        value, stderr = self._mean(rows, np.sum(_applied(f, self.outliers)) / self.size)
        depth = self._mean(np.maximum(np.abs(rows - half), leaks), 0.0)[0]
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
        left = self.left_out
        if left is None:
            return np.nan
        return float(jackknife(self.without_batches(f), left.examples)) / self.size

    def _curve_sampling(
        self, x: np.ndarray, place: Callable[[np.ndarray], np.ndarray], width: float
    ) -> np.ndarray:
        x, width = _points(x), _positive("width", width)
        left = self.left_out
        if left is None:
            return np.full(len(x), np.nan)
        share = 1 - len(self.outliers) / self.size
        curves = [
            [
                share * (_bells(x, row, width) @ weights)
                + _bells(x, outliers, width).sum(axis=1) / self.size
                for row, weights in zip(place(nodes), masses, strict=True)
            ]
            for nodes, masses, outliers in zip(
                left.nodes, left.weights, place(left.outliers), strict=True
            )
        ]
        return jackknife(np.array(curves), left.examples)

    def _curve(
        self, x: np.ndarray, nodes: np.ndarray, outliers: np.ndarray, width: float
    ) -> tuple[np.ndarray, np.ndarray]:
        x, width = _points(x), _positive("width", width)
        rows = [
            _bells(x, row, width) @ weights
            for row, weights in zip(nodes, self.weights, strict=True)
        ]
        return self._mean(np.stack(rows), _bells(x, outliers, width).sum(axis=1) / self.size)

    def _grid(
        self, nodes: np.ndarray, outliers: np.ndarray, num_points: int, width: float
    ) -> np.ndarray:
        if num_points < 2:
            raise InputError("num_points of at least 2", num_points, "leave it out")
        reach = REACH * _positive("width", width)
        bulk = np.linspace(nodes.min() - reach, nodes.max() + reach, num_points)
        bells = np.linspace(outliers - reach, outliers + reach, 33).ravel()
        return np.unique(np.concatenate([bulk, bells]))


def distance(first: Density, second: Density) -> Estimate:
    """The area between two cumulative spectra, ∫ |F(x) - G(x)| dx, in units of λ.

    It is the Wasserstein distance: the mean distance over which eigenvalues must be moved to make
    one spectrum the other. Its standard error is a jackknife over the probes, which both have in
    common: the noise of a probe is in both spectra, and cancels where they are alike (Efron and
    Stein 1981); its `sampling` is one over the batches, where both were resampled. Noise that does
    not cancel makes the area larger, never smaller.

    Raises:
        InputError: densities of other sizes, seeds, precisions or numbers of probes.

    >>> from hvp import density
    >>> A = np.diag(np.linspace(0.0, 1.0, 50))
    >>> apart = distance(density(A), density(A + 0.25 * np.eye(50)))
    >>> round(apart.value, 6), apart.stderr < 1e-6
    (0.25, True)
    """
    drawn = [(d.size, d.seed, len(d.nodes), d.precision) for d in (first, second)]
    if drawn[0] != drawn[1]:
        raise InputError(
            "two densities with common probes",
            f"size, seed, probes and precision {drawn[0]} and {drawn[1]}",
            "give density the same",
        )
    full = [(d.nodes, d.weights, d.outliers) for d in (first, second)]
    half = [(d.half_nodes, d.half_weights, d.outliers) for d in (first, second)]
    count, size = len(first.nodes), first.size
    value = _area(full, size)
    left_out = np.array(
        [
            _area([(np.delete(n, s, 0), np.delete(w, s, 0), o) for n, w, o in full], size)
            for s in range(count)
        ]
    )
    variance = (count - 1) * np.var(left_out) if count > 1 else np.nan
    return Estimate(
        value,
        float(np.sqrt(variance)),
        first.num_products + second.num_products,
        abs(value - _area(half, size)),
        sampling=_area_sampling(first.left_out, second.left_out, size),
    )


def to_log(x: np.ndarray, origin: float) -> np.ndarray:
    """t = sign(x) log₁₀(1 + |x|/x₀).

    >>> to_log(np.array([-99.0, 0.0, 9.0]), 1.0).round(9).tolist()
    [-2.0, 0.0, 1.0]
    """
    return np.sign(x) * np.log1p(np.abs(x) / origin) / np.log(10)


def from_log(t: np.ndarray, origin: float) -> np.ndarray:
    """x = sign(t) x₀ (10^|t| - 1).

    >>> from_log(np.array([-2.0, 0.0, 1.0]), 1.0).round(9).tolist()
    [-99.0, 0.0, 9.0]
    """
    return np.sign(t) * origin * np.expm1(np.abs(t) * np.log(10))


def _width(nodes: np.ndarray, errors: np.ndarray, weights: np.ndarray, precision: float) -> float:
    apart = np.gradient(nodes, axis=1) if nodes.shape[1] > 1 else errors
    middle = _weighted_median(np.minimum(apart, errors), weights)
    size = np.abs(nodes).max() or 1.0
    extent = np.ptp(nodes) if np.ptp(nodes) > ROUNDINGS * precision * size else size
    return float(max(middle / 2, extent / WIDTHS))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values, axis=None)
    mass = np.cumsum(weights.ravel()[order])
    return float(values.ravel()[order][np.searchsorted(mass, mass[-1] / 2)])


def _bells(x: np.ndarray, nodes: np.ndarray, width: float) -> np.ndarray:
    """(n, m) Gaussians of area one around the nodes."""
    z = (x[:, None] - nodes) / width
    return np.exp(-(z**2) / 2) / (width * np.sqrt(2 * np.pi))


def _area(spectra: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], size: int) -> float:
    """∫ |F - G| of two spectra: nodes and weights by probe, and outliers."""
    places, masses = [], []
    for sign, (nodes, weights, outliers) in zip((1.0, -1.0), spectra, strict=True):
        k = len(outliers)
        share = (1 - k / size) / max(len(nodes), 1)
        places += [nodes.ravel(), outliers]
        masses += [sign * share * weights.ravel(), np.full(k, sign / size)]
    place, mass = np.concatenate(places), np.concatenate(masses)
    order = np.argsort(place)
    return float(np.sum(np.abs(np.cumsum(mass[order]))[:-1] * np.diff(place[order])))


def _area_sampling(first: BatchJackknife | None, second: BatchJackknife | None, size: int) -> float:
    """The jackknife over the batches of two spectra of the same data."""
    if first is None or second is None or not np.array_equal(first.examples, second.examples):
        return np.nan
    both = [
        list(zip(left.nodes, left.weights, left.outliers, strict=True)) for left in (first, second)
    ]
    areas = np.array([_area(pair, size) for pair in zip(*both, strict=True)])
    return float(jackknife(areas[:, None], first.examples))


def _stderr(rows: np.ndarray) -> np.ndarray:
    count = len(rows)
    return np.std(rows, axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.nan * rows[0]


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


def _positive(name: str, number: float, least: float = np.finfo(np.float64).tiny) -> float:
    if not least <= number < np.inf:
        raise InputError(f"a finite positive {name}", number, "leave it out")
    return number

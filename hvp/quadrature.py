"""Whole spectra by stochastic Lanczos quadrature: as many products for a million eigenvalues.

For v uniform on the unit sphere E vᵀf(A)v = tr f(A)/P, and vᵀf(A)v = Σ (q_iᵀv)² f(λ_i) is an
integral over the spectrum as v sees it. Its Gauss rule is at hand: m Lanczos steps from v give T
(m, m) whose eigenvalues θ are the nodes, with the squares of the first entries of its eigenvectors
for weights, exact for polynomials of degree up to 2m - 1 (Golub and Welsch 1969; for spectra of
large matrices Lin, Saad and Yang 2016, Ubaru, Chen and Saad 2017, of networks Ghorbani, Krishnan
and Xiao 2019).

Probes are Gaussian vectors of length one rather than signs. Their law is the same in every basis:
the variance of vᵀf(A)v is 2/(P + 2) that of f over the spectrum, whatever the eigenvectors, and
nothing where f is constant. No eigenvector is missed, where signs may be orthogonal to one; and
they stay uniform where eigenvectors are projected out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hvp.counting import Counted
from hvp.eigenpairs import Eigenpairs
from hvp.errors import InputError
from hvp.estimate import Estimate
from hvp.lanczos import ROUNDINGS, Tridiagonal, lanczos

# A picture shows so many widths side by side, and no more.
WIDTHS = 500
# Standard widths beyond the last node at which its bell has gone.
REACH = 4.0


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

        >>> d = density(np.diag(np.linspace(0.0, 1.0, 100)), num_probes=3)
        >>> x = d.grid()
        >>> values, stderrs = d.curve(x)
        >>> round(float(np.trapezoid(values, x)), 3)
        1.0
        """
        return self._curve(x, self.nodes, self.outliers, self.width if width is None else width)

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
        return self._estimate(lambda x: x < limit, 1.0, self._leaks(limit))

    def count_below(self, threshold: float, *, floor: float | None = None) -> Estimate:
        """The number of eigenvalues below the threshold by more than the floor."""
        limit = _number("threshold", threshold) - self._floor(floor)
        return self._estimate(lambda x: x < limit, self.size, self._leaks(limit))

    def count_above(self, threshold: float, *, floor: float | None = None) -> Estimate:
        """The number of eigenvalues above the threshold by more than the floor."""
        limit = _number("threshold", threshold) + self._floor(floor)
        return self._estimate(lambda x: x > limit, self.size, self._leaks(limit))

    def moment(self, k: int) -> Estimate:
        """The mean of the k-th powers of the eigenvalues, tr Aᵏ / P."""
        return self._estimate(lambda x: x**k, 1.0)

    def integral(self, f: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """tr f(A), the sum of f over all eigenvalues.

        Args:
            f: takes an array of eigenvalues and gives an array of the same shape.

        Raises:
            InputError: f gives another shape, or is not finite at a node.

        >>> d = density(np.diag([0.5, 0.5, 2.0]), num_probes=400)
        >>> logdet = d.integral(np.log)
        >>> bool(abs(logdet.value - np.log(0.5)) < 3 * logdet.stderr), logdet.depth
        (True, 0.0)
        """
        return self._estimate(f, self.size)

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

    def _estimate(
        self, f: Callable[[np.ndarray], np.ndarray], factor: float, leaks: Any = 0.0
    ) -> Estimate:
        """factor times the mean of f over all eigenvalues."""
        rows = np.sum(self.weights * _applied(f, self.nodes), axis=1)
        half = np.sum(self.half_weights * _applied(f, self.half_nodes), axis=1)
        value, stderr = self._mean(rows, np.sum(_applied(f, self.outliers)) / self.size)
        depth = self._mean(np.maximum(np.abs(rows - half), leaks), 0.0)[0]
        return Estimate(
            float(factor * value), float(factor * stderr), self.num_products, float(factor * depth)
        )

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


def density(
    A: Any,
    *,
    num_probes: int = 10,
    num_steps: int = 80,
    seed: int = 0,
    pairs: Eigenpairs | None = None,
    scale: float | None = None,
    reorthogonalise: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Density:
    """The spectrum of a symmetric operator by stochastic Lanczos quadrature.

    num_probes × num_steps products, in blocks of all probes, and one more where there is a single
    probe, whose symmetry another vector must test.

    Args:
        A: a SciPy LinearOperator, sparse or dense matrix of shape (P, P), real and symmetric.
        num_probes: S; standard errors fall like 1/√S.
        num_steps: m; resolution grows like m. Cut to P - k, with a note.
        seed: of the probes. The same seed, size and precision draw the same probes, so that the
            difference of two densities has little noise.
        pairs: k eigenpairs to project out, such as the largest by `hvp.eigsh`: they come back as
            exact `outliers`, and all Lanczos steps are for the bulk. Where a pair has an error the
            spectrum found is that of a matrix within that distance of A.
        scale: size of the numbers that matter, None for the pairs' largest. Give ‖H‖ for R = H - G,
            whose products may be rounding of H's, which is not symmetric.
        reorthogonalise: keeps num_steps + 1 vectors a probe. False keeps two, for P beyond memory:
            eigenvalues that converge then come up as several nodes that share one's weight, which
            integrals do not mind and a note says.
        progress: called with the number of products so far.

    Raises:
        InputError: no symmetric operator, no probes or steps, pairs of another size or not
            orthonormal, a product that is not finite.

    >>> d = density(np.diag(np.r_[np.zeros(90), np.linspace(1.0, 2.0, 10)]), num_probes=20)
    >>> rank = d.count_above(0.5)
    >>> abs(rank.value - 10) < 3 * rank.stderr
    True
    """
    if scale is None and pairs is not None:
        scale = float(np.abs(pairs.values).max(initial=0.0))
    counted = Counted(A, progress, scale)
    size = counted.shape[0]
    for name, number, least in (
        ("num_probes", num_probes, 1),
        ("num_steps", num_steps, 1),
        ("seed", seed, 0),
    ):
        if not isinstance(number, int | np.integer) or number < least:
            raise InputError(f"a whole {name} of at least {least}", number, "leave it out")
    out = _outliers(pairs, size, counted.dtype)
    bulk = size - out.shape[1]
    steps = min(num_steps, bulk)
    rng = np.random.default_rng(seed)
    tridiagonal = lanczos(
        _Symmetric(counted, rng),
        _probes(rng, num_probes, out),
        steps,
        outside=out,
        reorthogonalise=reorthogonalise,
    )
    full = tridiagonal.complete | (reorthogonalise and steps == bulk)
    lengths = tridiagonal.steps
    nodes, weights, errors = _gauss(tridiagonal, lengths)
    half_nodes, half_weights, _ = _gauss(tridiagonal, np.where(full, lengths, lengths // 2))
    return Density(
        nodes,
        weights,
        errors,
        half_nodes,
        half_weights,
        lengths,
        np.zeros(0) if pairs is None else np.sort(pairs.values.astype(np.float64)),
        size,
        float(np.finfo(counted.dtype).eps),
        seed,
        _notes(num_steps, steps, reorthogonalise),
        counted.count,
    )


def distance(first: Density, second: Density) -> Estimate:
    """The area between two cumulative spectra, ∫ |F(x) - G(x)| dx, in units of λ.

    It is the Wasserstein distance: the mean distance over which eigenvalues must be moved to make
    one spectrum the other. Its standard error is a jackknife over the probes, which both have in
    common: the noise of a probe is in both spectra, and cancels where they are alike (Efron and
    Stein 1981). Noise that does not cancel makes the area larger, never smaller.

    Raises:
        InputError: densities of other sizes, seeds, precisions or numbers of probes.

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
    full = [(d.nodes, d.weights, d) for d in (first, second)]
    half = [(d.half_nodes, d.half_weights, d) for d in (first, second)]
    count = len(first.nodes)
    value = _area(full, np.arange(count))
    left_out = np.array([_area(full, np.delete(np.arange(count), s)) for s in range(count)])
    variance = (count - 1) * np.var(left_out) if count > 1 else np.nan
    return Estimate(
        value,
        float(np.sqrt(variance)),
        first.num_products + second.num_products,
        abs(value - _area(half, np.arange(count))),
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


class _Symmetric(LinearOperator):
    """A as it is, whose first product is held to symmetry."""

    def __init__(self, A: Counted, rng: np.random.Generator):
        super().__init__(A.dtype, A.shape)
        self._A, self._rng = A, rng
        self._is_seen = False

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self._A.matmat(V) if self._is_seen else self._first(V)

    def _first(self, V: np.ndarray) -> np.ndarray:
        count = V.shape[1]
        if count == 1 < len(V):
            other = self._rng.standard_normal((1, len(V)), dtype=V.dtype)
            V = np.concatenate([V.T, other]).T
        product = self._A.matmat(V)
        self._A.check_symmetry(V, product)
        self._is_seen = True
        return product[:, :count]


def _probes(rng: np.random.Generator, count: int, U: np.ndarray) -> np.ndarray:
    """(P, S) Gaussian columns in the precision of U (P, k) and orthogonal to it."""
    rows = rng.standard_normal((count, len(U)), dtype=U.dtype)
    for row in rows if U.shape[1] else ():
        row -= U @ (U.T @ row)
    return rows.T


def _outliers(pairs: Eigenpairs | None, size: int, dtype: np.dtype) -> np.ndarray:
    """(P, k) vectors to project out."""
    if pairs is None:
        return np.zeros((size, 0), dtype)
    U = np.asarray(pairs.vectors, dtype)
    if len(U) != size or U.shape[1] >= size:
        raise InputError(
            f"fewer than {size} pairs of {size} entries", f"vectors of shape {U.shape}", "drop some"
        )
    gap = np.abs(U.T @ U - np.eye(U.shape[1])).max(initial=0.0)
    if not gap <= np.sqrt(np.finfo(dtype).eps):
        raise InputError("orthonormal vectors of pairs", f"UᵀU - I of {gap:.1e}", "use hvp.eigsh")
    return U


def _notes(asked: int, taken: int, reorthogonalise: bool) -> tuple[str, ...]:
    notes = []
    if taken < asked:
        notes.append(f"num_steps cut from {asked} to {taken}, the dimension of the space")
    if not reorthogonalise:
        notes.append("no reorthogonalisation: eigenvalues that converged come up as several nodes")
    return tuple(notes)


def _gauss(T: Tridiagonal, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(S, m) nodes, weights and error bounds of the leading blocks of T of these lengths."""
    nodes, weights, errors = np.zeros((3, len(lengths), T.steps.max()))
    for s, n in enumerate(lengths):
        if n == 0:
            nodes[s], weights[s], errors[s] = T.alphas[s, 0], np.nan, np.nan
            continue
        values, shares, bounds = T.ritz(s, n)
        nodes[s], errors[s] = values[-1], bounds[-1]
        nodes[s, :n], weights[s, :n], errors[s, :n] = values, shares, bounds
    return nodes, weights, errors


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


def _area(spectra: list[tuple[np.ndarray, np.ndarray, Density]], chosen: np.ndarray) -> float:
    """∫ |F - G| of two spectra, each of the chosen probes."""
    places, masses = [], []
    for sign, (nodes, weights, d) in zip((1.0, -1.0), spectra, strict=True):
        k = len(d.outliers)
        share = (1 - k / d.size) / max(len(chosen), 1)
        places += [nodes[chosen].ravel(), d.outliers]
        masses += [sign * share * weights[chosen].ravel(), np.full(k, sign / d.size)]
    place, mass = np.concatenate(places), np.concatenate(masses)
    order = np.argsort(place)
    return float(np.sum(np.abs(np.cumsum(mass[order]))[:-1] * np.diff(place[order])))


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

"""A whole spectrum as nodes and weights by random probes, and figures that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hvp.errors import InputError, report_packages
from hvp.linalg import curves, integrals
from hvp.linalg.brackets import CountBracket, count_bracket
from hvp.linalg.curves import LINEAR, Axis, Curve, positive
from hvp.linalg.estimate import Estimate
from hvp.linalg.integrals import Function
from hvp.linalg.measure import SpectralMeasure, bulk_share
from hvp.tables import ShownAsTable, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Density(SpectralMeasure, ShownAsTable):
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
            ("mass of the nodes", f"{bulk_share(self):.6g}"),
            ("outliers", outliers),
            ("floor", f"{self.floor:.2g}"),
            ("products", f"{self.num_products:,}"),
            ("seed", str(self.seed)),
        ]
        return Table(f"Density of {self.size:,} eigenvalues", (), rows, self.notes)

    def rows(self) -> list[dict[str, float]]:
        """A dict for each node and each outlier, as `pandas.DataFrame` takes them.

        `mass` is the share of all eigenvalues that it stands for; the masses add up to one. The
        `probe` of an outlier is -1.

        >>> from hvp import density, eigsh
        >>> A = np.diag([1.0, 1.0, 1.0, 3.0])
        >>> rows = density(A, num_probes=1, pairs=eigsh(A, 1)).rows()
        >>> [(row["probe"], round(row["value"], 9), row["mass"]) for row in rows]
        [(0, 1.0, 0.75), (-1, 3.0, 0.25)]
        """
        share = bulk_share(self) / len(self.nodes)
        columns = (self.nodes, self.errors, share * self.weights)
        nodes = [
            {"probe": probe, "value": float(value), "error": float(error), "mass": float(mass)}
            for probe, row in enumerate(zip(*columns, strict=True))
            for value, error, mass in zip(*row, strict=True)
            if mass > 0
        ]
        return nodes + [
            {"probe": -1, "value": float(value), "error": 0.0, "mass": 1 / self.size}
            for value in self.outliers
        ]

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the density over λ with its standard errors, and a tick for each outlier.

        Heights are numbers of eigenvalues per width of the kernel, on a logarithmic axis: the bell
        of a single eigenvalue has height 1.

        Args:
            axes: of matplotlib, to draw in; None for those of a new figure of pyplot.

        Returns:
            The axes.

        Raises:
            InputError: the packages of the extra "report" are not installed.
        """
        with report_packages():
            from hvp.report.plots import plot_density
        return plot_density(self, axes)

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
        return curves.standard_width(self, LINEAR)

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
        return curves.standard_width(self, self._log_axis(origin))

    def grid(self, num_points: int = 1001, width: float | None = None) -> np.ndarray:
        """Ascending points that show all of the curve: evenly over the bulk, closer at outliers."""
        return Curve(self, LINEAR, width or None).grid(num_points)

    def log_grid(
        self,
        num_points: int = 1001,
        origin: float | None = None,
        width: float | None = None,
        blur: float = 0.0,
    ) -> np.ndarray:
        """The same in coordinates t of the logarithmic axis; `from_log` gives the eigenvalues."""
        return Curve(self, self._log_axis(origin), width or None, blur).grid(num_points)

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
        return Curve(self, LINEAR, width).values(x)

    def curve_sampling(self, x: np.ndarray, width: float | None = None) -> np.ndarray:
        """(n,) the sampling errors of `curve`; NaN where the batches are not known."""
        return Curve(self, LINEAR, width).sampling(x)

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
        return Curve(self, self._log_axis(origin), width, blur).values(t)

    def log_curve_sampling(
        self,
        t: np.ndarray,
        *,
        origin: float | None = None,
        width: float | None = None,
        blur: float = 0.0,
    ) -> np.ndarray:
        """(n,) the sampling errors of `log_curve`; NaN where the batches are not known."""
        return Curve(self, self._log_axis(origin), width, blur).sampling(t)

    def cumulative(
        self, x: np.ndarray, floor: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The share (n,) of eigenvalues up to and including each x (n,), and standard errors."""
        return integrals.cumulative(self, curves.points(x) + self._floor(floor))

    def mass_below(self, threshold: float = 0.0, *, floor: float | None = None) -> Estimate:
        """The share of eigenvalues below the threshold by more than the floor.

        A large `depth` says that the share is not resolved: much of the spectrum is nearer to the
        threshold than the next node, as it is around zero for networks. Then give a wider
        floor, such as `width`.
        """
        limit = _number("threshold", threshold) - self._floor(floor)
        return integrals.share_below(self, limit, 1.0)

    def count_below(self, threshold: float, *, floor: float | None = None) -> Estimate:
        """The number of eigenvalues below the threshold by more than the floor."""
        limit = _number("threshold", threshold) - self._floor(floor)
        return integrals.share_below(self, limit, self.size)

    def count_above(self, threshold: float, *, floor: float | None = None) -> Estimate:
        """The number of eigenvalues above the threshold by more than the floor."""
        limit = _number("threshold", threshold) + self._floor(floor)
        return integrals.share_above(self, limit, self.size)

    def bracket_below(self, threshold: float) -> CountBracket:
        """Bounds of the number of eigenvalues below a threshold."""
        return count_bracket(self, _number("threshold", threshold), 1)

    def bracket_above(self, threshold: float) -> CountBracket:
        """Bounds of the number of eigenvalues above a threshold."""
        return count_bracket(self, _number("threshold", threshold), -1)

    def moment(self, k: int) -> Estimate:
        """The mean of the k-th powers of the eigenvalues, tr Aᵏ / P."""
        return integrals.integral(self, lambda x: x**k, 1.0)

    def integral(self, f: Function) -> Estimate:
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
        return integrals.integral(self, f, self.size)

    def bracketed_integral(self, f: Function) -> Estimate:
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
        return integrals.bracketed_integral(self, f)

    def without_batches(self, f: Function) -> np.ndarray:
        """(B, S) what tr f(A) would be without each batch, by probe.

        Raises:
            InputError: the density has no `left_out`.
        """
        return integrals.without_batches(self, f)

    def _floor(self, floor: float | None) -> float:
        return self.floor if floor is None else positive("floor", floor, minimum=0.0)

    def _log_axis(self, origin: float | None) -> Axis:
        return Axis(self.origin if origin is None else positive("origin", origin))


def _number(name: str, number: float) -> float:
    if np.isnan(number):
        raise InputError(f"a {name} that is a number", number, "give one")
    return number

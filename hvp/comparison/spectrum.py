"""The spectrum of one operator in a comparison: both ends, and the density between them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hvp.errors import InputError
from hvp.linalg.density import Density
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.eigsh import eigsh
from hvp.linalg.estimate import Estimate
from hvp.linalg.lanczos_quadrature import density
from hvp.progress import ProgressHook
from hvp.tables import ShownAsTable, Table


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(ShownAsTable):
    """The k largest and the k smallest eigenpairs of one operator, and its density.

    Attributes:
        largest, smallest: each in ascending order.
        pairs: those of both ends together where they do not overlap, else the largest.
        density: its `outliers` are the separate eigenvalues of both ends; None if left out.
        num_products: the number of products with the operator.
        seconds: the time it took.
    """

    largest: Eigenpairs
    smallest: Eigenpairs
    pairs: Eigenpairs
    density: Density | None
    num_products: int
    seconds: float

    def _table(self) -> Table:
        rows = [
            (f"{name} of {len(pairs.values):,}", f"{value:.7g}", f"± {error:.1e}")
            for name, pairs, value, error in (
                ("largest", self.largest, self.largest.values[-1], self.largest.errors[-1]),
                ("smallest", self.smallest, self.smallest.values[0], self.smallest.errors[0]),
            )
        ]
        notes = []
        if self.density is not None:
            probes, steps = self.density.nodes.shape
            notes.append(f"density: {probes:,} probes, {steps:,} steps")
        if self.unseen:
            notes.append(f"an eigenvalue was missed beyond the {' and the '.join(self.unseen)}")
        cost = f"{self.num_products:,} products, {self.seconds:.1f} s"
        return Table(f"Spectrum of {self.size:,} eigenvalues, {cost}", (), rows, notes)

    @property
    def size(self) -> int:
        """P, the number of eigenvalues."""
        return len(self.largest.vectors)

    @property
    def norm(self) -> float:
        """‖A‖, the largest eigenvalue in magnitude."""
        return float(np.abs([self.largest.values[-1], self.smallest.values[0]]).max())

    @property
    def unseen(self) -> tuple[str, ...]:
        """The ends ("largest", "smallest") beyond which an eigenvalue was missed.

        Lanczos from a single vector finds one copy of a multiple eigenvalue. The probes of the
        density are further starting vectors, each orthogonal to the eigenvectors found. If one of
        their nodes lies beyond the k-th value by more than its error, it is another eigenvalue. An
        end whose values are not separate gives bounds only, and is not checked; nothing is without
        a density.
        """
        d = self.density
        if d is None:
            return ()
        ends = {"largest": (self.largest, 1.0), "smallest": (self.smallest, -1.0)}
        return tuple(name for name, (pairs, sign) in ends.items() if _is_beyond(d, pairs, sign))

    def _density(self) -> Density:
        if self.density is None:
            raise InputError("a spectrum with its density", "its ends alone", "compute densities")
        return self.density

    def negative(self, floor: float) -> Estimate:
        """The number of eigenvalues below minus the larger of `floor` and `density.floor`."""
        d = self._density()
        return d.count_below(0.0, floor=max(floor, d.floor))

    def rank(self, floor: float) -> Estimate:
        """The number of eigenvalues beyond the larger of `floor` and `density.floor`."""
        d = self._density()
        above = d.count_above(0.0, floor=max(floor, d.floor))
        below = self.negative(floor)
        return Estimate(
            above.value + below.value,
            float(np.hypot(above.stderr, below.stderr)),
            above.num_products,
            above.depth + below.depth,
            sampling=above.sampling + below.sampling,
        )


def _is_beyond(d: Density, pairs: Eigenpairs, sign: float) -> bool:
    """Whether a node of the density lies beyond the innermost of an end's values."""
    if not pairs.separate.all():
        return False
    inner = int(np.argmin(sign * pairs.values))
    edge = sign * pairs.values[inner] + pairs.errors[inner]
    certain = sign * d.nodes - d.errors - d.floor
    return bool((certain > edge)[d.weights > 0].any())


def ends(
    A: LinearOperator,
    k: int,
    *,
    tol: float,
    scale: float | None,
    seed: int,
    progress: ProgressHook,
    v0: np.ndarray | None = None,
    ncv: int | None = None,
) -> Spectrum:
    """The k largest and the k smallest eigenpairs, in one run if 2k < P, without a density.

    `tol`, `scale`, `v0` and `ncv` are those of `hvp.eigsh`.
    """
    begun = time.perf_counter()

    def run(count: int, which: str) -> Eigenpairs:
        return eigsh(
            A,
            count,
            which=which,
            tol=tol,
            scale=scale,
            v0=v0,
            ncv=ncv,
            seed=seed,
            progress=progress,
        )

    smallest = None
    if 2 * k < A.shape[0]:
        pairs = run(2 * k, "BE")
        cost = pairs.num_products
    else:
        pairs, smallest = run(k, "LA"), run(k, "SA")
        cost = pairs.num_products + smallest.num_products
    return of_ends(pairs, smallest, cost, time.perf_counter() - begun)


def of_ends(
    pairs: Eigenpairs, smallest: Eigenpairs | None, num_products: int, seconds: float
) -> Spectrum:
    """The spectrum without a density: pairs of both ends, or of the largest and the smallest."""
    if smallest is not None:
        return Spectrum(pairs, smallest, pairs, None, num_products, seconds)
    k = len(pairs.values) // 2
    return Spectrum(pairs[k:], pairs[:k], pairs, None, num_products, seconds)


def with_density(
    found: Spectrum,
    A: LinearOperator,
    *,
    scale: float | None,
    num_probes: int,
    num_steps: int,
    num_resampled: int,
    seed: int,
    progress: ProgressHook,
) -> Spectrum:
    """The spectrum with the density between its ends.

    `scale`, `num_probes`, `num_steps` and `num_resampled` are those of `hvp.density`.
    """
    begun = time.perf_counter()
    pairs = found.pairs[found.pairs.separate]
    bulk = density(
        A,
        num_probes=num_probes,
        num_steps=num_steps,
        num_resampled=num_resampled,
        seed=seed,
        scale=max(scale or 0.0, found.norm),
        pairs=pairs if 0 < len(pairs.values) < found.size else None,
        progress=progress,
    )
    return replace(
        found,
        density=bulk,
        num_products=found.num_products + bulk.num_products,
        seconds=found.seconds + time.perf_counter() - begun,
    )

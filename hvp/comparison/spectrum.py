"""One operator's spectrum as far as a comparison tells it: both ends, and the density between."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvp.linalg.density import Density
from hvp.linalg.eigsh import Eigenpairs, eigsh
from hvp.linalg.estimate import Estimate
from hvp.linalg.lanczos_quadrature import density


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The k largest and the k smallest eigenpairs of one operator, and its density.

    Attributes:
        largest, smallest: each in ascending order.
        density: with the ends' pairs that stand apart for `outliers`, projected out of the bulk.
        num_products: with the operator.
        seconds: that it took.
    """

    largest: Eigenpairs
    smallest: Eigenpairs
    density: Density
    num_products: int
    seconds: float

    @property
    def norm(self) -> float:
        """‖A‖, the largest eigenvalue in magnitude."""
        return float(np.abs([self.largest.values[-1], self.smallest.values[0]]).max())

    @property
    def unseen(self) -> tuple[str, ...]:
        """The ends ("largest", "smallest") beyond which an eigenvalue was missed.

        Lanczos from a single vector sees one copy of a multiple eigenvalue. The probes of the
        density are further starts, each orthogonal to the pairs found: a node of theirs beyond the
        k-th value, by more than its error, is another eigenvalue. An end whose values do not stand
        apart is known by bounds alone, and has no such alarm.
        """
        ends = {"largest": (self.largest, 1.0), "smallest": (self.smallest, -1.0)}
        return tuple(name for name, (pairs, sign) in ends.items() if self._is_beyond(pairs, sign))

    def _is_beyond(self, pairs: Eigenpairs, sign: float) -> bool:
        if not pairs.separate.all():
            return False
        inner = int(np.argmin(sign * pairs.values))
        edge = sign * pairs.values[inner] + pairs.errors[inner]
        d = self.density
        sure = sign * d.nodes - d.errors - d.floor
        return bool((sure > edge)[d.weights > 0].any())

    def negative(self, floor: float) -> Estimate:
        """The number of eigenvalues below zero by more than the floor, or the density's."""
        return self.density.count_below(0.0, floor=max(floor, self.density.floor))

    def rank(self, floor: float) -> Estimate:
        """The number of eigenvalues that are not zero but for the floor, or the density's."""
        above = self.density.count_above(0.0, floor=max(floor, self.density.floor))
        below = self.negative(floor)
        return Estimate(
            above.value + below.value,
            float(np.hypot(above.stderr, below.stderr)),
            above.num_products,
            above.depth + below.depth,
            sampling=above.sampling + below.sampling,
        )


def spectrum(
    A: Any,
    k: int,
    *,
    tol: float,
    scale: float | None,
    num_probes: int,
    num_steps: int,
    seed: int,
    report: Callable[[int], None],
    num_resampled: int = 0,
) -> Spectrum:
    """Both ends, from one run where they do not meet, and the density without them.

    `tol`, `scale` as for `hvp.eigsh`; `num_probes`, `num_steps`, `num_resampled` as for
    `hvp.density`.
    """
    begun = time.perf_counter()

    def run(count: int, which: str) -> Eigenpairs:
        return eigsh(A, count, which=which, tol=tol, scale=scale, seed=seed, progress=report)

    if 2 * k < A.shape[0]:
        both = run(2 * k, "BE")
        largest, smallest, cost = both[k : 2 * k], both[:k], both.num_products
        apart = both[both.separate]
    else:
        largest, smallest = run(k, "LA"), run(k, "SA")
        cost = largest.num_products + smallest.num_products
        apart = largest[largest.separate]
    bulk = density(
        A,
        num_probes=num_probes,
        num_steps=num_steps,
        num_resampled=num_resampled,
        seed=seed,
        scale=max(scale or 0.0, np.abs([*largest.values, *smallest.values]).max()),
        pairs=apart if 0 < len(apart.values) < A.shape[0] else None,
        progress=lambda count: report(cost + count),
    )
    cost += bulk.num_products
    return Spectrum(largest, smallest, bulk, cost, time.perf_counter() - begun)

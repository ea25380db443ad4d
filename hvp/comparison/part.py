"""The spectra of H, G and R of one part of a network: the whole, or a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hvp.comparison.sampling_errors import SamplingErrors
from hvp.comparison.spectrum import Spectrum
from hvp.errors import InputError
from hvp.linalg.estimate import Estimate
from hvp.tables import ShownAsTable, Table


@dataclass(frozen=True, eq=False, repr=False)
class Part(ShownAsTable):
    """The spectra of H, G and R of the network or of one layer, and how far H and G differ.

    Attributes:
        name, size: of the part; P.
        spectra: "H", "G", "R" -> their spectra, of those that were computed.
        sampling: "H", "G", "R" -> the sampling errors; NaN where there is a single batch.
        angles_by_count: the principal angles in radians, ascending, between the spaces of H's and
            of G's i largest eigenvalues, for i from 1 to k (Björck and Golub 1973); empty without
            both.
        distance: between the cumulative spectra of H and of G, see `hvp.linalg.wasserstein`; None
            without both densities.
        eps: the rounding of the products.
    """

    name: str
    size: int
    spectra: Mapping[str, Spectrum]
    sampling: Mapping[str, SamplingErrors]
    angles_by_count: tuple[np.ndarray, ...]
    distance: Estimate | None
    eps: float

    def _table(self) -> Table:
        rows = [
            (letter, f"{s.largest.values[-1]:.7g}", f"{s.smallest.values[0]:.7g}")
            for letter, s in self.spectra.items()
        ]
        notes = []
        if self.distance is not None:
            notes.append(f"distance of H and G: {self.distance}")
        if self.angles_by_count:
            notes.append(f"overlap: {self.overlap:.1%}")
        title = f"Part {self.name}, P = {self.size:,}"
        return Table(title, ("", "largest", "smallest"), rows, notes)

    @property
    def H(self) -> Spectrum:
        """The spectrum of the Hessian. Raises InputError where it was not computed."""
        return self._spectrum("H")

    @property
    def G(self) -> Spectrum:
        """The spectrum of the Gauss-Newton matrix. Raises InputError without it."""
        return self._spectrum("G")

    @property
    def R(self) -> Spectrum:
        """The spectrum of the residual H - G. Raises InputError where it was not computed."""
        return self._spectrum("R")

    def _spectrum(self, letter: str) -> Spectrum:
        if letter not in self.spectra:
            got = ", ".join(self.spectra)
            raise InputError(f"{letter} of {self.name}", got, f"compare it with {letter}")
        return self.spectra[letter]

    @property
    def first(self) -> Spectrum:
        """The spectrum of H, or of G where H was left out."""
        return next(iter(self.spectra.values()))

    @property
    def norm(self) -> float:
        """‖H‖, or ‖G‖ where H was left out: the scale of errors."""
        return self.first.norm

    @property
    def angles(self) -> np.ndarray:
        """(k,) principal angles in radians between the spaces of all k eigenvalues."""
        return self.angles_by_count[-1] if self.angles_by_count else np.zeros(0)

    @property
    def overlap(self) -> float:
        """Mean squared cosine of the angles: the share of H's top space that lies in G's.

        NaN where H or G was not computed.
        """
        return float(np.mean(np.cos(self.angles) ** 2)) if self.angles_by_count else math.nan

    @property
    def agrees(self) -> bool:
        """Whether R was found zero up to rounding: at most a thousand roundings of ‖H‖."""
        return "R" in self.spectra and bool(1000 * self.eps * self.norm >= self.R.norm)

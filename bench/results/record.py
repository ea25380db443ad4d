"""The results of a run with peers: those of `hvp.benchmark`, spectra, densities and targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hvp.benchmark import records
from hvp.benchmark.records import CaseRecord, Measurement, Result, machine

SCHEMA = records.SCHEMA
__all__ = [
    "PARTS", "SCHEMA", "CaseRecord", "DensityRecord", "Measurement", "Result", "Run",
    "SpectraRecord", "Spectrum", "machine",
]  # fmt: skip


@dataclass
class Spectrum(Result):
    """The ten largest eigenvalues; `error` is the largest ‖Av - λv‖ / ‖A‖."""

    values: list[float] = field(default_factory=list)


@dataclass
class SpectraRecord:
    """The ten largest eigenvalues, end to end, of H ("hvp") and of G ("gnvp")."""

    title: str
    norms: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Measurement] = field(default_factory=dict)


@dataclass
class DensityRecord:
    """Spectral densities of H. A result is "ok" if its moments are those of its probes.

    Attributes:
        title: the title of the problem.
        probes: the number of probes of each density.
        steps: the number of Lanczos steps of each probe.
        figure: seconds per density, and relative errors of the moments; the unit "products" is
            the time of the products alone.
        first: implementation -> seconds from the start of building to the first density.
    """

    title: str
    probes: int
    steps: int
    figure: Measurement = field(default_factory=Measurement)
    first: dict[str, float] = field(default_factory=dict)


# What the parts of a run consist of.
PARTS = (CaseRecord, Measurement, Result, Spectrum, SpectraRecord, DensityRecord)


@dataclass
class Run(records.Run):
    """A whole run."""

    spectra: SpectraRecord | None = None
    density: DensityRecord | None = None
    verdicts: list[dict[str, Any]] = field(default_factory=list)

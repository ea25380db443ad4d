"""What `compare` returns: the spectra of the parts, and what is known of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hvp.certificate import Certificate
from hvp.comparison.chain_rule import QuadraticForms
from hvp.comparison.counts import Counts, counts
from hvp.comparison.dimensions import (
    Condition,
    EffectiveDimension,
    condition,
    effective_dimensions,
    squared_norm,
    stable_rank,
)
from hvp.comparison.loss_slice import LossSlice
from hvp.comparison.sampling_errors import SamplingErrors
from hvp.comparison.spectrum import Spectrum
from hvp.errors import InputError, report_packages
from hvp.linalg.brackets import CountBracket
from hvp.linalg.density import Density
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.estimate import Estimate
from hvp.linalg.layer_shares import LayerShares
from hvp.linalg.layer_traces import LayerTraces
from hvp.linalg.noise_floor import Noise
from hvp.tables import ShownAsTable, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Thresholds of counts, in noise floors, tried in order until the count is known.
MULTIPLES_OF_FLOOR = tuple(factor * 10**power for power in range(8) for factor in (3, 10))


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


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(ShownAsTable):
    """What `compare` found; `save` writes it.

    The first of `parts` is "whole network" ("selected layers" where only some layers were chosen);
    one entry for each layer follows. `chain_rule` has one row for each layer and a last row for all
    layers together. `traces` holds the traces and squared Frobenius norms of H, G and R, `shares`
    those of R divided by those of H, layer by layer. `noise` is the noise of the products with H
    and G, in units of λ. `certificate` says whether Hv, the gradient and vᵀGv agree with
    differences: where it has not passed, do not trust the numbers. `slices` is the loss along the
    eigenvectors of the largest and of the smallest eigenvalue of H.
    `shapes` are those of the parameters of each layer.
    `command` repeats the comparison, given the same weights and data.

    What was not computed is not there: `parts`, `chain_rule`, `traces` and `noise` lack it, and a
    density, `shares`, `certificate` and `slices` are None. `unfinished` names the stages that an
    interruption left out.

    >>> from hvp import compare, linearize_function
    >>> lin = linearize_function(
    ...     lambda z: z**2, [np.array(1.0), np.array(2.0)], outputs=lambda w: w[0] * w[1])
    >>> comparison = compare(lin, k=1)
    >>> list(comparison.parts), comparison.parts["param0"].agrees
    (['whole network', 'param0', 'param1'], True)
    """

    title: str
    loss_name: str
    layers: tuple[str, ...]
    parts: Mapping[str, Part]
    chain_rule: tuple[QuadraticForms, ...]
    traces: Mapping[str, LayerTraces]
    shares: LayerShares | None
    noise: Mapping[str, Noise]
    certificate: Certificate | None
    rank_bound: int
    loss: float
    gradient_norm: float
    accuracy: float | None
    num_examples: int
    num_batches: int
    size: int
    dtype: str
    k: int
    tol: float
    seed: int
    findings: tuple[str, ...]
    data_sha256: str
    weights_sha256: str
    versions: Mapping[str, str]
    num_products: int
    seconds: float
    command: str = ""
    matrices: tuple[str, ...] = ("H", "G", "R")
    unfinished: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    slices: LossSlice | None = None

    @property
    def whole(self) -> Part:
        """The part that holds all parameters. Raises InputError where no spectrum was computed."""
        if not self.parts:
            raise InputError("a comparison of spectra", "none", 'compare with results="ends"')
        return next(iter(self.parts.values()))

    @property
    def floor(self) -> float:
        """The noise floor of the products: smaller eigenvalues may be zero."""
        return max((noise.floor for noise in self.noise.values()), default=0.0)

    @property
    def stable_learning_rate(self) -> float | None:
        """2/λ_max of H, above which gradient descent is unstable.

        None where no eigenvalue is certainly positive, or H was left out.
        """
        found = self.whole.spectra.get("H") if self.parts else None
        if found is None or found.largest.values[-1] <= max(found.largest.errors[-1], self.floor):
            return None
        return float(2 / found.largest.values[-1])

    @property
    def passed(self) -> bool:
        """Whether no check of the certificate failed."""
        return self.certificate is None or self.certificate.passed

    @property
    def negative(self) -> Estimate | None:
        """The number of negative eigenvalues of H; None without its density."""
        found = self._with_density("H")
        return None if found is None else found.negative(self.floor)

    @property
    def rank(self) -> Estimate | None:
        """The rank of G, at most `rank_bound`, the number of outputs or of parameters.

        None without its density.
        """
        found = self._with_density("G")
        return None if found is None else found.rank(self.floor)

    def _with_density(self, letter: str) -> Spectrum | None:
        """The spectrum of a matrix of the whole, if its density was computed."""
        found = self.whole.spectra.get(letter) if self.parts else None
        return None if found is None or found.density is None else found

    @cached_property
    def counts(self) -> Mapping[str, Counts]:
        """By "H" and "G", how many eigenvalues are above ε, below -ε, and null to it, as bounds.

        Those of the matrices whose density was computed; ε is a multiple of the noise floor.
        """
        bounds = {"H": self.size, "G": max(self.rank_bound, self.k)}
        found = {
            letter: counts(spectrum, self.floor, most=most, semidefinite=letter == "G")
            for letter, most in bounds.items()
            if (spectrum := self._with_density(letter)) is not None
        }
        return {letter: each for letter, each in found.items() if each is not None}

    @cached_property
    def stable_ranks(self) -> Mapping[str, Estimate]:
        """By "H", "G" and "R", ‖A‖_F²/‖A‖², by the traces or else the density."""
        found = {}
        for letter, spectrum in self.whole.spectra.items() if self.parts else ():
            traces = self.traces.get(letter)
            norm = squared_norm(spectrum) if traces is None else traces.whole.squared_norm
            rank = None if norm is None else stable_rank(spectrum, norm)
            if rank is not None:
                found[letter] = rank
        return found

    @cached_property
    def effective_dimensions(self) -> tuple[EffectiveDimension, ...]:
        """Those of G for a damping of a tenth of λ_max and less; empty without its density."""
        found = self._with_density("G")
        return () if found is None else effective_dimensions(found)

    @cached_property
    def conditions(self) -> Mapping[str, Condition]:
        """By "H" and "G", bounds of λ_max over the smallest eigenvalue above the noise floor."""
        spectra = {letter: self._with_density(letter) for letter in "HG"}
        found = {
            letter: condition(spectrum, self.floor)
            for letter, spectrum in spectra.items()
            if spectrum is not None
        }
        return {letter: each for letter, each in found.items() if each is not None}

    @cached_property
    def negative_brackets(self) -> tuple[CountBracket, ...]:
        """Bounds of the number of eigenvalues of H below -ε: the noise floor, and another ε.

        The other is the smallest of 3, 10, 30, … times the floor whose bounds are within a factor
        of two; the largest tried where there is none. Empty without the density of H.
        """
        return self._brackets("H", lambda d, size: d.bracket_below(-size))

    @cached_property
    def rank_brackets(self) -> tuple[CountBracket, ...]:
        """Bounds of the number of eigenvalues of G above ε, for the same kinds of ε."""
        return self._brackets("G", lambda d, size: d.bracket_above(size))

    def _brackets(
        self, letter: str, bracket: Callable[[Density, float], CountBracket]
    ) -> tuple[CountBracket, ...]:
        densities = {
            each: found.density
            for each in "HG"
            if (found := self._with_density(each)) is not None and found.density is not None
        }
        if letter not in densities:
            return ()
        d = densities[letter]
        floor = max(self.floor, *(each.floor for each in densities.values()))
        brackets = [bracket(d, floor)]
        for multiple in MULTIPLES_OF_FLOOR:
            brackets.append(bracket(d, multiple * floor))
            if brackets[-1].upper <= 2 * brackets[-1].lower:
                break
        return brackets[0], brackets[-1]

    def rows(self) -> list[dict[str, float | str]]:
        """A dict for each part and each of H, G and R, as `pandas.DataFrame` takes them.

        `largest` and `smallest` come with their errors ‖Av - λv‖ and their kind: "separate", or
        "bound" where a cluster is not resolved. Traces and squared Frobenius norms, if computed,
        come with their standard errors. The rows of `chain_rule` are dataclasses, which pandas
        takes as they are.
        """
        return [
            {
                "part": part.name,
                "matrix": letter,
                "size": int(part.size),
                **_row_of_end("largest", found.largest, -1),
                **_row_of_end("smallest", found.smallest, 0),
                **self._row_of_traces(part, letter),
            }
            for part in self.parts.values()
            for letter, found in part.spectra.items()
        ]

    def _row_of_traces(self, part: Part, letter: str) -> dict[str, float]:
        if letter not in self.traces:
            return {}
        traces = self.traces[letter]
        block = traces.whole if part is self.whole else traces.layers[part.name]
        return {
            "trace": float(block.trace.value),
            "trace_stderr": float(block.trace.stderr),
            "squared_norm": float(block.squared_norm.value),
            "squared_norm_stderr": float(block.squared_norm.stderr),
        }

    def _table(self) -> Table:
        from hvp.report import summary

        accuracy = "" if self.accuracy is None else f", accuracy {self.accuracy:.2%}"
        title = (
            f"{self.title or 'Comparison'}: {self.size:,} parameters, {self.num_examples:,} "
            f"examples, {self.loss_name} {self.loss:.6g}{accuracy}, {self.dtype}"
        )
        notes = [" ".join(sentences) for sentences in summary.paragraphs(self)]
        if not self.passed:
            notes.insert(0, summary.certificate(self))
        if self.unfinished:
            notes.append(summary.unfinished(self))
        notes.append(f"{self.num_products:,} products, {self.seconds:.1f} s")
        headings, rows = self._rows_of_parts() if self.parts else self._rows_of_chain_rule()
        return Table(title, headings, rows, notes)

    def _rows_of_parts(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        from hvp.report import entries

        ends: tuple[tuple[str, Literal["largest", "smallest"]], ...] = (
            ("H", "largest"), ("G", "largest"), ("R", "largest"), ("H", "smallest"),
        )  # fmt: skip
        columns = [(letter, end) for letter, end in ends if letter in self.matrices]
        names = {"largest": "λ_max", "smallest": "λ_min"}
        headings = ("part", "P", *(f"{names[end]} of {letter}" for letter, end in columns))
        rows = [
            (
                part.name,
                f"{part.size:,}",
                *(
                    entries.eigenvalue(self, part, letter, end).text(with_error=False)
                    if letter in part.spectra
                    else ""
                    for letter, end in columns
                ),
            )
            for part in self.parts.values()
        ]
        return headings, rows

    def _rows_of_chain_rule(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        from hvp.report import entries

        headings = ("v", "vᵀHv", "vᵀGv", "vᵀRv", "relative difference", "")
        return headings, list(entries.chain_rule(self))

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain dictionaries and lists, `schema` first; vectors are left out."""
        from hvp.report.json_document import comparison_as_dict

        return comparison_as_dict(self)

    def plot(self) -> Figure:
        """The figure of ``compare.png`` as one of pyplot: densities and extreme eigenvalues.

        Raises:
            InputError: the packages of the extra "report" are not installed.
        """
        with report_packages():
            from hvp.report.plots import plot_comparison
        return plot_comparison(self)

    def save(self, directory: str | Path) -> tuple[Path, ...]:
        """Write ``compare.json``, ``.html``, ``.png``, ``.svg`` and ``.npz`` there.

        They hold the numbers, a page for the browser, figures for papers, and vectors that a later
        comparison starts from. Each file appears complete or not at all, and none before all are
        made.

        Raises:
            InputError: the packages of the extra "report" are not installed.
        """
        with report_packages():
            from hvp.report.save import save
        return save(self, Path(directory))


def _row_of_end(name: str, pairs: Eigenpairs, i: int) -> dict[str, float | str]:
    return {
        name: float(pairs.values[i]),
        f"{name}_error": float(pairs.errors[i]),
        f"{name}_kind": "separate" if pairs.separate[i] else "bound",
    }

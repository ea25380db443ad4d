"""What `compare` returns: the spectra of the parts, and what is known of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvp.certificate import Certificate
from hvp.comparison.chain_rule import QuadraticForms
from hvp.comparison.counts import Bracketing, Counts, brackets, counts
from hvp.comparison.dimensions import (
    Condition,
    EffectiveDimension,
    condition,
    effective_dimensions,
    squared_norm,
    stable_rank,
)
from hvp.comparison.loss_slice import LossSlice
from hvp.comparison.part import Part
from hvp.comparison.rows import rows
from hvp.comparison.spectrum import Spectrum
from hvp.errors import InputError, report_packages
from hvp.linalg.brackets import CountBracket
from hvp.linalg.estimate import Estimate
from hvp.linalg.layer_shares import LayerShares
from hvp.linalg.layer_traces import LayerTraces
from hvp.linalg.noise_floor import Noise
from hvp.tables import ShownAsTable, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

    >>> import numpy as np
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

    def _brackets(self, letter: str, bracket: Bracketing) -> tuple[CountBracket, ...]:
        spectra = {each: self._with_density(each) for each in "HG"}
        densities = {
            each: spectrum.density
            for each, spectrum in spectra.items()
            if spectrum is not None and spectrum.density is not None
        }
        if letter not in densities:
            return ()
        floor = max(self.floor, *(density.floor for density in densities.values()))
        return brackets(densities[letter], bracket, floor)

    def rows(self) -> list[dict[str, float | str]]:
        """A dict for each part and each of H, G and R, as `pandas.DataFrame` takes them.

        `largest` and `smallest` come with their errors ‖Av - λv‖ and their kind: "separate", or
        "bound" where a cluster is not resolved. Traces and squared Frobenius norms, if computed,
        come with their standard errors. The rows of `chain_rule` are dataclasses, which pandas
        takes as they are.
        """
        return rows(self.parts, self.traces)

    def _table(self) -> Table:
        from hvp.report.notebook_table import table

        return table(self)

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

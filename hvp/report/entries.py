"""Single results of a comparison as text, and the rows of tables that they fill."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hvp.comparison.loss_slice import LossSlice
from hvp.comparison.part import Part
from hvp.comparison.results import Comparison
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.estimate import Estimate
from hvp.linalg.layer_traces import BlockTraces
from hvp.report import counts_and_dimensions
from hvp.report.number_format import (
    NONE,
    SINGLE,
    Eigenvalue,
    End,
    between,
    bound,
    counted,
    eigenvalues,
    estimated,
    is_unknown,
    known,
    margin,
)
from hvp.report.number_format import measured as measured_text

LARGEST: End = "largest"
SMALLEST: End = "smallest"
# Counts with a larger depth, relative to their value, are given by bounds.
MAX_RELATIVE_DEPTH = 0.25
# Digits of curvatures along a line.
SLICE_DIGITS = 5


def eigenvalue(
    comparison: Comparison, part: Part, letter: str, end: End, rank: int = 1
) -> Eigenvalue:
    """The eigenvalue of this rank (1 is the outermost) of "H", "G" or "R"; 0 where R vanishes."""
    if letter == "R" and part.agrees:
        return Eigenvalue(0.0, 0.0)
    pairs: Eigenpairs = getattr(part.spectra[letter], end)
    return eigenvalues(pairs, end, comparison.floor)[rank - 1]


def outer_and_inner(comparison: Comparison, part: Part, letter: str) -> list[Eigenvalue]:
    """The outermost and the innermost eigenvalue of both ends, from the largest down."""
    k = len(part.spectra[letter].largest.values)
    ranks: tuple[tuple[End, int], ...] = (
        (LARGEST, 1), (LARGEST, k), (SMALLEST, k), (SMALLEST, 1),
    )  # fmt: skip
    return [eigenvalue(comparison, part, letter, *rank) for rank in ranks]


def trace(
    comparison: Comparison, part: Part | None, letter: str, found: BlockTraces
) -> Estimate[float]:
    """The trace of a block, 0 where R vanishes."""
    if letter == "R" and part is not None and part.agrees:
        return Estimate(0.0, 0.0)
    return found.trace


def stable_rate(comparison: Comparison) -> str:
    """2/λ_max of H, "" where no eigenvalue is certainly positive, or none is known."""
    if "H" not in comparison.whole.spectra:
        return ""
    found = eigenvalue(comparison, comparison.whole, "H", "largest")
    if found.value - found.error <= 0:
        return ""
    if found.bound:
        return bound(2 / found.value, 0.0, "≤")
    return known(2 / found.value, 2 * found.error / found.value**2, 3)


def certainly_negative(comparison: Comparison) -> int:
    """How many eigenvalues of H are certainly negative, errors included."""
    pairs = comparison.whole.H.smallest
    found = int(np.sum((pairs.values + pairs.errors < -comparison.floor) & pairs.separate))
    return max(found, *(bracket.at_least for bracket in comparison.negative_brackets[:1]), 0)


def overlap(part: Part) -> str:
    """The share of H's top space that lies in G's, in per cent."""
    return f"{known(100 * part.overlap, 0.5, 3)} %"


def distance(comparison: Comparison, part: Part) -> tuple[str, str]:
    """The distance of H and G, absolute and in per cent of ‖H‖; a bound below the noise floor."""
    found = part.distance
    if found is None:
        return NONE, NONE
    if 0 < found.value < comparison.floor:
        return f"≤ {margin(comparison.floor)}", NONE
    if is_unknown(found):
        return estimated(found), NONE
    return estimated(found), f"{known(100 * found.value / (part.norm or 1.0), 0.0, 2)} %"


def sampling_error(error: float) -> str:
    """A sampling error as text; it is not known from a single batch."""
    return SINGLE if math.isnan(error) else margin(error)


def chain_rule(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    """Rows of the chain rule: layer, the three forms, their difference and the verdict."""
    for row in comparison.chain_rule:
        forms = (known(form, row.rounding) for form in (row.vHv, row.vGv, row.vRv))
        is_rounding = row.equal and row.difference > 0
        difference = "rounding" if is_rounding else f"{known(100 * row.difference, 0.0, 2)} %"
        yield row.layer, *forms, difference, "equal" if row.equal else "differ"


def errors(comparison: Comparison) -> tuple[tuple[str, ...], ...]:
    """Results for all parameters: name, value, and its errors of probes, depth and sampling."""
    if not comparison.parts:
        return ()
    return (
        *_extremes(comparison),
        *_traces(comparison),
        *_counts(comparison),
        *counts_and_dimensions.rows(comparison),
    )


def _extremes(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    whole = comparison.whole
    ends: tuple[tuple[str, End], ...] = (
        ("H", LARGEST), ("H", SMALLEST), ("G", LARGEST), ("R", LARGEST),
    )  # fmt: skip
    for letter, end in ends:
        if letter not in whole.spectra:
            continue
        i, name = (-1, "λ_max") if end == LARGEST else (0, "λ_min")
        value = eigenvalue(comparison, whole, letter, end).text(with_error=False)
        pair_error = getattr(whole.spectra[letter], end).errors[i]
        error = margin(pair_error) if pair_error and value != "0" else NONE
        sampling = sampling_error(getattr(whole.sampling[letter], end)[i])
        yield f"{name} of {letter}", value, NONE, error, sampling


def _traces(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    whole = comparison.whole
    for letter, found in comparison.traces.items():
        block = trace(comparison, whole, letter, found.whole)
        yield _row(f"trace of {letter}", block, whole.sampling[letter].trace)
    for letter, found in comparison.traces.items():
        error = whole.sampling[letter].squared_norm
        yield _row(f"‖{letter}‖² (Frobenius)", found.whole.squared_norm, error)


def _counts(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    """The distance of H and G, and the counts of eigenvalues."""
    distance = comparison.whole.distance
    if distance is not None:
        yield _row("distance of H and G", distance, distance.sampling)
    size, rank_bound = comparison.size, comparison.rank_bound
    rank = f"rank of G, at most {rank_bound:,}"
    for name, most, count, brackets in (
        ("negative eigenvalues of H", size, comparison.negative, comparison.negative_brackets),
        (rank, rank_bound, comparison.rank, comparison.rank_brackets),
    ):
        if count is None:
            continue
        if count.depth > MAX_RELATIVE_DEPTH * abs(count.value):
            yield name, between(brackets[0].bounds(0, most), most), NONE, NONE, NONE
        else:
            yield _row(name, count, count.sampling, is_count=True)


def _row(
    name: str, estimate: Estimate[float], error: float, *, is_count: bool = False
) -> tuple[str, ...]:
    value = (counted if is_count else estimated)(estimate).partition(" ± ")[0]
    probes, depth = (margin(e) if e else NONE for e in (estimate.stderr, estimate.depth))
    return name, value, probes, depth, sampling_error(error)


def slice_numbers(found: LossSlice, i: int) -> tuple[str, str, str, str]:
    """vᵀHv of a direction, the same by the loss with its error, their difference, and the order."""
    measured, error = float(found.measured[i]), float(found.measured_errors[i])
    difference, order = float(found.differences[i]), float(found.orders[i])
    return (
        known(float(found.curvatures[i]), 0.0, SLICE_DIGITS),
        "not known" if math.isnan(measured) else measured_text(measured, error, SLICE_DIGITS),
        NONE if math.isnan(difference) else f"{known(100 * difference, 0.0, 2)} %",
        NONE if math.isnan(order) else f"{order:.1f}",
    )

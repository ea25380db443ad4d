"""What a comparison says, in sentences: each holds only what its numbers bear out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hvp.linalg.estimate import Estimate
from hvp.report.number_format import (
    SINGLE,
    UNTOLD,
    bounded,
    estimated,
    is_untold,
    known,
    margin,
    measured,
    shared,
)

WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# A share of the trace is one where both have a trace of the same sign and its error is small.
SURE = 0.1
# In a sentence; tables have more.
DIGITS = 4
# Stands where there is no such error.
NONE = "–"


def headline(comparison: Any) -> tuple[str, ...]:
    """What a reader should take home."""
    return tuple(
        sentence
        for sentence in (
            extremes(comparison),
            negatives(comparison),
            parting(comparison),
            spaces(comparison),
            residual(comparison),
        )
        if sentence
    )


def extremes(comparison: Any) -> str:
    """The two ends of H."""
    H = comparison.whole.H
    top, bottom = (
        known(pairs.values[i], max(pairs.errors[i], comparison.floor), DIGITS)
        for pairs, i in ((H.largest, -1), (H.smallest, 0))
    )
    return f"The eigenvalues of H reach from {bottom} to {top}."


def negatives(comparison: Any) -> str:
    """How many eigenvalues of H are negative, as far as that is known."""
    count = comparison.negative
    if not is_untold(count) and count.value > 0:
        many = measured(count.value, max(count.stderr, count.depth), 4)
        return f"{many} of the {comparison.size:,} are negative."
    sure = certainly_negative(comparison)
    if sure:
        least = WORDS[sure] if sure < len(WORDS) else str(sure)
        return f"At least {least} are negative; how many in all {UNTOLD}."
    H = comparison.whole.H
    if H.smallest.values[0] + H.smallest.errors[0] >= -comparison.floor:
        return "None is negative beyond the noise of the products."
    return f"How many are negative {UNTOLD}."


def certainly_negative(comparison: Any) -> int:
    """How many of the smallest eigenvalues of H lie below zero with their errors and the noise."""
    pairs = comparison.whole.H.smallest
    return int(np.sum((pairs.values + pairs.errors < -comparison.floor) & pairs.separate))


def parting(comparison: Any) -> str:
    """What of H is G's and what is R's."""
    share = comparison.shares.whole
    trace, norm = share.trace, share.squared_norm
    if not (math.isfinite(trace.value) and math.isfinite(norm.value)):
        return ""
    of_norm = f"R {shared(norm)} of its squared Frobenius norm"
    if 0 <= trace.value <= 1 and trace.stderr < SURE:
        rest = Estimate(1 - trace.value, trace.stderr, depth=trace.depth)
        return f"G carries {shared(rest)} of the trace of H, and {of_norm}."
    traces = comparison.traces["R"].whole.trace, comparison.traces["H"].whole.trace
    mine, all_ = (measured(t.value, t.stderr) for t in traces)
    return f"The trace of R is {mine}, that of H {all_}; of H {of_norm}."


def spaces(comparison: Any) -> str:
    """How much of the top space of H lies in that of G."""
    whole = comparison.whole
    count = len(whole.H.largest.values)
    share = known(100 * whole.overlap, 0.5, 3)
    if count == 1:
        return f"The top eigenvector of H shares {share} % of its squared length with that of G."
    return f"The space of H's top {count} eigenvectors lies to {share} % in that of G's."


def residual(comparison: Any) -> str:
    """Where R vanishes."""
    whole, *layers = comparison.parts.values()
    if whole.agrees:
        return f"R vanishes over the {whole.name}: H and G are the same."
    agreeing = [part.name for part in layers if part.agrees]
    if not agreeing:
        return "R vanishes on no layer."
    if len(agreeing) == len(layers):
        return "R vanishes on every layer's own block, and not across layers."
    if len(agreeing) == 1:
        return f"R vanishes on the block of {agreeing[0]} only."
    return f"R vanishes on the blocks of {len(agreeing)} of {len(layers)} layers."


def sampling(comparison: Any) -> str:
    """What other examples would have changed."""
    moved = comparison.whole.sampling["H"].largest[-1]
    if math.isnan(moved):
        return "The data came as a single batch: how much other examples would change is not known."
    share = moved / (abs(comparison.whole.H.largest.values[-1]) or 1.0)
    return (
        f"Other {comparison.num_examples:,} examples would move the largest eigenvalue by about "
        f"{margin(moved)}, {known(100 * share, 10 * share, 2)} %."
    )


def eigenvalue(comparison: Any, pairs: Any, i: int, sign: str, all_separate: bool = False) -> str:
    """An eigenvalue as far as its error and the noise leave it, or the bound that it is."""
    separate = pairs.separate.all() if all_separate else pairs.separate[i]
    value, error = pairs.values[i], pairs.errors[i]
    if error == 0 == value:
        return "0"
    return bounded(value, max(error, comparison.floor), bool(separate), sign)


def distance(comparison: Any, part: Any) -> tuple[str, str]:
    """How far H and G are apart, and in per cent of ‖H‖, or the noise that it lies below."""
    apart = part.distance
    if 0 < apart.value < comparison.floor:
        return f"≤ {margin(comparison.floor)}", NONE
    return estimated(apart), f"{known(100 * apart.value / (part.H.norm or 1.0), 0.0, 2)} %"


def errors(comparison: Any) -> tuple[tuple[str, ...], ...]:
    """Of the whole: what, its value, and what probes, Krylov depth and other data make of it."""
    whole = comparison.whole
    rows: list[tuple[str, ...]] = []
    for letter, end, i in (
        ("H", "largest", -1),
        ("H", "smallest", 0),
        ("G", "largest", -1),
        ("R", "largest", -1),
    ):
        pairs = getattr(getattr(whole, letter), end)
        moved = getattr(whole.sampling[letter], end)[i]
        name, sign = ("λ_max", "≥") if end == "largest" else ("λ_min", "≤")
        value = eigenvalue(comparison, pairs, i, sign).partition(" ± ")[0]
        error = margin(pairs.errors[i]) if pairs.errors[i] else NONE
        rows.append((f"{name} of {letter}", value, NONE, error, other_data(moved)))
    for letter, found in comparison.traces.items():
        moved = whole.sampling[letter].trace
        rows.append(_row(f"trace of {letter}", found.whole.trace, moved))
    for letter, found in comparison.traces.items():
        moved = whole.sampling[letter].squared_norm
        rows.append(_row(f"‖{letter}‖² (Frobenius)", found.whole.squared_norm, moved))
    for name, estimate in (
        ("distance of H and G", whole.distance),
        ("negative eigenvalues of H", comparison.negative),
        (f"rank of G, at most {comparison.rank_bound:,}", comparison.rank),
    ):
        rows.append(_row(name, estimate, estimate.sampling))
    return tuple(rows)


def _row(name: str, estimate: Estimate[float], moved: float) -> tuple[str, ...]:
    value = estimated(estimate).partition(" ± ")[0]
    probes, depth = (margin(e) if e else NONE for e in (estimate.stderr, estimate.depth))
    return name, value, probes, depth, other_data(moved)


def other_data(error: float) -> str:
    """What other examples would have changed, where there are batches to tell."""
    return SINGLE if math.isnan(error) else margin(error)

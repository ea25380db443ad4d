"""The results of a comparison in sentences and rows of text."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hvp.certificate import Certificate
from hvp.comparison.results import Comparison, Part
from hvp.comparison.run import Run, Stage
from hvp.linalg.brackets import CountBracket
from hvp.linalg.eigsh import Eigenpairs
from hvp.linalg.estimate import Estimate
from hvp.report.number_format import (
    SINGLE,
    UNKNOWN,
    Eigenvalue,
    End,
    eigenvalues,
    estimated,
    is_unknown,
    known,
    margin,
    measured,
    shared,
)

WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# Largest standard error of a share of the trace that a sentence gives.
MAX_SHARE_STDERR = 0.1
# Significant digits in a sentence; tables have more.
DIGITS = 4
LARGEST: End = "largest"
SMALLEST: End = "smallest"
# Unfinished stages that a sentence names.
MAX_STAGES = 3
# The cell of an error that does not apply.
NONE = "–"


def headline(comparison: Comparison) -> tuple[str, ...]:
    """The main results, a sentence each; empty where no spectrum was computed."""
    if not comparison.parts:
        return ()
    return tuple(
        sentence
        for sentence in (
            extremes(comparison),
            negatives(comparison),
            share_of_residual(comparison),
            spaces(comparison),
            residual(comparison),
        )
        if sentence
    )


def certificate(comparison: Comparison) -> str:
    """Whether differences confirm the products and the gradient, with the errors."""
    return _certificate(comparison.certificate)


def _certificate(found: Certificate | None) -> str:
    if found is None:
        return "The derivatives were not tested, as the comparison was interrupted before."
    failed = [check for check in found.checks if not check.passed]
    if failed:
        wrong = " and ".join(
            f"{check.name} is {margin(check.error or 0.0)} off" for check in failed
        )
        reasons = [f" ({check.note})" for check in failed[:1] if check.note]
        return f"The certificate failed: {wrong}{''.join(reasons)}. Do not trust these numbers."
    parts = [
        f"{check.name} not measured ({check.note})"
        if check.error is None
        else f"{check.name} within {margin(check.error)}"
        for check in found.checks
    ]
    return f"Certificate: {'; '.join(parts)}."


def of_stage(run: Run, stage: Stage) -> str:
    """What a stage of a comparison found, in a few words; empty where later stages tell it."""
    if stage.kind == "chain rule":
        equal = sum(row.equal for row in run.table)
        return f"vᵀHv = vᵀGv in {equal} of {len(run.table)} rows"
    if stage.kind == "certificate":
        return _certificate(run.certificate).removeprefix("Certificate: ")
    if stage.kind == "ends":
        found = run.spectra[stage.part, stage.letter]
        top, bottom = (
            eigenvalues(pairs, end, 0.0)[0].text(DIGITS, with_error=False)
            for pairs, end in ((found.largest, LARGEST), (found.smallest, SMALLEST))
        )
        return f"λ_max {top}, λ_min {bottom}"
    if stage.kind == "traces":
        return estimated(run.traces[stage.letter].whole.trace)
    return ""


def unfinished(comparison: Comparison) -> str:
    """What an interruption left out; empty where nothing is missing."""
    missing = comparison.unfinished
    if not missing:
        return ""
    shown = ", ".join(missing[:MAX_STAGES])
    more = f" and {len(missing) - MAX_STAGES} more" if len(missing) > MAX_STAGES else ""
    return f"Interrupted: {shown}{more} are missing."


def extremes(comparison: Comparison) -> str:
    """The smallest and the largest eigenvalue of H, or of G where H was left out."""
    whole = comparison.whole
    letter = next(iter(whole.spectra))
    bottom, top = (
        _in_words(eigenvalue(comparison, whole, letter, end)) for end in ("smallest", "largest")
    )
    return f"The eigenvalues of {letter} range from {bottom} to {top}."


def _in_words(found: Eigenvalue) -> str:
    """An eigenvalue inside a sentence, where a bound is "at least" or "at most"."""
    text = found.text(DIGITS, with_error=False)
    return text.replace("≥", "at least").replace("≤", "at most")


def negatives(comparison: Comparison) -> str:
    """How many eigenvalues of H are negative, as far as that is known."""
    if "H" not in comparison.whole.spectra:
        return ""
    count = comparison.negative
    if count is not None and not is_unknown(count) and count.value > 0:
        many = measured(count.value, max(count.stderr, count.depth), 4)
        return f"{many} of the {comparison.size:,} are negative."
    sure = certainly_negative(comparison)
    if sure:
        least = WORDS[sure] if sure < len(WORDS) else f"{sure:,}"
        return f"At least {least} are negative{_beyond(comparison)}."
    H = comparison.whole.H
    if H.smallest.values[0] + H.smallest.errors[0] >= -comparison.floor:
        return "No eigenvalue is negative beyond the noise of the products."
    return f"The number of negative eigenvalues is {UNKNOWN}."


def certainly_negative(comparison: Comparison) -> int:
    """How many eigenvalues of H are certainly negative, errors included."""
    pairs = comparison.whole.H.smallest
    found = int(np.sum((pairs.values + pairs.errors < -comparison.floor) & pairs.separate))
    return max(found, *(bracket.at_least for bracket in comparison.negative_brackets[:1]), 0)


def _beyond(comparison: Comparison) -> str:
    """How many are below the threshold from which on the count is known."""
    brackets = comparison.negative_brackets
    if not brackets:
        return ""
    bracket = brackets[1]
    if not 0 < bracket.upper <= 2 * bracket.lower:
        return f"; their total number is {UNKNOWN}"
    return (
        f", {between(bracket)} of them below {margin_of_threshold(bracket)}, "
        f"{abs(bracket.threshold) / comparison.floor:,.0f} times the noise floor; their "
        f"total number is {UNKNOWN}"
    )


def between(bracket: CountBracket) -> str:
    """The bounds of a count, widened by the error of the probes."""
    low = max(bracket.lower - bracket.stderr, 0.0)
    return f"{math.floor(low):,} to {math.ceil(bracket.upper + bracket.stderr):,}"


def margin_of_threshold(bracket: CountBracket) -> str:
    """The threshold of a count to two digits."""
    return known(bracket.threshold, 0.0, 2)


def share_of_residual(comparison: Comparison) -> str:
    """How H is shared between G and R."""
    if comparison.shares is None:
        return ""
    share = comparison.shares.whole
    trace, norm = share.trace, share.squared_norm
    if not (math.isfinite(trace.value) and math.isfinite(norm.value)):
        return ""
    of_norm = f"{shared(norm)} of the squared Frobenius norm of H"
    if 0 <= trace.value <= 1 and trace.stderr < MAX_SHARE_STDERR:
        rest = Estimate(1 - trace.value, trace.stderr, depth=trace.depth)
        return f"G carries {shared(rest)} of the trace of H, and R {of_norm}."
    traces = comparison.traces["R"].whole.trace, comparison.traces["H"].whole.trace
    trace_of_R, trace_of_H = (measured(t.value, t.stderr) for t in traces)
    return f"The trace of R is {trace_of_R}, that of H {trace_of_H}; R carries {of_norm}."


def spaces(comparison: Comparison) -> str:
    """How much the spaces of the top eigenvectors of H and of G overlap."""
    whole = comparison.whole
    if not whole.angles_by_count:
        return ""
    count = len(whole.H.largest.values)
    share = known(100 * whole.overlap, 0.5, 3)
    if count == 1:
        return f"The top eigenvectors of H and G overlap by {share} %."
    return f"The spaces of the top {count} eigenvectors of H and G overlap by {share} %."


def residual(comparison: Comparison) -> str:
    """On which blocks R vanishes."""
    if "R" not in comparison.whole.spectra:
        return ""
    whole, *layers = (part for part in comparison.parts.values() if "R" in part.spectra)
    if whole.agrees:
        return f"R vanishes over the {whole.name}: H and G are the same."
    if not layers:
        return ""
    agreeing = [part.name for part in layers if part.agrees]
    if not agreeing:
        return "R vanishes on no layer."
    if len(agreeing) == len(layers):
        return "R vanishes on every layer's own block, but not between layers."
    if len(agreeing) == 1:
        return f"R vanishes on the block of {agreeing[0]} only."
    return f"R vanishes on the blocks of {len(agreeing)} of {len(layers)} layers."


def sampling(comparison: Comparison) -> str:
    """How much a choice of other examples would change the largest eigenvalue of H."""
    letter, found = next(iter(comparison.whole.spectra.items()))
    error = comparison.whole.sampling[letter].largest[-1]
    if math.isnan(error):
        return "The data came as a single batch, so the sampling error is not known."
    share = error / (abs(found.largest.values[-1]) or 1.0)
    return (
        f"With {comparison.num_examples:,} other examples the largest eigenvalue would change by "
        f"about {margin(error)}, or {known(100 * share, 10 * share, 2)} %."
    )


def eigenvalue(
    comparison: Comparison, part: Part, letter: str, end: End, rank: int = 1
) -> Eigenvalue:
    """The eigenvalue of this rank (1 is the outermost) of "H", "G" or "R"."""
    pairs: Eigenpairs = getattr(part.spectra[letter], end)
    return eigenvalues(pairs, end, comparison.floor)[rank - 1]


def chain_rule(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    """Rows of the chain rule: layer, the three forms, their difference and the verdict."""
    for row in comparison.chain_rule:
        forms = (known(form, row.rounding) for form in (row.vHv, row.vGv, row.vRv))
        difference = f"{known(100 * row.difference, 0.0, 2)} %"
        yield row.layer, *forms, difference, "equal" if row.equal else "differ"


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


def errors(comparison: Comparison) -> tuple[tuple[str, ...], ...]:
    """Results for all parameters: name, value, and its errors of probes, depth and sampling."""
    if not comparison.parts:
        return ()
    whole = comparison.whole
    rows: list[tuple[str, ...]] = []
    extremes: tuple[tuple[str, End], ...] = (
        ("H", "largest"),
        ("H", "smallest"),
        ("G", "largest"),
        ("R", "largest"),
    )
    for letter, end in extremes:
        if letter not in whole.spectra:
            continue
        i, name = (-1, "λ_max") if end == "largest" else (0, "λ_min")
        value = eigenvalue(comparison, whole, letter, end).text(with_error=False)
        pair_error = getattr(whole.spectra[letter], end).errors[i]
        error = margin(pair_error) if pair_error else NONE
        sampling_text = sampling_error(getattr(whole.sampling[letter], end)[i])
        rows.append((f"{name} of {letter}", value, NONE, error, sampling_text))
    for letter, found in comparison.traces.items():
        error_of_trace = whole.sampling[letter].trace
        rows.append(_row(f"trace of {letter}", found.whole.trace, error_of_trace))
    for letter, found in comparison.traces.items():
        error_of_norm = whole.sampling[letter].squared_norm
        rows.append(_row(f"‖{letter}‖² (Frobenius)", found.whole.squared_norm, error_of_norm))
    for name, estimate in (
        ("distance of H and G", whole.distance),
        ("negative eigenvalues of H", comparison.negative),
        (f"rank of G, at most {comparison.rank_bound:,}", comparison.rank),
    ):
        if estimate is not None:
            rows.append(_row(name, estimate, estimate.sampling))
    for name, sign, estimate, brackets in (
        ("negative, H", "<", comparison.negative, comparison.negative_brackets),
        ("rank, G", ">", comparison.rank, comparison.rank_brackets),
    ):
        for bracket in brackets if estimate is not None and is_unknown(estimate) else ():
            threshold = f"{name}: λ {sign} {margin_of_threshold(bracket)}"
            rows.append((threshold, between(bracket), margin(bracket.stderr), NONE, NONE))
    return tuple(rows)


def _row(name: str, estimate: Estimate[float], error: float) -> tuple[str, ...]:
    value = estimated(estimate).partition(" ± ")[0]
    probes, depth = (margin(e) if e else NONE for e in (estimate.stderr, estimate.depth))
    return name, value, probes, depth, sampling_error(error)


def sampling_error(error: float) -> str:
    """A sampling error as text; it is not known from a single batch."""
    return SINGLE if math.isnan(error) else margin(error)

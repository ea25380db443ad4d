"""The results of a comparison in sentences."""

from __future__ import annotations

import math

from hvp.certificate import Certificate
from hvp.comparison.part import Part
from hvp.comparison.results import Comparison
from hvp.comparison.run import Run
from hvp.comparison.stages import Stage
from hvp.linalg.estimate import Estimate
from hvp.report import counts_and_dimensions, density_curves, entries
from hvp.report.number_format import (
    UNKNOWN,
    Eigenvalue,
    eigenvalues,
    estimated,
    known,
    margin,
    shared,
)

WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# Largest standard error of a share of the trace that a sentence gives.
MAX_SHARE_STDERR = 0.1
# Significant digits in a sentence; tables have more.
DIGITS = 4
# Unfinished stages that a sentence names.
MAX_STAGES = 3


def headline(comparison: Comparison) -> tuple[str, ...]:
    """The main results, a sentence each; empty where no spectrum was computed."""
    return tuple(sentence for paragraph in paragraphs(comparison) for sentence in paragraph)


def paragraphs(comparison: Comparison) -> tuple[tuple[str, ...], ...]:
    """The same sentences by their subject: the spectrum, H beside G, and how many directions."""
    if not comparison.parts:
        return ()
    about = (
        (extremes, negatives, learning_rate),
        (share_of_residual, spaces, residual),
        counts_and_dimensions.SENTENCES,
    )
    found = (tuple(filter(None, (say(comparison) for say in sentences))) for sentences in about)
    return tuple(filter(None, found))


def certificate(comparison: Comparison) -> str:
    """Whether differences confirm the products and the gradient, with the errors."""
    return of_certificate(comparison.certificate)


def of_certificate(found: Certificate | None) -> str:
    """Whether differences confirm the products and the gradient, with the errors."""
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
        else f"{check.name.replace(' by ', ' agrees with ')} within {margin(check.error)}"
        for check in found.checks
    ]
    return f"Certificate: {'; '.join(parts)}."


def of_stage(run: Run, stage: Stage) -> str:
    """What a stage of a comparison found, in a few words; empty where a later stage has it."""
    if stage.kind == "chain rule":
        equal = sum(row.equal for row in run.done.chain_rule)
        return f"vᵀHv = vᵀGv in {equal} of {len(run.done.chain_rule)} rows"
    if stage.kind == "certificate":
        return of_certificate(run.done.certificate).removeprefix("Certificate: ")
    if stage.kind == "ends":
        found = run.done.spectra[stage.part, stage.letter]
        top, bottom = (
            eigenvalues(getattr(found, end), end, 0.0)[0].text(DIGITS, with_error=False)
            for end in (entries.LARGEST, entries.SMALLEST)
        )
        return f"λ_max {top}, λ_min {bottom}"
    if stage.kind == "loss slices" and run.done.slices is not None:
        form, measured, *_ = entries.slice_numbers(run.done.slices, 0)
        return f"{run.done.slices.names[0]}: vᵀHv = {form}, by the loss {measured}"
    if stage.kind == "traces":
        return estimated(run.done.traces[stage.letter].whole.trace)
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
        _in_words(entries.eigenvalue(comparison, whole, letter, end))
        for end in (entries.SMALLEST, entries.LARGEST)
    )
    return f"The eigenvalues of {letter} range from {bottom} to {top}."


def _in_words(found: Eigenvalue) -> str:
    """An eigenvalue inside a sentence, where a bound is "at least" or "at most"."""
    return found.text().replace("≥", "at least").replace("≤", "at most")


def learning_rate(comparison: Comparison) -> str:
    """From which learning rate on gradient descent is unstable: 2/λ_max of H."""
    rate = entries.stable_rate(comparison)
    if not rate:
        return ""
    equals = f"of {rate.replace('≤', 'at most')}" if "≤" in rate else f"= {rate}"
    return f"Gradient descent is unstable here with a learning rate above 2/λ_max {equals}."


def negatives(comparison: Comparison) -> str:
    """How many eigenvalues of H are beyond the noise floor, as far as that is known."""
    counted_both_ways = counts_and_dimensions.counts_in_words(comparison)
    if counted_both_ways or "H" not in comparison.whole.spectra:
        return counted_both_ways
    sure = entries.certainly_negative(comparison)
    if sure:
        least = WORDS[sure] if sure < len(WORDS) else f"{sure:,}"
        return f"At least {least} of the {comparison.size:,} are negative."
    H = comparison.whole.H
    if H.smallest.values[0] + H.smallest.errors[0] >= -comparison.floor:
        return "No eigenvalue is negative beyond the rounding of the products."
    return f"The number of negative eigenvalues is {UNKNOWN}."


def share_of_residual(comparison: Comparison) -> str:
    """How H is shared between G and R."""
    if comparison.shares is None:
        return ""
    share = comparison.shares.whole
    trace, norm = share.trace, share.squared_norm
    if not (math.isfinite(trace.value) and math.isfinite(norm.value)):
        return ""
    of_norm = f"‖R‖² is {shared(norm)} of ‖H‖² (Frobenius)"
    if 0 <= trace.value <= 1 and trace.stderr < MAX_SHARE_STDERR:
        rest = Estimate(1 - trace.value, trace.stderr, depth=trace.depth)
        return f"The trace of G is {shared(rest)} of that of H, and {of_norm}."
    traces = comparison.traces["R"].whole.trace, comparison.traces["H"].whole.trace
    trace_of_R, trace_of_H = map(estimated, traces)
    return f"The trace of R is {trace_of_R}, that of H {trace_of_H}; {of_norm}."


def spaces(comparison: Comparison) -> str:
    """How much the spaces of the top eigenvectors of H and of G overlap."""
    whole = comparison.whole
    if not whole.angles_by_count:
        return ""
    count = len(whole.H.largest.values)
    which = "top eigenvectors" if count == 1 else f"spaces of the top {count} eigenvectors"
    return f"The {which} of H and G overlap by {entries.overlap(whole)}."


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


def outputs_per_example(comparison: Comparison) -> int | None:
    """The number of outputs of a classifier with cross-entropy, None where it is not known.

    It is the number of classes where an example has one label.
    """
    outputs, rest = divmod(comparison.rank_bound, comparison.num_examples)
    is_known = comparison.rank_bound < comparison.size and rest == 0 and outputs > 1
    is_classifier = "categorical_crossentropy" in comparison.loss_name
    return outputs if is_known and is_classifier and comparison.accuracy is not None else None


def outliers(comparison: Comparison, part: Part) -> str:
    """How many eigenvalues of H stand apart above the bulk, beside the number of outputs.

    Empty without the density of H.
    """
    if "H" not in density_curves.drawn(part):
        return ""
    count, may_be_more = density_curves.outliers_above(part, "H")
    if count == 0:
        return "No eigenvalue of H stands apart above the bulk"
    many = f"{count} or more outliers" if may_be_more else f"{count} outlier{'s' * (count > 1)}"
    outputs = outputs_per_example(comparison) if part is comparison.whole else None
    return f"{many} of H above the bulk" + (
        "" if outputs is None else f"; outputs − 1 = {outputs - 1}"
    )


def sampling(comparison: Comparison) -> str:
    """How much a choice of other examples would change the largest eigenvalue of H."""
    letter, found = next(iter(comparison.whole.spectra.items()))
    error = comparison.whole.sampling[letter].largest[-1]
    if math.isnan(error):
        return "The data came as a single batch, so the sampling error is not known."
    share = error / (abs(found.largest.values[-1]) or 1.0)
    return (
        f"Another draw of {comparison.num_examples:,} examples would change the largest eigenvalue "
        f"of {letter} by about {margin(error)}, or {known(100 * share, 10 * share, 2)} %."
    )

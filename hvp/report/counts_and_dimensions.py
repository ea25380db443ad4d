"""How many eigenvalues are large, and how many directions matter: sentences, rows and cells."""

from __future__ import annotations

from hvp.comparison.counts import Counts
from hvp.comparison.results import Comparison
from hvp.linalg.brackets import Bounds
from hvp.linalg.estimate import Estimate
from hvp.report.number_format import (
    NONE,
    between,
    bound,
    enclosed,
    estimated,
    is_unknown,
    known,
    margin,
    typeset,
)

# The cells of a number without such errors.
NO_ERRORS = (NONE, NONE, NONE)
# The matrices whose stable ranks are given.
STABLE_RANK_OF = "HG"
# Divisors of λ_max whose effective dimensions a sentence gives.
DIVISORS_IN_WORDS = (10, 1_000)

# The names of `cells`, in the order of a table.
COUNTS = (
    "eigenvalues of H above ε",
    "eigenvalues of H below −ε",
    "eigenvalues of H within ±ε",
    "eigenvalues of G above ε",
)
DIMENSIONS = (
    "stable rank of H",
    "stable rank of G",
    "effective dimension of G",
    "condition of G",
)


def counts_in_words(c: Comparison) -> str:
    """How many eigenvalues of H, or else of G, are above ε, below -ε and between."""
    letter = next(iter(c.counts), "")
    if not letter:
        return ""
    found = c.counts[letter]
    above, below, null = (between(each, c.size) for each in (found.above, found.below, found.null))
    sure = c.negative_brackets[0].at_least if c.negative_brackets else 0
    rest = f" At least {sure:,} are negative beyond rounding." if sure > found.below.upper else ""
    return (
        f"Of the {c.size:,} eigenvalues of {letter}, {above} {_are(above)} above ε = "
        f"{epsilon(found)} ({multiple(found)}), {below} {_are(below)} below -ε, and {null} "
        f"{_are(null)} within ±ε.{rest}"
    )


def rank_in_words(c: Comparison) -> str:
    """How many eigenvalues of G are above its own ε, beside the counts of H."""
    if not {"H", "G"} <= c.counts.keys():
        return ""
    found = c.counts["G"]
    above, sure = between(found.above, c.size), c.rank_brackets[0].at_least
    rest = f", and at least {sure:,} above rounding" if sure > found.above.upper else ""
    return f"Of those of G, {above} {_are(above)} above {epsilon(found)} ({multiple(found)}){rest}."


def _are(count: str) -> str:
    return "is" if count.endswith(" 1") or count == "1" else "are"


def epsilon(found: Counts) -> str:
    """ε to two digits."""
    return known(found.threshold, 0.0, 2)


def multiple(found: Counts) -> str:
    """ε in noise floors."""
    return (
        "the noise floor"
        if found.multiple == 1
        else f"{known(found.multiple, 0.0, 1)} noise floors"
    )


def stable_ranks_in_words(c: Comparison) -> str:
    """The stable ranks of H and of G."""
    found = [
        f"{estimated(rank)} for {letter}"
        for letter, rank in c.stable_ranks.items()
        if letter in STABLE_RANK_OF and not is_unknown(rank)
    ]
    return f"The stable rank, Σλ²/max λ², is {' and '.join(found)}." if found else ""


def effective_dimensions_in_words(c: Comparison) -> str:
    """The effective dimension of G for a strong and a weak damping."""
    found = [
        f"{estimated(each.estimate)} for a damping of λ_max/{each.divisor:,}"
        for each in c.effective_dimensions
        if each.divisor in DIVISORS_IN_WORDS and not is_unknown(each.estimate)
    ]
    return f"The effective dimension of G is {' and '.join(found)}." if found else ""


def condition_in_words(c: Comparison) -> str:
    """The condition number of G above the noise floor, of H where G was left out."""
    letter = next((letter for letter in "GH" if letter in c.conditions), "")
    if not letter:
        return ""
    found = c.conditions[letter]
    part = f"The part of {letter} above rounding, {known(found.floor, 0.0, 2)},"
    ratio = enclosed(found.lower, found.upper)
    between_two = f"between {ratio.replace(' to ', ' and ')}" if " to " in ratio else f"of {ratio}"
    return f"{part} has a condition number {between_two}."


# The functions that say so, in order.
SENTENCES = (
    rank_in_words, stable_ranks_in_words, effective_dimensions_in_words, condition_in_words,
)  # fmt: skip


def cells(c: Comparison) -> dict[str, tuple[str, str]]:
    """The numbers by name, each with a note or none, as the top of a page shows them."""
    found = {}
    for letter, counts in c.counts.items():
        note = f"ε = {epsilon(counts)}, {multiple(counts)}"
        for side, bounds in _sides(letter, counts):
            name = typeset(f"eigenvalues of {letter} {side}")
            found[name] = between(bounds, c.size), note
    for letter in STABLE_RANK_OF:
        if letter in c.stable_ranks:
            found[f"stable rank of {letter}"] = estimated(c.stable_ranks[letter]), ""
    for each in c.effective_dimensions:
        # The smallest damping that is resolved comes last; several models have the same, mostly.
        if each.divisor <= DIVISORS_IN_WORDS[-1] and not is_unknown(each.estimate):
            note = f"damping λ_max/{each.divisor:,}"
            found["effective dimension of G"] = estimated(each.estimate), note
    if "G" in c.conditions:
        condition = c.conditions["G"]
        ratio = enclosed(condition.lower, condition.upper)
        found["condition of G"] = ratio, f"of the part above {known(condition.floor, 0.0, 2)}"
    return found


def rows(c: Comparison) -> list[tuple[str, ...]]:
    """Rows of the table of errors: name, value, and its errors of probes, depth and sampling."""
    found: list[tuple[str, ...]] = []
    for letter, counts in c.counts.items():
        for side, bounds in _sides(letter, counts):
            name = f"eigenvalues of {letter} {side.replace('ε', epsilon(counts))}"
            found.append((name, between(bounds, c.size), *NO_ERRORS))
    for letter, rank in c.stable_ranks.items():
        found.append((f"stable rank of {letter}", *_value_and_errors(rank)))
    for each in c.effective_dimensions:
        name = f"effective dimension of G, damping {known(each.damping, 0.0, 2)}"
        found.append((name, *_value_and_errors(each.estimate)))
    for letter, condition in c.conditions.items():
        name = f"condition of {letter} above {known(condition.floor, 0.0, 2)}"
        found.append((name, enclosed(condition.lower, condition.upper), *NO_ERRORS))
    return found


def _sides(letter: str, found: Counts) -> tuple[tuple[str, Bounds], ...]:
    """The counts to show: of G, which is positive semidefinite, those above ε."""
    above = ("above ε", found.above)
    if letter == "G":
        return (above,)
    return above, ("below -ε", found.below), ("within ±ε", found.null)


def _value_and_errors(estimate: Estimate[float]) -> tuple[str, ...]:
    """The cells of a number; where its depth is beyond it, an upper bound is all that is known."""
    value = estimated(estimate).partition(" ± ")[0]
    if is_unknown(estimate):
        value = bound(estimate.value, estimate.depth + 2 * estimate.stderr, "≤")
    probes, depth, sampling = (
        margin(error) if error > 0 else NONE
        for error in (estimate.stderr, estimate.depth, estimate.sampling)
    )
    return value, probes, depth, sampling

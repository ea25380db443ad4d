"""How much of a comparison fits limits of time and memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from hvp.comparison.costs import ComparisonCost, comparison_cost
from hvp.comparison.plan import RESULTS, Effort
from hvp.comparison.stages import stages
from hvp.errors import InputError
from hvp.operators import Cost, Curvature

# Probes and steps of smaller densities, in order.
SHALLOWER: tuple[tuple[int, int], ...] = ((4, 80), (4, 40), (4, 20))
# The fewest examples that a subset has, and the share of a budget that is planned for it: the
# linearization is made once more.
MIN_EXAMPLES, SUBSET_SHARE = 10, 0.85


@dataclass(frozen=True)
class Limits:
    """The most seconds and bytes that a comparison may take; infinity for no limit."""

    seconds: float = math.inf
    bytes: float = math.inf


@dataclass(frozen=True)
class Fit:
    """A comparison that is expected to fit its limits.

    Attributes:
        effort: what is computed.
        cost: what that takes, with all examples.
        num_examples: how many of the examples to take.
    """

    effort: Effort
    cost: ComparisonCost
    num_examples: int


def fit(lin: Curvature, effort: Effort, costs: Mapping[str, Cost], limits: Limits) -> Fit:
    """The most of a comparison that is expected to fit its limits.

    Where memory is short, nothing is computed in float64, and the Krylov bases are shorter. Fewer
    and shorter runs of the densities come first, then no single layers, a random subset of the
    examples, no densities, no traces and no R. Time is proportional to the number of examples.

    Raises:
        InputError: the least of these exceeds a limit.
    """
    total = lin.num_examples
    least = min(MIN_EXAMPLES, total)
    for smaller in _within_memory(effort):
        found = comparison_cost(lin, smaller, list(stages(lin, smaller)), costs)
        if found.bytes > limits.bytes:
            continue
        if found.seconds <= limits.seconds:
            return Fit(smaller, found, total)
        count = int(total * SUBSET_SHARE * limits.seconds / found.seconds)
        if not smaller.layers and count >= least:
            return Fit(smaller, found, _rounded(count))
    if found.bytes > limits.bytes:
        raise InputError(
            f"a limit of memory of at least {_gigabytes(math.ceil(found.bytes / 1e8) * 1e8)}",
            _gigabytes(limits.bytes),
            "raise it, or take fewer examples or layers",
        )
    seconds = math.ceil(found.seconds * least / total)
    raise InputError(f"a budget of at least {seconds} s", f"{limits.seconds:.0f} s", "raise it")


def _within_memory(effort: Effort) -> Iterator[Effort]:
    """The effort and less and less of it, each with float64, without, and with short bases."""
    for smaller in (effort, *_shallower(effort)):
        yield smaller
        yield replace(smaller, float64=False)
        yield replace(smaller, float64=False, short_basis=True)


def _shallower(effort: Effort) -> Iterator[Effort]:
    """Ways to compute less and less."""
    for probes, steps in SHALLOWER:
        fewer = min(probes, effort.num_probes), min(steps, effort.num_steps)
        if "density" in effort.results and fewer != (effort.num_probes, effort.num_steps):
            effort = replace(effort, num_probes=fewer[0], num_steps=fewer[1])
            yield effort
    if effort.layers:
        effort = replace(effort, layers=False)
        yield effort
    for result in ("density", "traces"):
        if result in effort.results and effort.results != {result}:
            effort = replace(effort, results=effort.results - {result})
            yield effort
    if {"H", "R"} <= set(effort.matrices) and "ends" in effort.results:
        matrices = tuple(letter for letter in effort.matrices if letter != "R")
        yield replace(effort, matrices=matrices, results=effort.results - {"chain-rule"})


def left_out(wanted: Effort, found: Fit) -> tuple[str, ...]:
    """What a fitted comparison leaves out of the one that was wanted, but for examples."""
    left, effort = [], found.effort
    missing = [result for result in RESULTS if result in wanted.results - effort.results]
    counts = [
        (effort.num_probes, "probes", wanted.num_probes),
        (effort.num_steps, "steps", wanted.num_steps),
    ]
    fewer = [f"{few} {name} instead of {many}" for few, name, many in counts if few != many]
    if "density" not in missing and fewer:
        left.append(f"densities of {' and '.join(fewer)}")
    if wanted.layers and not effort.layers:
        left.append("no spectra of single layers")
    if wanted.float64 and not effort.float64:
        left.append("noise floor and certificate without float64")
    if effort.short_basis and not wanted.short_basis:
        left.append("ends by half the vectors and twice the products")
    left += [f"no {result}" for result in missing]
    left += [f"no {letter}" for letter in wanted.matrices if letter not in effort.matrices]
    return tuple(left)


def _rounded(count: int) -> int:
    """The count, to two digits from below."""
    step = 10 ** max(len(str(count)) - 2, 0)
    return count // step * step


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"

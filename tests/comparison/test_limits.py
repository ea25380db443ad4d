"""How a comparison is fitted into limits of time and memory."""

from dataclasses import replace

import pytest
from support.comparison_costs import COSTS, N, backend, expected

from hvp.comparison.limits import Fit, Limits, fit, left_out
from hvp.comparison.plan import Effort
from hvp.errors import InputError
from hvp.linalg.eigsh import basis_size


def test_a_comparison_that_fits_is_left_as_it_is():
    found = fit(backend(), Effort(), COSTS, Limits())
    assert (found.effort, found.num_examples) == (Effort(), N)
    assert left_out(Effort(), found) == ()


@pytest.mark.parametrize("seconds", [300, 200, 100, 60, 40])
def test_less_is_computed_until_it_fits(seconds):
    found = fit(backend(), Effort(), COSTS, Limits(seconds))
    share = found.num_examples / N
    assert share * found.cost.seconds <= seconds
    assert (share < 1) <= (not found.effort.layers)


def test_less_and_less_is_computed_in_order():
    budgets = (400, 240, 160, 120, 60)
    found = [fit(backend(), Effort(), COSTS, Limits(seconds)) for seconds in budgets]
    probes = [each.effort.num_probes for each in found]
    assert probes == sorted(probes, reverse=True)
    assert [each.effort.layers for each in found] == sorted(
        (each.effort.layers for each in found), reverse=True
    )
    assert found[-1].num_examples < N
    assert "no spectra of single layers" in left_out(Effort(), found[-1])


def test_vectors_that_do_not_fit_into_memory_are_left_out():
    effort, size = Effort(k=3), 20_000_000
    whole = expected(effort, size=size).bytes
    found = fit(backend(size), effort, COSTS, Limits(bytes=whole / 3))
    assert found.cost.bytes <= whole / 3
    assert found.effort != effort
    with pytest.raises(InputError, match=r"expected a limit of memory of at least \d+\.\d GB"):
        fit(backend(size), effort, COSTS, Limits(bytes=1e9))


def test_short_memory_leaves_out_float64_first():
    effort, size = Effort(layers=False, results=frozenset({"ends"}), k=3), 20_000_000
    smaller = replace(effort, float64=False)
    whole, without = (expected(each, size=size).bytes for each in (effort, smaller))
    assert without < whole
    found = fit(backend(size), effort, COSTS, Limits(bytes=(whole + without) / 2))
    assert found.effort == smaller
    assert left_out(effort, found) == ("noise floor and certificate without float64",)


def test_short_memory_then_shortens_the_bases_of_the_ends():
    effort, size = Effort(layers=False, results=frozenset({"ends"}), k=10), 20_000_000
    without = replace(effort, float64=False)
    short = replace(without, short_basis=True)
    larger, smaller = (expected(each, size=size) for each in (without, short))
    ends = [max(c.bytes for s, c in each.stages.items() if s.kind == "ends")
            for each in (larger, smaller)]  # fmt: skip
    vectors = (ends[0] - ends[1]) / (4 * size)
    assert vectors == basis_size(20, size) - short.basis(size) == 20
    assert smaller.bytes < larger.bytes
    assert smaller.num_products > larger.num_products
    found = fit(backend(size), effort, COSTS, Limits(bytes=(larger.bytes + smaller.bytes) / 2))
    assert found.effort == short
    assert left_out(effort, found)[-1] == "ends by half the vectors and twice the products"


def test_short_bases_are_for_parts_that_are_not_computed_whole():
    short = Effort(k=3, short_basis=True)
    assert (short.basis(5), short.basis(512), short.basis(513)) == (None, None, 11)


def test_a_budget_that_nothing_fits_is_refused():
    with pytest.raises(InputError, match=r"expected a budget of at least \d+ s, got 0 s"):
        fit(backend(), Effort(), COSTS, Limits(seconds=0.01))


def test_a_fit_says_what_it_leaves_out():
    smaller = Effort(num_probes=3, num_steps=20, layers=False, results=frozenset({"ends"}))
    found = Fit(smaller, expected(smaller), N)
    assert left_out(Effort(), found) == (
        "no spectra of single layers", "no chain-rule", "no density", "no traces",
    )  # fmt: skip
    few = Effort(num_probes=4, num_steps=40)
    assert left_out(Effort(), Fit(few, expected(few), N)) == (
        "densities of 40 steps instead of 80",
    )

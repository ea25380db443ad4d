"""What a comparison is expected to take, and how it is fitted into limits."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

import hvp
from hvp.comparison.forecast import Fit, Limits, fit, forecast, left_out, measured_costs
from hvp.comparison.plan import RESULTS, Effort
from hvp.comparison.run import Run, stages
from hvp.errors import InputError
from hvp.operators import Cost

P, N = 10_000, 5_000
COST = Cost(1.0, alone=0.1, in_block=0.05, width=8, saved=10**8, budget=10**9, working=10**7)
COSTS = dict.fromkeys("HGR", COST)


def lin(size=P):
    half = size // 2
    layout = SimpleNamespace(
        layers={"first": (0,), "last": (1,)}, shapes=[(half, 1), (size - half,)], slices=[]
    )
    return SimpleNamespace(
        size=size, dtype=np.dtype("float32"), layout=layout, is_whole=True, num_examples=N,
        num_batches=10,
    )  # fmt: skip


def expected(effort, costs=COSTS, size=P):
    return forecast(lin(size), effort, list(stages(lin(size), effort)), costs)


def test_time_grows_with_probes_and_steps_and_with_the_cost_of_products():
    few, many = (expected(Effort(num_probes=n, layers=False)).seconds for n in (5, 10))
    products = 80 * (2 * 5 + 3) + 40 * 3
    assert many - few == pytest.approx(0.05 * products, rel=0.5)
    slow = {letter: Cost(1.0, 1.0, 0.5, 8, 10**8, 10**9, 10**7) for letter in "HGR"}
    assert 5 < expected(Effort(), slow).seconds / expected(Effort()).seconds < 10


def test_what_is_left_out_takes_nothing():
    whole = expected(Effort())
    for smaller in (
        Effort(layers=False),
        Effort(matrices=("H", "G"), results=frozenset(RESULTS) - {"chain-rule"}),
        *(Effort(results=frozenset(RESULTS) - {result}) for result in ("density", "traces")),
    ):
        assert expected(smaller).seconds < whole.seconds


def test_a_comparison_that_fits_is_left_as_it_is():
    found = fit(lin(), Effort(), COSTS, Limits())
    assert (found.effort, found.num_examples) == (Effort(), N)
    assert left_out(Effort(), found) == ()


@pytest.mark.parametrize("seconds", [300, 200, 100, 60, 40])
def test_less_is_computed_until_it_fits(seconds):
    found = fit(lin(), Effort(), COSTS, Limits(seconds))
    share = found.num_examples / N
    assert share * found.forecast.seconds <= seconds
    assert (share < 1) <= (not found.effort.layers)


def test_less_and_less_is_computed_in_order():
    budgets = (400, 240, 160, 120, 60)
    found = [fit(lin(), Effort(), COSTS, Limits(seconds)) for seconds in budgets]
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
    found = fit(lin(size), effort, COSTS, Limits(bytes=whole / 3))
    assert found.forecast.bytes <= whole / 3
    assert found.effort != effort
    with pytest.raises(InputError, match=r"expected a limit of memory of at least \d+\.\d GB"):
        fit(lin(size), effort, COSTS, Limits(bytes=1e9))


def test_a_budget_that_nothing_fits_is_refused():
    with pytest.raises(InputError, match=r"expected a budget of at least \d+ s, got 0 s"):
        fit(lin(), Effort(), COSTS, Limits(seconds=0.1))


def test_costs_are_measured_and_every_product_is_expected():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((40, 30)), rng.standard_normal((30, 20))
    linear = hvp.linearize_function(
        lambda z, batch: tf.reduce_sum(z**2),
        w, (x,), outputs=lambda w, batch: tf.tanh(batch[0] @ w), reduction="sum", batch_size=20,
        jit=False,
    )  # fmt: skip
    effort = Effort(k=2, num_probes=3, num_steps=5)
    costs = measured_costs(linear, effort)
    assert all(0 < cost.in_block <= 20 * cost.alone for cost in costs.values())
    assert all(cost.saved > 0 and math.isfinite(cost.first) for cost in costs.values())
    found = forecast(linear, effort, list(stages(linear, effort)), costs)
    run = Run(linear, effort)
    assert list(found.stages) == list(run.pending)
    while run.pending:
        run.step()
    assert 0.3 < found.num_products / run.comparison().num_products < 3


def test_a_fit_says_what_it_leaves_out():
    smaller = Effort(num_probes=3, num_steps=20, layers=False, results=frozenset({"ends"}))
    found = Fit(smaller, expected(smaller), N)
    assert left_out(Effort(), found) == (
        "no spectra of single layers", "no chain-rule", "no density", "no traces",
    )  # fmt: skip
    few = Effort(num_probes=5, num_steps=40)
    assert left_out(Effort(), Fit(few, expected(few), N)) == (
        "densities of 5 probes and 40 steps instead of 10 and 80",
    )

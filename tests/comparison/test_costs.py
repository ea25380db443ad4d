"""What a comparison is expected to cost."""

import math

import numpy as np
import pytest
import tensorflow as tf
from support.comparison_costs import expected

import hvp
from hvp.comparison.costs import comparison_cost, measured_costs
from hvp.comparison.plan import RESULTS, Effort
from hvp.comparison.run import Run
from hvp.comparison.stages import stages
from hvp.operators import Cost


def test_time_grows_with_probes_and_steps_and_with_the_cost_of_products():
    few, many = (expected(Effort(num_probes=n, layers=False)).seconds for n in (5, 10))
    products = 80 * (2 * 5 + 3) + 40 * 3
    assert many - few == pytest.approx(0.05 * products, rel=0.5)
    slow = {letter: Cost(1.0, 1.0, 0.5, 8, 10**8, 0, 10**9, 10**7) for letter in "HGR"}
    assert 5 < expected(Effort(), slow).seconds / expected(Effort()).seconds < 10


def test_what_is_left_out_takes_nothing():
    whole = expected(Effort())
    for smaller in (
        Effort(layers=False),
        Effort(matrices=("H", "G"), results=frozenset(RESULTS) - {"chain-rule"}),
        *(Effort(results=frozenset(RESULTS) - {result}) for result in ("density", "traces")),
    ):
        assert expected(smaller).seconds < whole.seconds


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
    found = comparison_cost(linear, effort, list(stages(linear, effort)), costs)
    run = Run(linear, effort)
    assert list(found.stages) == list(run.pending)
    while run.pending:
        run.step()
    assert 0.3 < found.num_products / run.comparison().num_products < 3

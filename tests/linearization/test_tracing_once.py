"""A product is traced once for each shape of a batch."""

import numpy as np
import pytest
import tensorflow as tf
from support.batched_products import GIVEN, PRODUCTS, SIZES, X, Y, blocks_of, ragged, vector
from support.oracles import dense_net, examples, relative
from support.threads import at_once

import hvp
from hvp.autodiff import tracing
from hvp.linearization.products import FORWARD


@pytest.fixture
def traces(monkeypatch):
    """Grows with every program that is traced."""
    calls, original = [], tracing.trace

    def counting(*arguments, **options):
        calls.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(tracing, "trace", counting)
    return calls


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in PRODUCTS), ("hvp", {"cache": 0}), ("gnvp", {"jit": True})],
    ids=str,
)
def test_a_product_is_traced_once_a_batch_shape(traces, name, options):
    lin = ragged(**options)
    traces.clear()
    for seed in range(3):
        getattr(lin, name)(vector(lin, name, seed=seed))
        getattr(lin, name)(vector(lin, name, 2, seed=seed))
        getattr(lin, name)(vector(lin, name, 3, seed=seed))
    assert len(traces) == len(set(SIZES)) == 2


def test_nothing_is_traced_before_it_is_used_and_then_one_order(traces):
    lin = ragged(ad="auto")
    traces.clear()
    _ = lin.theta, lin.loss(), lin.choices, lin.memory, lin.findings
    assert traces == []
    for _ in range(3):
        lin.hvp(np.ones(lin.size))
    assert len(traces) == 2
    assert {choice.order for choice in lin.choices} == {FORWARD}


def test_a_penalty_is_a_shape_of_its_own(traces):
    model = dense_net(kernel_regularizer="l2")
    lin = hvp.linearize(model, (X, Y), "mse", batch_size=4, **GIVEN)
    traces.clear()
    for _ in range(3):
        lin.hvp(np.ones(lin.size))
        lin.residual_vp(np.ones(lin.size))
    # Batches of 4 and 3 and the penalty for H; R has none.
    assert len(traces) == 3 + 2


def test_a_product_is_traced_once_by_threads_that_want_it_at_once(traces):
    lin = ragged()
    traces.clear()
    at_once(*[lambda: lin.hvp(np.ones(lin.size))] * 4)
    assert len(traces) == 2
    assert lin.memory.kept_batches == lin.memory.batches == 4


def test_operations_without_a_rule_are_not_traced_once_a_column(monkeypatch):
    def outputs(w, batch):
        return tf.math.cumulative_logsumexp(tf.tanh(batch @ w), axis=0)

    def loss(z, batch):
        return tf.reduce_sum(z**2)

    lin = hvp.linearize_function(loss, examples((4,), 3), examples((3,)), outputs=outputs)
    v = vector(lin, "hvp", 20)
    assert relative(lin.hvp(v), np.stack([lin.hvp(c) for c in v.T], axis=1)) < 1e-13
    assert blocks_of(lin) == []

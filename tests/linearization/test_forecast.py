"""The forecast of time and memory, compared with what the products need."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import LABELS, conv_net, dense_net, examples, norm_net

import hvp
from hvp.linearization import forecast

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def linearized(build=dense_net, **options):
    model = build(dtype="float32")
    x = examples(model.input_shape[1:], dtype="float32")
    return hvp.linearize(model, (x, LABELS), LOSS, **options)


@pytest.mark.parametrize("build", [dense_net, conv_net, norm_net])
@pytest.mark.parametrize("batch_size", [3, 7])
def test_what_is_kept_is_forecast_within_a_factor_of_three(build, batch_size):
    lin = linearized(build, batch_size=batch_size)
    expected = lin.forecast
    lin.hvp(np.ones(lin.size))
    assert expected.kept / 3 < lin.memory.kept < 3 * expected.kept
    assert expected.seconds > 0


def test_the_batches_are_counted_where_they_are_not_held_in_memory():
    data = tf.data.Dataset.from_tensor_slices((examples((4,), dtype="float32"), LABELS)).batch(7)
    lin = hvp.linearize(dense_net(dtype="float32"), data, LOSS)
    assert lin.forecast.kept >= 7 * 4 * 4


def test_a_large_network_takes_longer_and_more():
    def forecast_of(width):
        model = keras.Sequential(
            [keras.Input((64,)), keras.layers.Dense(width, "tanh"), keras.layers.Dense(3)]
        )
        x, y = examples((64,), 2000, dtype="float32"), np.arange(2000) % 3
        return hvp.linearize(model, (x, y), LOSS, batch_size=2000).forecast

    small, large = forecast_of(4), forecast_of(2000)
    assert large.seconds > small.seconds
    assert large.kept > 10 * small.kept


def test_what_is_beyond_the_budget_is_noted_until_it_is_measured():
    lin = linearized(cache=0)
    (finding,) = lin.findings
    assert "a product is expected to take about" in finding.message
    assert "exceeds the budget of 0.0 MiB is computed anew" in finding.remedy
    lin.hvp(np.ones(lin.size))
    (finding,) = lin.findings
    assert "the tensors of 0 of 1 batches are saved for later products" in finding.message


def test_what_takes_long_is_noted(monkeypatch):
    monkeypatch.setattr(forecast, "LONG_SECONDS", 0.0)
    lin = linearized()
    assert [(f.severity, f.layer) for f in lin.findings] == [("note", "products")]
    lin.hvp(np.ones(lin.size))
    assert lin.findings == ()

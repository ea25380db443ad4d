"""The counted work of products against counts by hand; times are measured, and not tested."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.multiply_adds import by_hand

import hvp
from bench.backends import keras_models
from bench.measurements import problems
from hvp.operators import Cost, Work

DENSE, CONVNET, TRANSFORMER = problems.TINY.values()


def of_problem(problem, **options):
    model = keras_models.build(problem)
    return hvp.linearize(model, problems.data(problem), keras_models.loss(), **options)


@pytest.mark.parametrize(
    "problem",
    [DENSE, CONVNET, pytest.param(TRANSFORMER, marks=pytest.mark.sweep)],
    ids=lambda p: p.name,
)
def test_the_linear_part_does_as_many_multiply_adds_as_counted_by_hand(problem):
    lin = of_problem(problem)
    counted = by_hand(problem)
    assert lin.cost("H").linear.multiply_adds == counted.hvp
    assert lin.cost("G").linear.multiply_adds == counted.gnvp


def test_the_known_part_is_the_gradient_and_for_g_the_network():
    lin = of_problem(DENSE)
    # Forward, and the gradient in the activations; the kernels' own gradients are not needed.
    forward = 6 * (9 * 6 + 6 * 5 + 5 * 3)
    assert lin.cost("G").known.multiply_adds == forward
    assert lin.cost("H").known.multiply_adds == forward + 6 * (6 * 5 + 5 * 3)


@pytest.mark.sweep
def test_batches_add_up():
    whole, parts = of_problem(DENSE), of_problem(DENSE, batch_size=4)
    for letter in "HGR":
        one, two = whole.cost(letter), parts.cost(letter)
        assert two.num_batches == 2
        assert two.linear.multiply_adds == one.linear.multiply_adds
        assert two.known.multiply_adds == one.known.multiply_adds


def test_what_depends_on_the_point_alone_counts_once_for_all_batches():
    lin = hvp.linearize_function(
        lambda z, x: tf.reduce_mean(z**4), np.ones((3, 3), np.float32),
        np.ones((8, 3), np.float32), outputs=lambda w, x: x @ (w @ w @ w),
        reduction="mean", batch_size=4,
    )  # fmt: skip
    # w w is saved, once. Both batches compute (w w) w, and z = x (w w w).
    assert lin.cost("G").known.multiply_adds == 27 + 2 * (27 + 4 * 9)


def test_bytes_are_those_of_vector_saved_tensors_and_product():
    x = np.ones((50, 3), np.float32)
    lin = hvp.linearize_function(
        lambda z, x: tf.reduce_mean(z**2), np.ones((3, 2), np.float32), x,
        outputs=lambda w, x: x @ w, reduction="mean",
    )  # fmt: skip
    assert lin.cost("G").linear == Work(600, 4 * (6 + 50 * 3 + 6), (50, 3, 2))


def lstm(steps):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((steps, 5)), keras.layers.LSTM(6), keras.layers.Dense(3)])
    x = np.random.default_rng(0).normal(size=(11, steps, 5)).astype("float32")
    return hvp.linearize(model, (x, np.arange(11) % 3), keras_models.loss())


@pytest.mark.sweep
def test_each_step_of_an_lstm_is_six_products_of_inputs_and_state_with_all_gates():
    few, many = (lstm(steps).cost("H").linear.multiply_adds for steps in (3, 5))
    assert many - few == 2 * 6 * 11 * (5 + 6) * 4 * 6


def test_a_loop_as_long_as_the_data_say_is_shown_as_unknown():
    def outputs(w, x):
        most = tf.cast(tf.reduce_max(x), tf.int32)
        return tf.while_loop(lambda i, z: i < most, lambda i, z: (i + 1, z @ w), (0, x))[1]

    lin = hvp.linearize_function(
        lambda z, x: tf.reduce_mean(z**2), 0.1 * np.ones((2, 2), np.float32),
        np.full((4, 2), 3.0, np.float32), outputs=outputs, reduction="mean",
    )  # fmt: skip
    cost = lin.cost("G")
    assert cost.linear.multiply_adds is None
    assert "unknown" in repr(cost)
    assert cost.rows()[1]["multiply_adds"] is None


def test_it_is_shown_as_a_table_and_cannot_be_changed():
    cost = of_problem(DENSE).cost("G")
    text = repr(cost)
    assert f"{cost.linear.multiply_adds:,}" in text
    assert f"{cost.size:,} parameters, 1 batch" in text
    assert "<table>" in cost._repr_html_()
    assert [row["part"] for row in cost.rows()] == ["known", "linear"]
    assert {row["matrix"] for row in cost.rows()} == {"G"}
    assert [row["bytes"] for row in cost.rows()] == [cost.known.bytes, cost.linear.bytes]
    with pytest.raises(dataclasses.FrozenInstanceError):
        cost.first = 0.0
    assert Cost(1.0, 1.0, 1.0, 1, 1, 1, 1, 1).rows() == []

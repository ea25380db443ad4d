"""gᵀHg/‖g‖² of each batch, against differences of the gradient of its own loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support import oracles
from support.oracles import LABELS, cut, dense_net, examples, softmax_loss

import hvp

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
GIVEN = {"ad": "forward-over-reverse", "jit": False}
SIZES = (3, 3, 1)
# Differences of the gradient are right to about 1e-10 of it.
RTOL = 1e-8


def quotients(model, losses):
    """The quotient of each loss, with Hg by central differences of the gradient."""
    variables = oracles.variables_of(model)
    found = []
    for loss in losses:
        g = oracles.gradient(loss, variables)
        found.append(g @ oracles.hessian_along(loss, variables, g) / (g @ g))
    return found


@pytest.mark.parametrize("penalty", [None, pytest.param(0.25, marks=pytest.mark.sweep)])
def test_each_batch_has_the_quotient_of_its_own_loss(penalty):
    regularizer = None if penalty is None else keras.regularizers.L2(penalty)
    model = dense_net(kernel_regularizer=regularizer)
    batches = cut((examples((4,)), LABELS), SIZES)
    lin = hvp.linearize(model, batches, LOSS, **GIVEN)

    def loss(x, y):
        added = 0.0 if penalty is None else penalty * tf.reduce_sum(model.layers[0].kernel ** 2)
        return softmax_loss(y, model(x)) + added

    expected = quotients(model, [lambda x=x, y=y: loss(x, y) for x, y in batches])
    np.testing.assert_allclose(lin.batch_sharpness(), expected, rtol=RTOL)
    # Saved tensors, and tensors that do not fit, give the same.
    lin.hvp(np.ones(lin.size))
    np.testing.assert_allclose(lin.batch_sharpness(), expected, rtol=RTOL)
    if penalty is None:
        return
    small = hvp.linearize(model, batches, LOSS, cache=0, **GIVEN)
    np.testing.assert_allclose(small.batch_sharpness(), expected, rtol=RTOL)


def test_sums_and_weighted_means_are_divided_as_fit_divides_them():
    model, (x, weight) = dense_net(), (examples((4,)), np.arange(1.0, 8.0))
    y = np.linspace(-1, 1, 21).reshape(7, 3)
    squares = keras.losses.MeanSquaredError(reduction="sum", dtype="float64")
    lin = hvp.linearize(model, cut((x, y), SIZES), squares, **GIVEN)
    losses = [
        lambda x=x, y=y: tf.reduce_sum(tf.reduce_mean((model(x) - y) ** 2, -1))
        for x, y in cut((x, y), SIZES)
    ]
    np.testing.assert_allclose(lin.batch_sharpness(), quotients(model, losses), rtol=RTOL)
    mean = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight", dtype="float64")
    lin = hvp.linearize(model, cut((x, y, weight), SIZES), mean, **GIVEN)
    losses = [
        lambda x=x, y=y, w=w: tf.reduce_sum(w * tf.reduce_mean((model(x) - y) ** 2, -1)) / w.sum()
        for x, y, w in cut((x, y, weight), SIZES)
    ]
    np.testing.assert_allclose(lin.batch_sharpness(), quotients(model, losses), rtol=RTOL)


def test_a_single_batch_has_the_quotient_of_the_loss():
    lin = hvp.linearize(dense_net(), (examples((4,)), LABELS), LOSS, **GIVEN)
    g = lin.gradient()
    assert lin.batch_sharpness() == pytest.approx([g @ lin.hvp(g) / (g @ g)], rel=1e-12)


@pytest.mark.sweep
def test_float32_is_multiplied_in_float32():
    data = cut((examples((4,), dtype="float32"), LABELS), (4, 3))
    single = hvp.linearize(dense_net(dtype="float32"), data, LOSS, **GIVEN).batch_sharpness()
    double = hvp.linearize(dense_net(), data, LOSS, **GIVEN).batch_sharpness()
    np.testing.assert_allclose(single, double, rtol=1e-4)


def test_a_batch_without_a_gradient_has_no_quotient():
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(w**2), np.zeros(3))
    assert np.isnan(lin.batch_sharpness()).all()


def test_batches_without_a_loss_of_their_own_are_refused():
    mean = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight", dtype="float64")
    data = examples((4,)), np.zeros((7, 3)), np.array([1.0, 1, 1, 0, 0, 0, 1])
    lin = hvp.linearize(dense_net(), cut(data, SIZES), mean, **GIVEN)
    with pytest.raises(hvp.InputError, match="positive sum in every batch, got 0 in batch 2"):
        lin.batch_sharpness()


def test_terms_that_weigh_a_batch_differently_are_refused():
    mean = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    x = keras.Input((4,))
    outputs = [keras.layers.Dense(1)(x), keras.layers.Dense(1)(x)]
    zeros, weight = np.zeros((7, 1)), np.arange(1.0, 8.0)
    data = examples((4,)), (zeros, zeros), (weight, np.ones(7))
    batches = [tf.nest.map_structure(lambda a, s=s: a[s], data) for s in (slice(0, 4), slice(4, 7))]
    lin = hvp.linearize(keras.Model(x, outputs), batches, [mean, mean], **GIVEN)
    with pytest.raises(hvp.InputError, match=r"same weight, got 0\.357, 0\.571 for batch 1"):
        lin.batch_sharpness()

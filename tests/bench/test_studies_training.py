"""Parts of the studies that train: the rule for outliers, the networks, the step of descent."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import hvp
from bench.studies import (
    batch_normalisation,
    descent,
    edge_of_adam,
    edge_of_momentum,
    edge_of_sam,
    edge_of_stability,
    outliers,
)


@pytest.mark.parametrize(
    ("values", "count", "ratio"),
    [([1.0, 1.1, 1.2, 6.0, 7.0], 2, 5.0), ([1.0, 3.0], 1, 3.0), ([1.0, 4.0, 5.0, 6.0], 3, 4.0)],
)
def test_outliers_end_at_the_largest_ratio(values: list[float], count: int, ratio: float) -> None:
    assert outliers.gap(np.array(values)) == pytest.approx((count, ratio))


def test_networks_differ_in_normalisation_alone() -> None:
    plain, normalised = (batch_normalisation.network(n, 0.1, 2, 3) for n in (False, True))
    kernels = [[v.numpy() for v in m.weights if v.name == "kernel"] for m in (plain, normalised)]
    for one, other in zip(*kernels, strict=True):
        np.testing.assert_array_equal(one, other)
    names = [type(layer).__name__ for layer in normalised.layers]
    assert names[1:4] == ["Dense", "BatchNormalization", "ReLU"]
    assert names.count("BatchNormalization") == 2


def test_descent_is_plain_gradient_descent() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 784)).astype(np.float32)
    targets = np.eye(10, dtype=np.float32)[rng.integers(10, size=12)]
    sharpness, losses = edge_of_stability.train(0.3, x, targets, width=3, num_steps=1, every=2)
    model = descent.network(3)
    start = hvp.linearize(model, (x, targets), descent.squared)
    after, at = start.theta - 0.3 * start.gradient(), 0
    for variable in model.trainable_variables:
        size = int(np.prod(variable.shape))
        variable.assign(after[at : at + size].reshape(variable.shape))
        at += size
    end = hvp.linearize(model, (x, targets), descent.squared)
    np.testing.assert_allclose(losses, [start.loss(), end.loss()], rtol=1e-5)
    by_powers = np.ones(start.size) / np.sqrt(start.size)
    for _ in range(40):
        product = start.hvp(by_powers) + 2 * by_powers
        by_powers = product / np.linalg.norm(product)
    np.testing.assert_allclose(sharpness, [by_powers @ start.hvp(by_powers)], rtol=1e-2)


def test_without_empty_pixels_the_network_trains_as_the_whole_one() -> None:
    x, targets = few_digits()
    x[:, ::2] = 0
    whole = descent.network(3)
    part, data = descent.used_pixels(3, x, targets)
    assert part.input_shape == (None, 392)
    found = []
    for model, given in ((whole, (x, targets)), (part, data)):
        sharpness = descent.Sharpness(model, *given)
        found.append(
            descent.descend(model, lambda s: [-0.3 * each for each in s], given, 3, 2, sharpness)
        )
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3)
    assert abs(np.diff(found[0][1])).min() > 1e-2


def few_digits() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 784)).astype(np.float32)
    return x, np.eye(10, dtype=np.float32)[rng.integers(10, size=12)]


def losses_of_keras(optimizer: keras.optimizers.Optimizer, count: int) -> list[float]:
    """The loss before each of its steps on all of the few digits."""
    x, targets = few_digits()
    model = descent.network(3)
    model.compile(optimizer, descent.squared)
    return [model.train_on_batch(x, targets) for _ in range(count)]


@pytest.mark.sweep
@pytest.mark.parametrize("rule", ["heavy ball", "Nesterov"])
def test_momentum_takes_the_steps_of_keras_with_a_tenth_of_the_rate(rule: str) -> None:
    _, losses = edge_of_momentum.train(rule, 0.5, few_digits(), 3, num_steps=3, every=10)
    sgd = keras.optimizers.SGD(0.05, edge_of_momentum.BETA, nesterov=rule == "Nesterov")
    np.testing.assert_allclose(losses, losses_of_keras(sgd, 4), rtol=1e-5)


@pytest.mark.sweep
def test_adam_takes_the_steps_of_keras() -> None:
    model, data = descent.network(3), few_digits()
    adam = edge_of_adam.Adam(descent.zeros(model), descent.zeros(model), 0.01)
    measured, losses = descent.descend(model, adam.change, data, 3, 2, lambda: float(adam.count))
    np.testing.assert_array_equal(measured, [0, 2])
    np.testing.assert_allclose(losses, losses_of_keras(keras.optimizers.Adam(0.01), 4), rtol=1e-4)


def growth(rule: str, sharpness: float, rate: float) -> float:
    """The largest factor by which a step on ½λw² multiplies (w, m)."""
    beta = edge_of_momentum.BETA
    m = np.array([(1 - beta) * sharpness, beta])  # the mean after the step, of w and m before it
    slope = np.array([(1 - beta) * sharpness, 0.0])
    change = beta * m + slope if rule == "Nesterov" else m
    step = np.stack([np.array([1.0, 0.0]) - rate * change, m])
    return float(np.abs(np.linalg.eigvals(step)).max())


@pytest.mark.parametrize(("rule", "constant"), [("heavy ball", 38.0), ("Nesterov", 13.57)])
def test_steps_converge_below_the_edge_of_momentum_and_diverge_above_it(
    rule: str, constant: float
) -> None:
    limit = edge_of_momentum.edge(rule, 0.3)
    assert limit * 0.3 == pytest.approx(constant, rel=1e-3)
    assert growth(rule, 0.99 * limit, 0.3) < 1 < growth(rule, 1.01 * limit, 0.3)


def test_the_edge_of_adam_is_that_of_the_heavy_ball() -> None:
    assert edge_of_adam.edge(0.3) * 0.3 == pytest.approx(38)


def test_a_preconditioner_scales_the_hessian_from_both_sides() -> None:
    model, data = descent.network(1), few_digits()
    sharpness = descent.Sharpness(model, *data)
    P = np.geomspace(0.1, 10.0, model.count_params())
    H = hvp.linearize(model, data, descent.squared).hvp(np.eye(len(P), dtype=np.float32))
    scaled = H / np.sqrt(P) / np.sqrt(P)[:, None]
    expected = np.linalg.eigvalsh((scaled + scaled.T) / 2)[-1]
    assert sharpness(P) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("norm", [0.01, 1.0])
def test_steps_of_sam_converge_below_its_edge_and_diverge_above_it(norm: float) -> None:
    rate, radius = 0.3, 0.1
    limit = float(edge_of_sam.edge(np.array(norm), rate, radius))
    for factor, grows in ((0.99, False), (1.01, True)):
        sharpness = factor * limit
        w = norm / sharpness  # the slope of half of sharpness w² is norm
        after = w - rate * sharpness * (w + radius)
        assert (abs(after) > w) is grows

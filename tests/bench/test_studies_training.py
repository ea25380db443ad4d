"""Parts of the studies that train: the rule for outliers, the networks, the step of descent."""

from __future__ import annotations

import numpy as np
import pytest

import hvp
from bench.studies import batch_normalisation, edge_of_stability, outliers


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
    x = rng.standard_normal((12, 28, 28)).astype(np.float32)
    targets = np.eye(10, dtype=np.float32)[rng.integers(10, size=12)]
    sharpness, losses = edge_of_stability.train(0.3, x, targets, width=3, num_steps=1, every=2)
    model = edge_of_stability.network(3)
    start = hvp.linearize(model, (x, targets), edge_of_stability.squared)
    after, at = start.theta - 0.3 * start.gradient(), 0
    for variable in model.trainable_variables:
        size = int(np.prod(variable.shape))
        variable.assign(after[at : at + size].reshape(variable.shape))
        at += size
    end = hvp.linearize(model, (x, targets), edge_of_stability.squared)
    np.testing.assert_allclose(losses, [start.loss(), end.loss()], rtol=1e-5)
    by_powers = np.ones(start.size) / np.sqrt(start.size)
    for _ in range(40):
        product = start.hvp(by_powers) + 2 * by_powers
        by_powers = product / np.linalg.norm(product)
    np.testing.assert_allclose(sharpness, [by_powers @ start.hvp(by_powers)], rtol=1e-2)

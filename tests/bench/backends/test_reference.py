"""The float64 product is the derivative of the float64 gradient."""

import numpy as np

from bench.backends.reference import DenseNet
from bench.measurements import problems
from hvp.benchmark.implementation import vectors

DENSE = problems.TINY["tiny-dense"]


def test_the_product_by_hand_is_the_derivative_of_the_gradient_by_hand(monkeypatch):
    net, v = DenseNet(DENSE), vectors(DENSE.size, 1).astype(float)
    weights = [array.astype(float) for array in problems.values(DENSE)]
    step, gradients = 1e-5, []
    for sign in (1, -1):
        parts = np.split(v, np.cumsum([w.size for w in weights])[:-1])
        moved = [w + sign * step * p.reshape(w.shape) for w, p in zip(weights, parts, strict=True)]
        monkeypatch.setattr("bench.backends.reference.values", lambda _, moved=moved: moved)
        gradients.append(DenseNet(DENSE).gradient)
    expected = (gradients[0] - gradients[1]) / (2 * step)
    np.testing.assert_allclose(net.hvp(v), expected, rtol=1e-6, atol=1e-9)

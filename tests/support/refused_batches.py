"""A layer refused for the numbers of one batch."""

import keras
import numpy as np
import pytest

import hvp


def assert_refused_in_second_batch(layer, op, target):
    """Require an InputError that names layer, operation and batch; inputs (1, 0) are refused."""
    inputs = keras.Input((2,), dtype="float64")
    dense = keras.layers.Dense(2, use_bias=False, kernel_initializer="identity", dtype="float64")
    model = keras.Model(inputs, layer(dense(inputs)))
    good, bad = np.array([[0.5, 1.0]]), np.array([[1.0, 0.0]])
    hvp.linearize(model, [(good, target)], "mse")
    with pytest.raises(hvp.InputError, match=f"{op} in {layer.name!r}.* in batch 2"):
        hvp.linearize(model, [(good, target), (bad, target)], "mse")

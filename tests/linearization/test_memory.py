"""Resident memory of the products, counted in vectors of P, in a process of its own.

A product was measured to hold 6.3 vectors above the model at the most (v, the gradient, pieces of
the tangent, the result). N = 8 rows of P, or 10 rows for the 10 outputs, do not fit below 9.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BOUND = 9.0
WIDTH, EXAMPLES = 2000, 8


def peak() -> int:
    """The most resident memory of this program so far, in bytes.

    Not ru_maxrss, which a process inherits from the one that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure() -> dict[str, float]:
    """The peak after each product, over the memory held before, in vectors of P."""
    import keras
    import numpy as np
    import psutil
    import tensorflow as tf

    import hvp

    def network(width: int) -> keras.Model:
        dense = keras.layers.Dense
        net = [keras.Input((width,)), dense(width, "tanh", name="dense1"), dense(10, name="dense2")]
        return keras.Sequential(net)

    def linearized(model: keras.Model) -> hvp.Linearization:
        x = np.random.default_rng(0).standard_normal((EXAMPLES, *model.input_shape[1:]))
        data = x.astype("float32"), np.zeros((EXAMPLES, 10), "float32")
        return hvp.linearize(model, data, "mse")

    def products(lin: hvp.Linearization) -> dict[str, float]:
        held, peaks, v = psutil.Process().memory_info().rss, {}, np.ones(lin.size, "float32")
        for name in ("hvp", "gnvp", "residual_vp", "jvp"):
            for _ in range(2):
                getattr(lin, name)(v)
            peaks[name] = (peak() - held) / v.nbytes
        lin.vjp(np.ones(lin.num_outputs, "float32"))
        peaks["vjp"] = (peak() - held) / v.nbytes
        with tf.GradientTape(persistent=True) as tape:
            z = tf.reshape(model(tf.ones([1, *model.input_shape[1:]])), [-1])
        rows = tape.jacobian(z, [w.value for w in model.trainable_variables])
        assert len(rows) == 4
        peaks["rows"] = (peak() - held) / v.nbytes
        return peaks

    # What TensorFlow and the compiler of its kernels load once is loaded here.
    model = network(5)
    products(linearized(model))
    model = network(WIDTH)
    lin = linearized(model)
    assert lin.size > 4_000_000
    return products(lin)


@pytest.fixture(scope="module")
def peaks() -> dict[str, float]:
    run = subprocess.run(
        [sys.executable, __file__],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("product", ["hvp", "gnvp", "residual_vp", "jvp", "vjp"])
def test_products_hold_a_few_vectors_of_four_million_parameters(peaks, product):
    assert peaks[product] < BOUND


def test_the_rows_of_one_examples_jacobian_would_break_the_bound(peaks):
    assert peaks["rows"] > BOUND


if __name__ == "__main__":
    print(json.dumps(measure()))

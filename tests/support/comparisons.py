"""A small network whose comparison many tests look at."""

import keras
import numpy as np

K = 4
REPEATABLE = {"ad": "forward-over-reverse", "jit": False}
TOL = 1e-8
PARTS = ("whole network", "hidden", "last")
# Where the density is not what is tested.
FEW = {"num_probes": 4, "num_steps": 8}


def network(hidden=6, seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="float64"),
            keras.layers.Dense(hidden, "tanh", dtype="float64", name="hidden"),
            keras.layers.Dense(3, dtype="float64", name="last"),
        ]
    )
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    )
    return model


def examples():
    rng = np.random.default_rng(1)
    return rng.standard_normal((40, 5)), rng.integers(0, 3, 40)

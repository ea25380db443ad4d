"""Products of a dense layer for airspeed-velocity: copy this file into its directory of benchmarks.

`asv run` times each `time_*`, measures the peak memory of each `peakmem_*` in a fresh process, and
records what each `track_*` returns, for every combination of `params`.
"""

from __future__ import annotations

import keras
import numpy as np

import hvp

WIDTH, BATCH = 512, 64


def linearization() -> hvp.Linearization:
    """The mean cross-entropy of a dense layer on random data."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(WIDTH)])
    x = np.random.default_rng(0).standard_normal((BATCH, WIDTH), dtype=np.float32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return hvp.linearize(model, (x, np.arange(BATCH)), loss)


class Products:
    """One product with a block of vectors, after all that is done once."""

    params = (["H", "G"], [1, 16])
    param_names = ("matrix", "columns")
    timeout = 300

    def setup(self, matrix: str, columns: int) -> None:
        """What is not timed."""
        self.lin = linearization().prepare(matrix, columns=columns)
        self.product = {"H": self.lin.hvp, "G": self.lin.gnvp}[matrix]
        rng = np.random.default_rng(1)
        shape = (self.lin.size, columns) if columns > 1 else (self.lin.size,)
        self.vectors = rng.standard_normal(shape, dtype=np.float32)

    def time_product(self, matrix: str, columns: int) -> None:
        """Seconds of a product."""
        self.product(self.vectors)

    def peakmem_product(self, matrix: str, columns: int) -> None:
        """The peak memory of the process."""
        self.product(self.vectors)

    def track_multiply_adds(self, matrix: str, columns: int) -> int:
        """The multiply-adds of the linear part: a change of theirs is one of the program."""
        work = self.lin.cost(matrix).linear
        assert work is not None
        assert work.multiply_adds is not None
        return work.multiply_adds

    track_multiply_adds.unit = "multiply-adds"  # type: ignore[attr-defined]

    def track_bytes(self, matrix: str, columns: int) -> int:
        """The bytes of vector, saved tensors and result."""
        work = self.lin.cost(matrix).linear
        assert work is not None
        return work.bytes

    track_bytes.unit = "bytes"  # type: ignore[attr-defined]


class FirstProduct:
    """From the model to its first product."""

    timeout = 300
    number, repeat = 1, 3

    def time_first_product(self) -> None:
        """Seconds of linearising, tracing and one product."""
        lin = linearization()
        lin.hvp(lin.theta)

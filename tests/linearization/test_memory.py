"""Resident memory of the products, and of the data, in a process of its own.

Products are counted in vectors of P.

A product was measured to hold 6.3 vectors above the model at the most (v, the gradient, pieces of
the tangent, the result). N = 8 rows of P, or 10 rows for the 10 outputs, do not fit below 9.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BOUND = 9.0
WIDTH, EXAMPLES = 2000, 8
# Streamed data: the bytes of a batch, and how many batches there are, ten times the bound, which is
# the cache (of one batch) and two batches. Programs that are traced were measured as 12 to 17 MiB.
ROWS, ENTRIES, CACHE = 1024, 8192, 32 << 20
BATCH_BYTES, NUM_BATCHES = 4 * ROWS * ENTRIES, 30
PROGRAM_BYTES = 24 << 20


def peak() -> int:
    """The most resident memory of this program so far, in bytes.

    Not ru_maxrss, which a process inherits from the one that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def reset_peak() -> int:
    """Set the peak to what is resident now, and return it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def streamed(directory: str) -> dict[str, float]:
    """The peak while data of 30 batches are read and multiplied, over what was held before.

    It is in batches. Files and programs are made before, and two batches are read.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    import hvp

    base = np.random.default_rng(0).standard_normal((ROWS, ENTRIES), dtype=np.float32)

    def batch(number: int) -> tuple[np.ndarray, np.ndarray]:
        return base + np.float32(number / NUM_BATCHES), np.arange(ROWS) % 3

    def made():
        for number in range(NUM_BATCHES):
            yield batch(number)

    path = Path(directory) / "x.npy"
    shape = (NUM_BATCHES * ROWS, ENTRIES)
    written = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for number, (x, _) in enumerate(made()):
        written[number * ROWS : (number + 1) * ROWS] = x
    del written, x
    mapped = np.load(path, mmap_mode="r"), np.arange(shape[0]) % 3
    specs = tf.TensorSpec((ROWS, ENTRIES)), tf.TensorSpec((ROWS,), tf.int64)
    dataset = tf.data.Dataset.from_generator(made, output_signature=specs)
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((ENTRIES,)), dense(4, "tanh"), dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def used(data) -> float:
        before = reset_peak()
        lin = hvp.linearize(model, data, loss, batch_size=ROWS, cache=CACHE)
        V = np.ones((lin.size, 2), np.float32)
        lin.hvp(V[:, 0]), lin.gnvp(V), lin.batch_forms(V, "H")
        assert lin.num_examples == len(mapped[1]) or data is first
        assert lin.memory.kept_batches < lin.memory.batches
        return (peak() - before) / BATCH_BYTES

    first = [batch(0), batch(1)]
    used(first)
    found = {"mapped": used(mapped), "function": used(made), "dataset": used(dataset)}
    return found | {"held": used((np.array(mapped[0]), mapped[1]))}


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

    def linearized(model: keras.Model, batch_size: int = EXAMPLES) -> hvp.Linearization:
        x = np.random.default_rng(0).standard_normal((EXAMPLES, *model.input_shape[1:]))
        data = x.astype("float32"), np.zeros((EXAMPLES, 10), "float32")
        return hvp.linearize(model, data, "mse", batch_size=batch_size)

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
    found = products(lin)
    lin = linearized(model, batch_size=1)
    lin.gradient()
    held = reset_peak()
    nbytes = lin.gradient().nbytes
    return found | {"gradient": (peak() - held) / nbytes}


def run(*arguments: str) -> dict[str, float]:
    """What a fresh process measures."""
    process = subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def peaks() -> dict[str, float]:
    return run()


@pytest.fixture(scope="module")
def streamed_peaks(tmp_path_factory) -> dict[str, float]:
    return run(str(tmp_path_factory.mktemp("data")))


@pytest.mark.sweep
@pytest.mark.parametrize("product", ["hvp", "gnvp", "residual_vp", "jvp", "vjp"])
def test_products_hold_a_few_vectors_of_four_million_parameters(peaks, product):
    assert peaks[product] < BOUND


@pytest.mark.sweep
def test_a_gradient_holds_a_few_vectors_however_many_the_batches(peaks):
    assert peaks["gradient"] < EXAMPLES


def test_the_rows_of_one_examples_jacobian_would_break_the_bound(peaks):
    assert peaks["rows"] > BOUND


@pytest.mark.sweep
@pytest.mark.parametrize("data", ["mapped", "function", "dataset"])
def test_streamed_data_hold_the_cache_and_two_batches_whatever_their_number(streamed_peaks, data):
    assert streamed_peaks[data] < (CACHE + PROGRAM_BYTES) / BATCH_BYTES + 2
    assert NUM_BATCHES >= 10 * (CACHE / BATCH_BYTES + 2)


@pytest.mark.sweep
def test_data_that_are_held_would_break_this_bound(streamed_peaks):
    assert streamed_peaks["held"] > NUM_BATCHES


if __name__ == "__main__":
    print(json.dumps(streamed(*sys.argv[1:]) if sys.argv[1:] else measure()))

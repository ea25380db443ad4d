"""Products on a local Ray cluster beside products in one process.

``python -m bench.cluster`` prints for each problem the time of Hv in one process with one thread,
and with workers of one thread each, whose ideal is this time over the number of cores that they
have; what the death of a worker costs; and the latencies that `hvp/cluster/README.md` reckons with.
The data are `--batches` batches of the size that the benchmark has. Times are the shortest of
several turns: other programs only add to them.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import time
from collections.abc import Callable
from typing import Annotated

import keras
import numpy as np
import ray
import tensorflow as tf
import typer
from rich.console import Console

import hvp.cluster
from bench.backends import keras_models
from bench.measurements import problems
from hvp.benchmark.implementation import vectors
from hvp.cluster.connection import Connection
from hvp.cluster.worker import Worker
from hvp.linearization import transfer

PROBLEMS = ("convnet", "transformer")
# Turns, and entries of the vectors that are sent.
NUM_TURNS, SIZES = 8, (1_000_000, 16_000_000)
CONSOLE = Console(width=100)
Data = list[tuple[np.ndarray, np.ndarray]]


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Problems of the benchmark.")] = None,
    batches: Annotated[int, typer.Option(help="Batches of the data.")] = 4,
    workers: Annotated[int, typer.Option(help="Workers of one thread each.")] = 2,
) -> None:
    """Measure products with one thread, and with workers of one thread each."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    transfer.limit_threads(1)
    connection = Connection(None, workers)
    for name in names or PROBLEMS:
        problem = problems.find(name)
        whole = dataclasses.replace(problem, batch=batches * problem.batch)
        x, y = problems.data(whole)
        data = list(zip(np.split(x, batches), np.split(y, batches), strict=True))
        measure(name, keras_models.build(problem), data, vectors(problem.size, 1), workers)
    latencies()
    connection.close()


def measure(name: str, model: keras.Model, data: Data, v: np.ndarray, workers: int) -> None:
    """Print the products of one problem."""
    loss = keras_models.loss()
    lin = hvp.linearize(model, data, loss, jit=False)
    with hvp.cluster.linearize(model, data, loss, num_workers=workers) as shared:
        expected, found = lin.hvp(v), shared.hvp(v)
        alone, together = turns(functools.partial(lin.hvp, v), functools.partial(shared.hvp, v))
        inside = max(state.seconds for state in shared.workers)
        ideal = alone / min(workers, os.cpu_count() or 1)
        error = np.abs(found - expected).max() / np.abs(expected).max()
        CONSOLE.print(
            f"{name}, {len(data)} batches of {len(data[0][0])}: one thread {1e3 * alone:.1f} ms, "
            f"{workers} workers {1e3 * together:.1f} ms ({1e3 * inside:.1f} ms inside, median): "
            f"{ideal / together:.2f} of the ideal; relative difference {error:.0e}"
        )
        os.kill(shared.workers[1].pid, signal.SIGKILL)
        begun = time.perf_counter()
        again = shared.hvp(v)
        CONSOLE.print(
            f"  after a death {time.perf_counter() - begun:.1f} s, "
            f"the same bits: {np.array_equal(again, found)}"
        )


def turns(*calls: Callable[[], object]) -> list[float]:
    """The fewest seconds of each call, measured in turns."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(NUM_TURNS):
        for call, seconds in zip(calls, found, strict=True):
            begun = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begun)
    return list(map(min, found))


def latencies() -> None:
    """Print the time of a call of a worker, of storing a vector, and of an addition."""
    actor = ray.remote(Worker).remote(0, 1)

    def added(stored: object) -> object:
        return ray.get(actor.plus.remote(stored, stored))

    def asked() -> object:
        return ray.get(actor.node.remote())

    asked()
    CONSOLE.print(f"a call: {1e3 * turns(asked)[0]:.2f} ms")
    for size in SIZES:
        v = np.ones(size, np.float32)
        put, add = turns(functools.partial(ray.put, v), functools.partial(added, ray.put(v)))
        CONSOLE.print(f"{size:,} entries: stored {1e3 * put:.1f} ms, added {1e3 * add:.1f} ms")
    ray.kill(actor)


if __name__ == "__main__":
    typer.run(main)

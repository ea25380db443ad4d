"""What one trace for many points gives in training: second-order steps, and warm starts.

``python -m bench.training`` prints two tables for the digits' network:

- the training loss that SciPy's trust-ncg reaches with `lin.scipy_functions()`, and that of `fit`
  with SGD, in the same processor time. Tracing and compiling count for both; data and model, which
  are the same, do not. SGD gets several learning rates, with and without momentum.
- the products that the largest eigenvalues of H take along small steps of SGD, from a random vector
  (cold) and from the eigenvectors before the step (warm), at equal accuracy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any

import keras
import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize

import hvp
from hvp import examples

RATES, MOMENTA, BATCH = (0.03, 0.1, 0.3), (0.0, 0.9), 64
# Weights of a run with the processor seconds that it had taken.
Run = list[tuple[float, np.ndarray]]
STEPS_BETWEEN, NUM_POINTS, SMALL_RATE = 5, 20, 0.02


def linearized(model: keras.Model) -> hvp.Linearization:
    """The loss on all digits. Nothing is chosen by timing."""
    return hvp.linearize(model, examples.mnist(), ad="forward-over-reverse", jit=False)


def by_trust_ncg(seconds: float, matrix: str) -> Run:
    """Weights after each iteration of trust-ncg from the initial weights."""
    model, run = examples.network("tanh"), []
    begun = time.process_time()
    fun, jac, hessp = linearized(model).scipy_functions(matrix)

    def record(w: np.ndarray) -> None:
        run.append((time.process_time() - begun, w.copy()))
        if run[-1][0] > seconds:
            raise StopIteration

    start = np.concatenate([np.ravel(v) for v in model.trainable_variables])
    options = {"maxiter": 10**6, "gtol": 0.0}
    minimize(fun, start, jac=jac, hessp=hessp, method="trust-ncg", callback=record, options=options)
    return run


def by_sgd(seconds: float, rate: float, momentum: float) -> Run:
    """Weights after each epoch of `fit` from the same weights."""
    model, run = examples.network("tanh"), []
    model.compile(keras.optimizers.SGD(rate, momentum), model.loss)
    x, y = examples.mnist()
    begun = time.process_time()

    def record(epoch: int, logs: object) -> None:
        weights = np.concatenate([np.ravel(v) for v in model.trainable_variables])
        run.append((time.process_time() - begun, weights))
        model.stop_training = run[-1][0] > seconds

    report = keras.callbacks.LambdaCallback(on_epoch_end=record)
    model.fit(x, y, batch_size=BATCH, epochs=10**6, verbose=0, callbacks=[report])
    return run


def losses(run: Run, lin: hvp.Linearization, times: list[float]) -> list[float]:
    """The lowest loss up to each time."""
    found = [(at, lin.loss(weights)) for at, weights in run]
    return [min((loss for at, loss in found if at <= end), default=np.inf) for end in times]


def trust_table(seconds: float) -> Table:
    times = [seconds / 4, seconds / 2, seconds]
    runs: dict[str, Callable[[], Run]] = {
        f"trust-ncg with {matrix}": partial(by_trust_ncg, seconds, matrix) for matrix in "HG"
    }
    for momentum in MOMENTA:
        for rate in RATES:
            name = f"fit, SGD({rate}{f', {momentum}' if momentum else ''})"
            runs[name] = partial(by_sgd, seconds, rate, momentum)
    lin = linearized(examples.network("tanh"))
    table = Table(title="Training loss after processor seconds", title_justify="left")
    for heading in ("", *(f"{end:g} s" for end in times), "iterations or epochs"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, compute in runs.items():
        keras.utils.set_random_seed(0)
        run = compute()
        table.add_row(name, *(f"{x:.2e}" for x in losses(run, lin, times)), f"{len(run):,}")
    return table


def along_training() -> Iterator[keras.Model]:
    """The digits' network, trained, with a few small steps of SGD between the points."""
    x, y = examples.mnist()
    model = examples.network("tanh")
    examples.train(model, x, y)
    model.compile(keras.optimizers.SGD(SMALL_RATE), model.loss)
    rows = np.random.default_rng(0).permutation(len(x))[: STEPS_BETWEEN * BATCH * NUM_POINTS]
    for part in np.split(rows, NUM_POINTS):
        yield model
        model.fit(x[part], y[part], batch_size=BATCH, shuffle=False, verbose=0)


def warm_table(tol: float) -> Table:
    table = Table(title=f"Means along {NUM_POINTS} points, tol = {tol:g}")
    table.title_justify = "left"
    for heading in ("", "products", "over cold", "seconds", "largest error / ‖H‖"):
        table.add_column(heading, justify="right" if heading else "left")
    lin: hvp.Linearization | None = None
    before: dict[int, hvp.Eigenpairs] = {}
    found: dict[tuple[int, str], list[tuple[int, float, float]]] = {}
    for model in along_training():
        lin = lin or linearized(model)
        with lin.at(model) as there:
            there.hvp(there.theta)  # so that all find the tensors saved
            for k in (1, 3, 10):
                starts: dict[str, dict[str, Any]] = {
                    "cold": {},
                    "cold, basis of 2k + 5": {"ncv": 2 * k + 5},
                }
                starts["warm"] = {"start": before.get(k)}
                for name, options in starts.items():
                    begun = time.process_time()
                    pairs = hvp.eigsh(hvp.Hessian(there), k, tol=tol, **options)
                    spent = time.process_time() - begun
                    error = float(pairs.errors.max() / abs(pairs.values).max())
                    found.setdefault((k, name), []).append((pairs.num_products, spent, error))
                before[k] = pairs
    cold = 1.0
    for (k, name), numbers in found.items():  # the first point has nothing to start from
        products, seconds, _ = np.mean(numbers[1:], axis=0)
        cold = products if name == "cold" else cold
        error = max(error for _, _, error in numbers[1:])
        cells = f"{products:.1f}", f"{products / cold:.2f}", f"{seconds:.2f}", f"{error:.0e}"
        table.add_row(f"k = {k}, {name}", *cells)
    return table


def main(
    seconds: Annotated[float, typer.Option(help="Processor seconds of each training.")] = 20.0,
    tol: Annotated[float, typer.Option(help="Errors of eigenvalues relative to ‖H‖.")] = 1e-3,
) -> None:
    """Second-order steps beside SGD, and warm starts along a training."""
    console = Console(width=110)
    console.print(warm_table(tol))
    console.print(trust_table(seconds))


if __name__ == "__main__":
    typer.run(main)

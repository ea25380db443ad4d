"""Time the spectral densities of H, in turns, and check their moments.

Each implementation runs in its own process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from bench.backends.implementation import PROBES, STEPS, DiscreteDensity
from bench.backends.implementations import OURS, Entry
from bench.backends.reference import DenseNet
from bench.measurements.problems import Problem
from bench.results.record import DensityRecord, Result
from hvp.benchmark import machine_load
from hvp.benchmark.measure import Plan, Progress, enter, start
from hvp.benchmark.process import Worker, WorkerError
from hvp.benchmark.server import Prepared
from hvp.benchmark.timing import Turn, interleave

# Largest relative error of the moments. Nodes have rounding errors of 10⁻⁷ of the largest node; for
# the mean of a spectrum that is mostly near zero, the relative error is a thousand times larger.
AGREEMENT = 1e-2


def measure(
    problem: Problem, peers: Sequence[Entry], plan: Plan, progress: Progress
) -> DensityRecord:
    """The time of a density, without building the products; for hvp also that of its products.

    The problem must be a dense network, so that its moments can be computed in NumPy.
    """
    record = DensityRecord(problem.title, PROBES, STEPS)
    found, net = record.figure, DenseNet(problem)
    turns: dict[str, Turn] = {}
    with contextlib.ExitStack() as stack:
        progress(f"{problem.title}: density, starting")
        entries = [OURS, *(peer for peer in peers if peer.has_density)]
        found.results, workers = start(entries, problem, stack)
        for name, worker in workers.items():
            progress(f"{problem.title}: density, {name}")
            try:
                prepared, density, probes = worker.ask("density")
            except WorkerError as error:
                found.results[name] = Result("failed", note=str(error))
                continue
            expected = moments_by_hand(net, probes)
            found.results[name] = result_of(prepared, moments(density), expected)
            record.first[name] = prepared.first
            turns[name] = _turn(worker, "density")
        if OURS.name in turns:
            progress(f"{problem.title}: density, in turns")
            first, ours = turns.pop(OURS.name), workers[OURS.name]
            ours.ask("prepare", "products")
            turns["in products"] = _turn(ours, "products")
            pids = [worker.pid for worker in workers.values()]
            before = machine_load.usage(pids)
            timed = interleave(first, turns, plan.repeats)
            found.others_load = machine_load.of_others(before, machine_load.usage(pids))
            enter(found, "density", timed)
    return record


def _turn(worker: Worker, figure: str) -> Turn:
    return lambda: worker.ask("time", figure, 1)


def result_of(prepared: Prepared, found: np.ndarray, by_hand: np.ndarray) -> Result:
    """The result of a density with the moments `found`.

    It is wrong if a moment differs. It has failed if only a repaired form works, which is timed.
    """
    result = Result("ok", form=prepared.form)
    errors = np.abs(found - by_hand) / np.abs(by_hand)
    result.error = float(errors.max()) if np.isfinite(errors).all() else float("inf")
    if result.error > AGREEMENT:
        result.status, result.note = "wrong", "a moment differs"
    elif prepared.refused:
        result.status, result.note = "failed", "; ".join(prepared.refused.values())
    return result


def moments(density: DiscreteDensity) -> np.ndarray:
    """The moments 0 to 4 of a density before smoothing, (5,).

    Smoothing by a Gaussian adds σg to x, with g standard normal. The moments 1 to 4 of x + σg are
    m₁, m₂ + σ², m₃ + 3σ²m₁ and m₄ + 6σ²m₂ + 3σ⁴.
    """
    points, weights = density.points.astype(np.float64), density.weights.astype(np.float64)
    m0, m1, m2, m3, m4 = (float(weights @ points**k) for k in range(5))
    variance = density.width**2
    m2 -= variance * m0
    m4 = m4 - 6 * variance * m2 - 3 * variance**2 * m0
    return np.array([m0, m1, m2, m3 - 3 * variance * m1, m4])


def moments_by_hand(net: DenseNet, probes: np.ndarray) -> np.ndarray:
    """The mean over the probes (P, S), scaled to length one, of vᵀHᵏv for k from 0 to 4.

    Computed in float64. Lanczos quadrature of three or more steps has these moments exactly, so the
    comparison does not depend on the choice of probes.
    """
    rows = []
    for column in probes.astype(np.float64).T:
        v = column / np.linalg.norm(column)
        Hv = net.hvp(v)
        HHv = net.hvp(Hv)
        rows.append([1.0, v @ Hv, Hv @ Hv, Hv @ HHv, HHv @ HHv])
    return np.mean(rows, axis=0)

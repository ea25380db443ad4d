"""Densities of H, 10 probes of 80 steps each: one process an implementation, in turns."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from bench.backends.implementation import PROBES, STEPS, Seen
from bench.backends.implementations import OURS, Entry
from bench.backends.reference import DenseNet
from bench.harness import machine_load
from bench.harness.process import Worker, WorkerError
from bench.harness.server import Prepared
from bench.harness.timing import Turn, interleave
from bench.measurements.measure import Plan, Progress, enter, start
from bench.measurements.problems import Problem
from bench.results.record import DensityRecord, Result

# Of the moments. Rounding of nodes, of 10⁻⁷ of the largest, bears on the mean of a spectrum that
# is mostly near zero a thousand times more.
AGREEMENT = 1e-2


def measure(
    problem: Problem, peers: Sequence[Entry], plan: Plan, progress: Progress
) -> DensityRecord:
    """The time of a density where the products are built already, ours beside its products alone.

    The problem is a dense net: moments are checked by hand.
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
                prepared, seen, probes = worker.ask("density")
            except WorkerError as error:
                found.results[name] = Result("failed", note=str(error))
                continue
            found.results[name] = judged(prepared, moments(seen), moments_by_hand(net, probes))
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


def judged(prepared: Prepared, found: np.ndarray, by_hand: np.ndarray) -> Result:
    """Wrong is who misses a moment; who works only when it is mended has failed, though timed."""
    result = Result("ok", form=prepared.form)
    gaps = np.abs(found - by_hand) / np.abs(by_hand)
    result.error = float(gaps.max()) if np.isfinite(gaps).all() else float("inf")
    if result.error > AGREEMENT:
        result.status, result.note = "wrong", "a moment is missed"
    elif prepared.refused:
        result.status, result.note = "failed", "; ".join(prepared.refused.values())
    return result


def moments(seen: Seen) -> np.ndarray:
    """The mean powers 0 to 4 of what was seen, without what bells add.

    For x + σg, with g standard normal, they are m₁, m₂ + σ², m₃ + 3σ²m₁ and m₄ + 6σ²m₂ + 3σ⁴.
    """
    masses = seen.masses.astype(np.float64)
    m0, m1, m2, m3, m4 = (float(masses @ seen.places.astype(np.float64) ** k) for k in range(5))
    bell = seen.width**2
    m2 -= bell * m0
    return np.array([m0, m1, m2, m3 - 3 * bell * m1, m4 - 6 * bell * m2 - 3 * bell**2 * m0])


def moments_by_hand(net: DenseNet, probes: np.ndarray) -> np.ndarray:
    """The mean over the probes (P, S), of length one, of vᵀHᵏv for k from 0 to 4, in float64.

    Gauss quadrature of two steps or more has them exactly. So it does not matter that probes
    differ, whose noise is some per cent of the trace.
    """
    rows = []
    for column in probes.astype(np.float64).T:
        v = column / np.linalg.norm(column)
        Hv = net.hvp(v)
        HHv = net.hvp(Hv)
        rows.append([1.0, v @ Hv, Hv @ Hv, Hv @ HHv, HHv @ HHv])
    return np.mean(rows, axis=0)

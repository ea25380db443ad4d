"""Time the ten largest eigenvalues of H and of G on 5,000 digits, end to end.

Each run has a new process.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.backends.implementation import LARGEST, PRODUCTS, TOLERANCE
from bench.backends.implementations import OURS, Entry
from bench.backends.reference import DenseNet
from bench.measurements.problems import EIGENVALUES
from bench.results.record import Measurement, Result, SpectraRecord, Spectrum
from hvp.benchmark import machine_load
from hvp.benchmark.measure import Plan, Progress, enter
from hvp.benchmark.process import WorkerError
from hvp.benchmark.timing import Turn, interleave

# matfree needs the number of Lanczos steps: the smallest of these that reaches the tolerance.
STEPS = (*range(15, 60, 5), 60, 80, 100, 140, 200)
NORM_STEPS = 30


def measure(peers: Sequence[Entry], plan: Plan, progress: Progress) -> SpectraRecord:
    """The time from the end of the imports to the eigenvectors, and their true errors."""
    entries = [OURS, *(peer for peer in peers if peer.has_largest)]
    net = DenseNet(EIGENVALUES)
    record = SpectraRecord(EIGENVALUES.title)
    for figure in PRODUCTS:
        checker = Checker(net, figure)
        record.norms[figure] = checker.norm
        record.figures[figure] = _figure(figure, entries, checker, plan, progress)
    return record


class Checker:
    """Computes true errors with the float64 product in NumPy.

    Attributes:
        norm: ‖A‖, by power iteration.
    """

    def __init__(self, net: DenseNet, figure: str):
        self._product = net.hvp if figure == "hvp" else net.gnvp
        v = np.random.default_rng(0).standard_normal(net.gradient.size)
        for _ in range(NORM_STEPS):
            v = self._product(v / np.linalg.norm(v))
        self.norm = float(np.linalg.norm(v))

    def check(self, vectors: np.ndarray) -> tuple[np.ndarray, float]:
        """The Rayleigh quotients, ascending, and the largest ‖Av - λv‖ / ‖A‖."""
        values, errors = [], []
        for column in vectors.T.astype(np.float64):
            v = column / np.linalg.norm(column)
            product = self._product(v)
            values.append(v @ product)
            errors.append(np.linalg.norm(product - values[-1] * v))
        return np.sort(values), float(max(errors)) / self.norm


def _figure(
    figure: str, entries: Sequence[Entry], checker: Checker, plan: Plan, progress: Progress
) -> Measurement:
    found = Measurement()
    turns: dict[str, Turn] = {}
    for entry in entries:
        progress(f"{EIGENVALUES.title}: {LARGEST} eigenvalues, {figure}, {entry.title}")
        reason = entry.missing()
        if reason is not None:
            found.results[entry.name] = Result("missing", note=reason)
            continue
        try:
            found.results[entry.name], steps = _checked(entry, figure, checker)
        except WorkerError as error:
            found.results[entry.name] = Result("failed", note=str(error))
            continue
        turns[entry.name] = _turn(entry, figure, steps)
    judge(found)
    if OURS.name in turns:
        progress(f"{EIGENVALUES.title}: {LARGEST} eigenvalues, {figure}, in turns")
        ours = turns.pop(OURS.name)
        before = machine_load.usage([])
        timed = interleave(ours, turns, plan.repeats)
        found.others_load = machine_load.of_others(before, machine_load.usage([]))
        enter(found, figure, timed)
    return found


def _checked(entry: Entry, figure: str, checker: Checker) -> tuple[Spectrum, int | None]:
    """A run that is not timed: its errors, and for matfree the number of steps that suffices."""
    spectrum = Spectrum("failed")
    for steps in STEPS if entry.name == "matfree" else (None,):
        values, error = checker.check(_run(entry, figure, steps)[1])
        form = "" if steps is None else f"{steps} steps"
        spectrum = Spectrum("ok", error=error, form=form, values=values.tolist())
        if error <= TOLERANCE:
            return spectrum, steps
    return spectrum, steps


def _turn(entry: Entry, figure: str, steps: int | None) -> Turn:
    return lambda: _run(entry, figure, steps)[0]


def _run(entry: Entry, figure: str, steps: int | None) -> tuple[float, np.ndarray]:
    with entry.worker() as worker:
        worker.wait_until_ready()
        return worker.ask("largest", EIGENVALUES.name, figure, steps)


def judge(found: Measurement) -> None:
    """Mark spectra as wrong that miss the tolerance, or an eigenvalue that another one has."""
    spectra = {n: r for n, r in found.results.items() if isinstance(r, Spectrum)}
    if not spectra:
        return
    # The i-th largest value found is never above the i-th largest eigenvalue.
    best = np.max([spectrum.values for spectrum in spectra.values()], axis=0)
    margin = 2 * TOLERANCE * float(np.abs(best).max())
    for spectrum in spectra.values():
        assert spectrum.error is not None
        if spectrum.error > TOLERANCE:
            spectrum.status, spectrum.note = "wrong", "the tolerance is missed"
        elif (best - spectrum.values > margin).any():
            spectrum.status, spectrum.note = "wrong", "an eigenvalue is missed"

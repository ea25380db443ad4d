"""The targets of the benchmark, and whether a run meets them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bench.backends.implementations import NAIVE, OURS, PEERS
from bench.results.record import Measurement, Result, Run


@dataclass(frozen=True)
class Target:
    """A bound on one figure of one problem.

    Attributes:
        against: the unit of the bound: limit, gradient, empty, single, products, "fastest peer",
            the name of an implementation, "seconds" or "vectors".
        strict: whether a value equal to the bound misses the target.
    """

    problem: str
    figure: str
    against: str
    bound: float
    strict: bool = False


@dataclass(frozen=True)
class Verdict:
    """A target and the measured value; both `value` and `met` are None if it is not known."""

    target: Target
    value: float | None
    met: bool | None
    note: str = ""


SPECTRA = "spectra"
DENSITY = "density"
SMALL = ("small-1", "small-256")
LIMITED = ("wide", "dense-4096", "dense-8192")
ALL = (*SMALL, "wide", "convnet", "transformer", "dense-4096", "dense-8192")


def _targets() -> tuple[Target, ...]:
    found = [Target(name, kind, "limit", 1.25) for name in LIMITED for kind in ("hvp", "gnvp")]
    gradients = {"wide": (1.75, 1.3), "convnet": (1.7, 1.2), "transformer": (2.2, 1.5)}
    for name, bounds in gradients.items():
        for kind, bound in zip(("hvp", "gnvp"), bounds, strict=True):
            found.append(Target(name, kind, "gradient", bound))
    for kind in ("hvp", "gnvp"):
        found.append(Target("small-1", kind, "empty", 2.0))
        found.append(Target("small-1", f"{kind}_block", "fastest peer", 1.0, strict=True))
        found += [
            Target(name, kind, "fastest peer", 1.0, strict=True)
            for name in ALL
            if name != "small-1"
        ]
        found += [Target(name, kind, NAIVE.name, 0.6) for name in ALL]
        found += [Target(name, f"{kind}_block", "single", 0.25) for name in SMALL]
    firsts = {"small-1": 2.5, "small-256": 2.5, "convnet": 12.0, "transformer": 12.0}
    found += [Target(name, "first", "seconds", bound) for name, bound in firsts.items()]
    found += [Target("dense-8192", kind, "vectors", 6.0) for kind in ("hvp", "gnvp")]
    found.append(Target("dense-8192", "eigsh", "vectors", 32.0))
    found.append(Target(SPECTRA, "hvp", "fastest peer", 1.0, strict=True))
    found.append(Target(SPECTRA, "hvp", "curvlinops", 0.5))
    densities = {"products": 1.15, "curvlinops": 0.5, "pyhessian": 0.25}
    found += [Target(DENSITY, "density", against, bound) for against, bound in densities.items()]
    return tuple(found)


TARGETS = _targets()


def verdicts(run: Run) -> list[Verdict]:
    """One verdict for each target whose problem was run."""
    names = set(run.problems)
    names |= {SPECTRA} if run.spectra is not None else set()
    names |= {DENSITY} if run.density is not None else set()
    return [_verdict(target, run) for target in TARGETS if target.problem in names]


def as_rows(found: list[Verdict]) -> list[dict[str, Any]]:
    """The verdicts as plain data for the JSON file."""
    return [{**asdict(verdict.target), **_without_target(verdict)} for verdict in found]


def _without_target(verdict: Verdict) -> dict[str, Any]:
    return {"value": verdict.value, "met": verdict.met, "note": verdict.note}


def _verdict(target: Target, run: Run) -> Verdict:
    value, note = _value(target, run)
    if value is None:
        return Verdict(target, None, None, note or "not measured")
    met = value < target.bound if target.strict else value <= target.bound
    if met and _has_failed(target, run):  # only its repaired form was timed
        return Verdict(target, value, None, note)
    if met and target.against == "fastest peer":
        unmeasured = _unmeasured(target, run)
        if unmeasured:  # a peer without a time may be faster
            return Verdict(target, value, None, f"{note}; without {', '.join(unmeasured)}")
    return Verdict(target, value, met, note)


def _has_failed(target: Target, run: Run) -> bool:
    if run.density is None or target.problem != DENSITY:
        return False
    other = run.density.figure.results.get(target.against)
    return other is not None and other.status == "failed"


def _best_turns(figure: Measurement, ours: Result, bound: float) -> str:
    """A remark if the ratio of best turns misses the bound, with the worst such peer."""
    ratios = {
        name: ours.best / result.best
        for name, result in figure.results.items()
        if result.status == "ok" and result is not ours and result.best and ours.best
    }
    missed = {name: ratio for name, ratio in ratios.items() if ratio >= bound}
    if not missed:
        return ""
    name = max(missed, key=lambda name: missed[name])
    return f"; best turns {missed[name]:.2f} ({name})"


def _unmeasured(target: Target, run: Run) -> list[str]:
    """The peers that are missing or have failed."""
    if target.problem == SPECTRA:
        assert run.spectra is not None
        results = run.spectra.figures[target.figure].results
        names = [peer.name for peer in PEERS.values() if peer.has_largest]
    else:
        results = run.problems[target.problem].figures[target.figure].results
        names = [peer.name for peer in PEERS.values() if peer.has_products]
    absent = ("missing", "failed")
    return [name for name in names if name not in results or results[name].status in absent]


def _value(target: Target, run: Run) -> tuple[float | None, str]:
    """The measured value, and a remark."""
    if target.problem == SPECTRA:
        assert run.spectra is not None
        return _of_figure(target, run.spectra.figures.get(target.figure))
    if target.problem == DENSITY:
        assert run.density is not None
        return _of_figure(target, run.density.figure)
    problem = run.problems[target.problem]
    if target.against == "seconds":
        return problem.first.get(OURS.name), ""
    if target.against == "vectors":
        return problem.vectors(target.figure, OURS.name), ""
    return _of_figure(target, problem.figures.get(target.figure))


def _of_figure(target: Target, figure: Measurement | None) -> tuple[float | None, str]:
    if figure is None:
        return None, ""
    ours = figure.results.get(OURS.name)
    if ours is None or ours.status != "ok":
        return None, f"ours {ours.status}: {ours.note}" if ours is not None else ""
    if target.against in figure.units:
        return figure.units[target.against], ""
    if target.against == "fastest peer":
        fastest = figure.fastest
        if fastest is None:
            return None, "no peer"
        return figure.results[fastest].ratio, f"{fastest}{_best_turns(figure, ours, target.bound)}"
    other = figure.results.get(target.against)
    if other is None or other.ratio is None:
        return None, other.note if other is not None else ""
    return other.ratio, _remark(other)


def _remark(other: Result) -> str:
    match other.status:
        case "ok":
            return ""
        case "failed":
            return f"which failed; timed with {other.form.rpartition('; ')[2]}"
    return f"which is {other.status}"

"""Which targets are met."""

import dataclasses

import numpy as np
import pytest
from support.bench_records import a_run, figure, verdict

from bench.backends.implementation import PROBES, STEPS
from bench.backends.implementations import NAIVE, OURS, PEERS
from bench.measurements import targets
from bench.results import record
from bench.results.record import (
    CaseRecord,
    DensityRecord,
    Result,
    Run,
)
from hvp.benchmark import measure


def test_ours_has_nothing_to_say_where_it_is_wrong():
    found = figure(a=Result("ok", seconds=2.0, ratio=0.5))
    measure.judge_ours(found, np.ones((3, 1)), 2 * np.ones((3, 1)))
    run = a_run(CaseRecord("wide", 3, 1, {}, figures={"hvp": found}))
    assert all(v.met is None for v in targets.verdicts(run) if v.target.figure == "hvp")


@pytest.mark.parametrize(("ratio", "met"), [(0.5, None), (1.5, False)])
def test_a_missing_peer_is_never_beaten(ratio, met):
    results = {name: Result("missing") for name, peer in PEERS.items() if peer.has_products}
    found = figure(**{NAIVE.name: Result("ok", seconds=1.0, ratio=ratio)}, **results)
    run = a_run(CaseRecord("wide", 3, 1, {}, figures={"hvp": found}))
    against_all = verdict(run, figure="hvp", against="fastest peer")
    assert against_all.met is met
    assert met is False or "without pytorch" in against_all.note
    assert verdict(run, figure="hvp", against=NAIVE.name).value == ratio


def test_all_peers_beaten_is_met():
    names = [NAIVE.name, *(name for name, peer in PEERS.items() if peer.has_products)]
    found = figure(**{name: Result("ok", seconds=1.0, ratio=0.9) for name in names})
    found.units = {"limit": 1.3, "gradient": 1.7}
    run = a_run(CaseRecord("wide", 3, 1, {}, figures={"hvp": found}))
    assert verdict(run, figure="hvp", against="fastest peer").met is True
    assert verdict(run, figure="hvp", against="limit").met is False
    assert verdict(run, figure="hvp", against="gradient").met is True


def test_a_peer_that_stalls_is_named_where_its_best_turn_is_ahead():
    names = [NAIVE.name, *(name for name, peer in PEERS.items() if peer.has_products)]
    found = figure(**{name: Result("ok", seconds=5.0, ratio=0.2, best=4.0) for name in names})
    found.results[OURS.name].best = 1.0
    stalling = found.results["jax-linearize"]
    stalling.best = 0.8
    assert stalling.is_unsteady
    run = a_run(CaseRecord("wide", 3, 1, {}, figures={"hvp": found}))
    judged = verdict(run, figure="hvp", against="fastest peer")
    assert judged.value == 0.2
    assert judged.note.endswith("best turns 1.25 (jax-linearize)")


@pytest.mark.parametrize(("ratio", "met"), [(0.1, None), (0.5, False)])
def test_a_density_that_has_failed_is_never_beaten(ratio, met):
    mended = Result("failed", seconds=1.0, ratio=ratio, form="nodes; torch.eig put back")
    found = figure(pyhessian=mended, curvlinops=Result("missing", note="not installed"))
    found.units = {"products": 1.1}
    run = dataclasses.replace(
        Run("2026-01-01", record.machine(), {}, {}, {}),
        density=DensityRecord("digits", PROBES, STEPS, found),
    )
    judged = verdict(run, against="pyhessian")
    assert (judged.value, judged.met) == (ratio, met)
    assert judged.note == "which failed; timed with torch.eig put back"
    missing = verdict(run, against="curvlinops")
    assert (missing.value, missing.met, missing.note) == (None, None, "not installed")
    assert verdict(run, against="products").met is True

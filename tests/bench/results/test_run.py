"""A whole run of a tiny problem without peers: its JSON, tables and plot."""

import dataclasses
import functools
import json
import os

import pytest
from rich.console import Console
from support import multiply_adds
from support.bench_records import ABSENT, a_run, figure

from bench.backends.implementations import NAIVE, OURS
from bench.backends.reference import by_hand
from bench.measurements import densities, problems, targets
from bench.results import plot, record, report
from bench.results.record import (
    Result,
    Run,
    SpectraRecord,
    Spectrum,
)
from hvp.benchmark import entries as entry_table
from hvp.benchmark import measure

pytestmark = pytest.mark.sweep

DENSE = problems.TINY["tiny-dense"]


@pytest.fixture(scope="module")
def run():
    reference = functools.partial(by_hand, DENSE)
    entries = [OURS, NAIVE, ABSENT]
    problem = measure.measure(DENSE, entries, measure.SMALLEST, lambda _: None, reference=reference)
    versions = entry_table.versions([])
    return dataclasses.replace(a_run(problem, DENSE.name), versions=versions)


def test_ours_and_naive_tensorflow_are_timed_and_confirmed_by_hand(run):
    for kind in ("hvp", "gnvp", "hvp_block", "gnvp_block"):
        found = run.problems[DENSE.name].figures[kind]
        assert found.confirmed_by == [NAIVE.name, "by hand"]
        assert found.results[OURS.name].seconds > 0
        assert found.results[NAIVE.name].ratio > 0
        assert found.rounds == 3


def test_the_units_are_there(run):
    problem = run.problems[DENSE.name]
    assert set(problem.figures["hvp"].units) == {"gradient", "empty", "limit"}
    assert set(problem.figures["hvp_block"].units) == {"single"}
    assert problem.first[OURS.name] > 0
    assert problem.memory["hvp"][OURS.name] >= 0
    assert problem.speed > 0


def test_who_is_not_installed_is_missing(run):
    for found in run.problems[DENSE.name].figures.values():
        assert found.results["pytorch"].status == "missing"
        assert found.results["pytorch"].note == "no-such-dist not installed"
        assert found.fastest in (NAIVE.name, None)


def test_the_json_holds_what_was_found(run, tmp_path):
    run.save(tmp_path / "bench.json")
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["schema"] == record.SCHEMA
    assert set(content) == {"schema"} | {field.name for field in dataclasses.fields(Run)}
    problem = content["problems"][DENSE.name]
    assert problem["parameters"] == DENSE.size
    assert problem["multiply_adds"] == vars(multiply_adds.by_hand(DENSE))
    result = problem["figures"]["hvp"]["results"][NAIVE.name]
    assert set(result) == {field.name for field in dataclasses.fields(Result)}
    assert result["error"] < 1e-5
    assert content["versions"]["tensorflow"].startswith("2.")


@pytest.fixture(scope="module")
def density():
    return densities.measure(DENSE, [ABSENT], measure.SMALLEST, lambda _: None)


def test_our_density_is_confirmed_by_hand_and_timed_beside_its_products(density):
    ours = density.figure.results[OURS.name]
    assert ours.status == "ok"
    assert ours.error < 1e-5
    assert ours.seconds > 0
    assert set(density.figure.units) == {"products"}
    assert density.figure.rounds == measure.SMALLEST.repeats
    assert density.first[OURS.name] > ours.seconds
    absent = density.figure.results["pytorch"]
    assert (absent.status, absent.note) == ("missing", "no-such-dist not installed")
    assert (density.probes, density.steps) == (10, 80)


def test_the_picture_and_the_tables_are_made(run, density, tmp_path):
    plot.save(run, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    console = Console(record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    found = figure(matfree=Spectrum("wrong", 1.0, 2.0, 0.1, note="the tolerance is missed"))
    whole = dataclasses.replace(
        run, spectra=SpectraRecord("digits", figures={"hvp": found}), density=density
    )
    report.show(whole, targets.verdicts(whole), console)
    text = console.export_text()
    for word in (
        "tiny dense net",
        "missing",
        "confirmed by tensorflow, by hand",
        "tolerance",
        "of its products alone",
        "Gaussian probes in one block",
    ):
        assert word in text

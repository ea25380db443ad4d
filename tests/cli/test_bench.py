"""`hvp bench`: what is refused, and a run that is interrupted or ends."""

import json

import pytest
from typer.testing import CliRunner

from hvp.benchmark import measure
from hvp.benchmark.records import Measurement, Result
from hvp.cli import benchmarking
from hvp.cli.commands import app


def run(*arguments):
    return CliRunner().invoke(app, ("bench", *arguments))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "expected --model with --data, or --dense,"),
        (("--dense", "8"), "expected --dense with sizes such as 8192x8192, got '8'"),
        (("--model", "none.keras"), "expected --model with --data, got --model alone"),
        (("--loss", "mse", "--dense", "8x8"), "expected --model with --loss"),
        (("--dense", "8x8", "--jit", "maybe"), "expected --jit auto or on or off"),
        (("--dense", "8x8", "--threads", "100000"), "expected --threads from 1 to"),
        (("--dense", "8x8", "--batch", "0"), "expected --batch of at least 1"),
        (("--model", "none.keras", "--data", "none.npz"), "none.keras"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments, line):
    ended = run(*arguments)
    assert ended.exit_code == 2
    assert line in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_what_is_named_twice_is_measured_once():
    layers = {"dense": ["8x4", "8x4", "8x2"], "lstm": None}
    found = benchmarking.cases(layers, None, None, None, batch=None, jit="auto", seed=0)
    assert [case.sizes for case in found] == [(8, 4), (8, 2)]


@pytest.fixture
def measured(monkeypatch):
    """A measurement that takes no time, and ends as the second case says."""
    ends = []

    def fake(case, entries, plan, progress, *, record, threads):
        progress(f"{case.title}: starting")
        if len(ends) == 1:
            raise ends[0]
        record.parameters, record.batch = 9, case.batch
        result = Result("ok", seconds=0.5) if not ends else Result("wrong", note="it differs")
        record.figures["hvp"] = Measurement({"hvp": result})
        return record

    monkeypatch.setattr(measure, "measure", fake)
    return ends


def test_results_are_written(measured, tmp_path):
    ended = run("--dense", "2x2", "--lstm", "2x2x2", "--quick", "--out", str(tmp_path / "out"))
    assert ended.exit_code == 0, ended.stderr
    assert "dense 2 × 2" in ended.stdout
    content = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert list(content["problems"]) == ["dense-2x2-batch-128", "lstm-2x2x2-batch-128"]
    assert content["is_complete"]
    assert content["settings"]["jit"] == "auto"
    assert (tmp_path / "out" / "bench.png").stat().st_size > 5_000


def test_an_interruption_keeps_what_is_measured(measured, tmp_path, monkeypatch):
    done = []

    def interrupted(case, *args, record, **options):
        if done:
            raise KeyboardInterrupt
        done.append(case)
        record.figures["hvp"] = Measurement({"hvp": Result("ok", seconds=0.5)})

    monkeypatch.setattr(measure, "measure", interrupted)
    ended = run("--dense", "2x2", "--dense", "3x3", "--out", str(tmp_path))
    assert ended.exit_code == 130
    content = json.loads((tmp_path / "bench.json").read_text())
    assert not content["is_complete"]
    assert content["problems"]["dense-2x2-batch-128"]["figures"]


def test_an_interruption_before_anything_is_measured_leaves_no_file(measured, tmp_path):
    measured.append(KeyboardInterrupt())
    ended = run("--dense", "2x2", "--out", str(tmp_path / "out"))
    assert ended.exit_code == 130
    assert not (tmp_path / "out").exists()


def test_a_wrong_product_is_exit_code_1(measured, tmp_path):
    measured += [None, None]
    ended = run("--dense", "2x2", "--out", str(tmp_path))
    assert ended.exit_code == 1
    assert "dense 2 × 2, batch 128, Hv: wrong: it differs" in ended.stderr


def test_what_python_would_do_is_said_in_options(tmp_path, monkeypatch):
    def refused(case, *args, record, **options):
        note = "InputError: no loops; leave jit out, or set it to False"
        record.figures["hvp"] = Measurement({"hvp": Result("failed", note=note)})

    monkeypatch.setattr(measure, "measure", refused)
    ended = run("--dense", "2x2", "--out", str(tmp_path))
    assert ended.exit_code == 1
    assert "no loops; leave --jit out, or give --jit off" in ended.stderr
    assert "no loops; leave --jit out, or give --jit off" in " ".join(ended.stdout.split())

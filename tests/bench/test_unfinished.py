"""A study or a benchmark that ends early goes on with the part that it was at."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from bench import __main__ as benchmark
from bench import command_line
from bench.measurements import problems
from bench.studies import study


def test_work_by_other_sources_is_not_used(tmp_path, monkeypatch, capsys):
    def run(value):
        with command_line.unfinished(tmp_path / "a.md", {}, (), is_fresh=False) as journal:
            with study.kept_in(journal):
                found = study.kept("part", lambda: value)
            if value == 1:
                raise KeyboardInterrupt
            return found

    for expected in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run(1)
        if expected == 2:
            monkeypatch.setattr(command_line, "_sources", lambda: "others")
        assert run(2) == expected
    assert "not used" in capsys.readouterr().err
    assert study.kept("part", lambda: np.pi) == np.pi


def test_an_interrupted_benchmark_writes_what_it_has_and_goes_on(tmp_path, monkeypatch):
    names = [*problems.TINY][:2]
    measured = []

    def measure(problem, entries, plan, progress, *, record, reference):
        measured.append(problem.name)
        record.parameters = len(measured)
        if len(measured) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(benchmark.measure, "measure", measure)
    monkeypatch.setattr(benchmark.targets, "verdicts", lambda run: [])
    monkeypatch.setattr(benchmark.plot, "save", lambda run, path: None)
    monkeypatch.setattr(benchmark.report, "show", lambda run, verdicts, console: None)
    path = tmp_path / "bench.json"
    places = ("--json", str(path), "--picture", str(tmp_path / "bench.png"))
    command = [*(word for name in names for word in ("--problem", name)), "--peers", "none"]

    first = CliRunner().invoke(benchmark.app, [*command, *places])
    assert first.exit_code == 130
    assert "the same command goes on" in first.stderr
    found = json.loads(path.read_text())
    assert not found["is_complete"]
    assert found["problems"][names[0]]["parameters"] == 1

    second = CliRunner().invoke(benchmark.app, [*command, *places])
    assert second.exit_code == 0, second.output
    assert measured == [*names, names[1]]
    found = json.loads(path.read_text())
    assert found["is_complete"]
    assert [found["problems"][name]["parameters"] for name in names] == [1, 3]
    assert not path.with_suffix(".journal").exists()

    third = CliRunner().invoke(benchmark.app, [*command, *places])
    assert third.exit_code == 0
    assert measured[3:] == names

"""Commands that are killed and repeated: the same results, and nothing is computed twice."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from support.command_line import network
from typer.testing import CliRunner

import hvp.report.matplotlib_figure
import hvp.report.terminal
from hvp.cli import commands
from hvp.comparison import costs, limits
from hvp.resuming.journal import Journal

COMPARE = (
    "compare",
    "net.keras",
    "--data",
    "data.npz",
    "-k",
    "2",
    "--steps",
    "4",
    "--layers",
    "last",
)
pytestmark = pytest.mark.sweep
TRACK = ("track", "--model", "net.keras", "--data", "data.npz", "--weights", "run")
KINDS = {"compare": ("html", "json", "npz", "png", "svg"), "track": ("json", "png", "svg")}


class KilledError(BaseException):
    """The end of the process, which no command catches."""


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch):
    monkeypatch.setattr(hvp.report.matplotlib_figure, "DPI", 40)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model, its data and two checkpoints."""
    here = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((12, 4)).astype(np.float32), rng.integers(0, 3, 12)
    np.savez(here / "data.npz", x=x, y=y)
    np.savez(here / "other.npz", x=2 * x, y=y)
    net = network()
    net.save(here / "net.keras")
    (here / "run").mkdir()
    for epoch in (1, 2):
        net.fit(x, y, verbose=0)
        net.save_weights(here / f"run/epoch-{epoch}.weights.h5")
    return here


@pytest.fixture
def out(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs)
    return tmp_path / "out"


def run(command, out, *more):
    return CliRunner().invoke(commands.app, [*command, "--out", str(out), *more])


def run_until(command, out, most, monkeypatch, *more):
    """Run a command that dies after its journal has got so many records; how many it got."""
    count, keep = 0, Journal._keep

    def keep_or_die(*arguments):
        nonlocal count
        keep(*arguments)
        count += 1
        if count == most:
            raise KilledError

    with monkeypatch.context() as dying:
        dying.setattr(Journal, "_keep", keep_or_die)
        if most is None:
            result = run(command, out, *more)
            assert result.exit_code == 0, result.output
        else:
            with pytest.raises(KilledError):
                CliRunner().invoke(
                    commands.app, [*command, "--out", str(out), *more], catch_exceptions=False
                )
    return count


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if key != "seconds"}
    return list(map(without_times, value)) if isinstance(value, list) else value


def document(command, out):
    return without_times(json.loads((out / f"{command[0]}.json").read_text()))


def names(out):
    return sorted(path.name for path in out.iterdir())


@pytest.mark.parametrize("command", [COMPARE, TRACK], ids=["compare", "track"])
def test_a_command_that_dies_goes_on_and_writes_the_same_document(
    command, out, tmp_path, monkeypatch
):
    whole = tmp_path / "whole"
    needed = run_until(command, whole, None, monkeypatch)
    results = [f"{command[0]}.{kind}" for kind in KINDS[command[0]]]
    assert names(whole) == results
    # Lives of different lengths, of which the first ends within the first stage.
    lives = [6, needed // 3, needed // 5]
    for most in lives:
        run_until(command, out, most, monkeypatch)
        assert names(out) == [f"{command[0]}.journal"]
    count, keep = 0, Journal._keep

    def counting(*arguments):
        nonlocal count
        count += 1
        keep(*arguments)

    monkeypatch.setattr(Journal, "_keep", counting)
    result = run(command, out)
    assert result.exit_code == 0
    (line,) = (line for line in result.stdout.splitlines() if "going on" in line)
    assert line.startswith("net: going on with unfinished work: ")
    assert count == needed - sum(lives)
    assert document(command, out) == document(command, whole)
    assert names(out) == results


def test_work_with_other_options_data_or_weights_is_said_and_not_used(out, tmp_path, monkeypatch):
    expected = {
        "of other -k": (*COMPARE, "-k", "1"),
        "of other data": (*COMPARE, "--data", "other.npz"),
        "": (*COMPARE, "--fresh"),
    }
    command = (*COMPARE, "--parts", "ends")
    for words, other in expected.items():
        run_until(command, out, 12, monkeypatch)
        again = (*other, "--parts", "ends")
        result = run(again, out)
        assert result.exit_code == 0
        lines = [line for line in result.stdout.splitlines() if "unfinished work" in line]
        assert len(lines) == bool(words)
        assert all("is not used" in line and words in line for line in lines)
        whole = tmp_path / "whole"
        assert run(again, whole).exit_code == 0
        assert document(command, out) == document(command, whole)


def test_bad_input_and_another_process_leave_unfinished_work_as_it_is(out, monkeypatch):
    run_until(COMPARE, out, 12, monkeypatch)
    content = (out / "compare.journal").read_bytes()
    assert run((*COMPARE, "--data", "none.npz", "--fresh"), out).exit_code == 2
    assert (out / "compare.journal").read_bytes() == content
    connection = sqlite3.connect(out / "compare.journal", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    result = run(COMPARE, out)
    connection.close()
    assert result.exit_code == 2
    assert "which another process has open; wait for it to end" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (out / "compare.journal").read_bytes() == content


def test_what_was_chosen_by_measured_times_stays_chosen(out, monkeypatch):
    command = (*COMPARE, "--parts", "ends")
    run_until(command, out, 12, monkeypatch)
    for module, name in ((costs, "measured_costs"), (limits, "fit")):
        monkeypatch.setattr(module, name, lambda *given: pytest.fail("chosen again"))
    assert run(command, out).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", [COMPARE, TRACK], ids=["compare", "track"])
def test_a_process_killed_at_random_moments_goes_on(command, inputs, out, tmp_path):
    words = (sys.executable, "-m", "hvp", *command, "--quiet", "--out")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    begun = time.monotonic()
    subprocess.run((*words, tmp_path / "whole"), env=environment, check=True)
    seconds, rng = time.monotonic() - begun, random.Random(0)
    for _ in range(8):
        process = subprocess.Popen((*words, out), env=environment)
        time.sleep(rng.uniform(0.3, 0.9) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        results = set(names(out)) if out.exists() else set()
        assert f"{command[0]}.json" not in results or not any("journal" in r for r in results)
    subprocess.run((*words, out), env=environment, check=True)
    assert document(command, out) == document(command, tmp_path / "whole")

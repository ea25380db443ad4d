"""The command line of the benchmark."""

import functools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hvp
from bench.__main__ import END_TO_END, app
from bench.backends.implementations import PEERS
from bench.measurements import problems

ROOT = Path(__file__).parents[2]
# The public package of callbacks, the harness and the journal.
SHARED = {"benchmark", "callbacks", "resuming"}
# What measures parts of hvp by themselves.
INSIDE = {"cluster.py": ("cluster", "linearization")}
DENSE = problems.TINY["tiny-dense"]


def command(*arguments):
    return subprocess.run(
        (sys.executable, "-m", "bench", *arguments),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "400"},
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--problem", "nonsense"), "expected a --problem among small-1,"),
        (("--peers", "pytorch,caffe"), "got 'caffe'"),
        (("--against", "bench"), "expected a checkout of hvp"),
        (("--json", "pyproject.toml/a.json"), "expected a file to write"),
    ],
)
def test_what_cannot_be_run_is_reported_in_one_line(arguments, line):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("bench: expected ")
    assert line in result.stderr
    assert result.stderr.count("\n") == 1
    assert not result.stdout


def test_an_interrupt_ends_the_run_and_its_workers(tmp_path):
    places = ("--json", str(tmp_path / "a.json"), "--picture", str(tmp_path / "a.png"))
    running = subprocess.Popen(
        (sys.executable, "-m", "bench", "--problem", DENSE.name, "--peers", "none", *places),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A shell's jobs in the background ignore interrupts, and so would what they start.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    while running.poll() is None and not (workers := children.read_text().split()):
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert errors.strip().splitlines()[-1] == "bench: interrupted"
    # A worker that had just started ends by itself when its input is closed.
    deadline = time.monotonic() + 60
    while [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_help_names_every_problem_and_peer():
    shown = command("--help").stdout
    assert not [n for n in (*problems.PROBLEMS, *PEERS, *END_TO_END) if n not in shown]


def test_only_the_public_face_of_hvp_is_used():
    for path in (ROOT / "bench").rglob("*.py"):
        modules = re.findall(r"^from hvp\.(\w+)", path.read_text(), re.MULTILINE)
        assert set(modules) <= {*SHARED, *INSIDE.get(path.name, ())}
    assert issubclass(hvp.InputError, ValueError)

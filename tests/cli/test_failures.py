"""What ends the work early: interruptions, full disks, no convergence."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from support.command_line import KINDS, compare, document, environment, files, run

import hvp.report.matplotlib_figure
import hvp.report.terminal
from hvp import ConvergenceError
from hvp.cli import linearizing
from hvp.comparison.run import Run

pytestmark = pytest.mark.usefixtures("less_work")


def test_no_convergence_is_one_line_and_exit_code_1(inputs, here, monkeypatch):
    def give_up(*arguments, **options):
        raise ConvergenceError("expected errors up to 1e-9, got 1;\nloosen tol")

    monkeypatch.setattr(Run, "step", give_up)
    result = compare(*inputs, "--out", "out")
    assert result.exit_code == 1
    assert result.stderr == "hvp: expected errors up to 1e-9, got 1; loosen tol\n"
    assert not (here / "out").exists()


def test_a_full_disk_is_one_line_and_leaves_no_results(one_layer, here, monkeypatch):
    def fill(comparison, path, *others):
        path.write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hvp.report.matplotlib_figure, "save_comparison", fill)
    before = files(here)
    result = compare(*one_layer, "-k", 1, "--out", "out")
    assert (result.exit_code, result.stderr) == (1, "hvp: out: No space left on device\n")
    assert files(here) == sorted([*before, "out/compare.journal"])


class Full:
    """A standard output that takes nothing."""

    def __init__(self, original):
        self.original = original

    def write(self, text):
        raise OSError(28, "No space left on device")

    def __getattr__(self, name):
        return getattr(self.original, name)


@pytest.mark.sweep
@pytest.mark.parametrize("command", ["compare", "check"])
def test_results_are_kept_where_standard_output_is_full(one_layer, here, command, monkeypatch):
    original = linearizing.with_batch_size

    def filled(job, options, terminal):
        sys.stdout = Full(sys.stdout)
        terminal.say("a note before the work")
        return original(job, options, terminal)

    monkeypatch.setattr(linearizing, "with_batch_size", filled)
    options = ("-k", "1", "--out", "out") if command == "compare" else ()
    result = run(command, *one_layer, *options)
    line = "hvp: standard output: No space left on device\n"
    assert (result.exit_code, result.stderr) == (1, line)
    assert (command == "compare") == (here / "out/compare.json").is_file()


@pytest.mark.sweep
def test_an_interruption_while_writing_leaves_no_results(one_layer, here, monkeypatch):
    def interrupt(comparison, path, *others):
        path.write_bytes(b"half a picture")
        raise KeyboardInterrupt

    monkeypatch.setattr(hvp.report.matplotlib_figure, "save_comparison", interrupt)
    before = files(here)
    result = compare(*one_layer, "-k", 1, "--out", "out")
    assert (result.exit_code, result.stderr) == (130, "hvp: interrupted\n")
    assert files(here) == sorted([*before, "out/compare.journal"])


# A shell may have started the tests with Ctrl-C ignored, which children inherit.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from hvp.cli import main
main()
"""


@pytest.mark.parametrize(
    ("stage", "number", "code", "word"),
    [
        ("importing TensorFlow", signal.SIGINT, 130, "interrupted"),
        ("relu: training", signal.SIGTERM, 143, "terminated"),
        pytest.param("relu: spectra", signal.SIGINT, 130, "interrupted", marks=pytest.mark.sweep),
    ],
)
def test_a_signal_ends_the_work_and_leaves_no_results(here, stage, number, code, word):
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        (sys.executable, "-c", INTERRUPTIBLE, "compare", "--out", "new/out"),
        stdout=subprocess.PIPE,
        stderr=end,
        env={**environment(), "TERM": "xterm"},
    )
    os.close(end)
    shown = read_until(terminal, stage)
    process.send_signal(number)
    shown += read_until(terminal, None)
    os.close(terminal)
    forecast = process.communicate()[0]
    assert forecast.startswith(b"relu: 24,790" if stage == "relu: spectra" else b"")
    assert process.returncode == code
    assert shown.rstrip().endswith(f"hvp: {word}")
    assert "Traceback" not in shown
    # The journal stays where a product was done before the signal came.
    may_stay = {"new/out/relu/compare.journal"} if stage == "relu: spectra" else set()
    assert set(files(here)) <= may_stay


@pytest.mark.sweep
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_comparison_writes_what_is_finished(inputs, here, number, code):
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        (sys.executable, "-c", INTERRUPTIBLE, "compare", "-k", "2", "--out", "out",
         "--steps", "10000", "--probes", "10000", "--budget", "none"),
        stdout=subprocess.PIPE,
        stderr=end,
        env={**environment(), "TERM": "xterm"},
    )  # fmt: skip
    os.close(end)
    read_until(terminal, "ends of R: λ_max")
    process.send_signal(number)
    read_until(terminal, None)
    os.close(terminal)
    shown = process.communicate()[0].decode()
    assert process.returncode == code
    assert "Interrupted: " in shown
    kinds = sorted([*KINDS, "journal"])
    assert files(here / "out") == [f"relu/compare.{kind}" for kind in kinds]
    found = document(here / "out" / "relu")
    assert "whole network: density of H" in found["unfinished"]
    assert found["parts"]["whole network"]["H"]["density"] is None
    assert found["parts"]["whole network"]["R"]["largest"]["values"][-1] > 0


def read_until(terminal, text, patience=120):
    """What appears on the terminal until `text` does, or until it closes."""
    shown, end = "", time.monotonic() + patience
    while time.monotonic() < end and (text is None or text not in shown):
        if select.select([terminal], [], [], 1)[0]:
            try:
                shown += os.read(terminal, 4096).decode(errors="replace")
            except OSError:  # Linux's word for a closed terminal
                return shown
    assert text is None or text in shown
    return shown


@pytest.mark.sweep
def test_lines_tell_the_progress_where_there_is_no_terminal(one_layer, here, monkeypatch):
    monkeypatch.setattr(hvp.report.terminal, "SECONDS_BETWEEN_LINES", 0.05)
    result = compare(*one_layer, "-k", 1, "--out", "out")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert all(re.match(r"hvp: \d+ s: \w|net: ", line) for line in lines)
    assert any(": net: linearising" in line for line in lines)
    assert any(re.search(r"net: spectra, \d+ of \d+ \(.*, product \d+", line) for line in lines)
    assert compare(*one_layer, "-k", 1, "--out", "out", "-q").stderr == ""

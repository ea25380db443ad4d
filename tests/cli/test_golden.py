"""`hvp check --record` and `--against`."""

import json

import keras
import numpy as np
import pytest
from support.command_line import run

from hvp.certificate.checks import Check
from hvp.cli import process
from hvp.testing import finite_differences


@pytest.fixture(autouse=True)
def all_checks_pass(monkeypatch):
    passed = finite_differences.Report((Check("a check", 0.0, 1.0),))
    monkeypatch.setattr(finite_differences, "check", lambda lin, seed: passed)


def save(seed=0):
    keras.utils.set_random_seed(seed)
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "tanh")])
    net.compile(loss="mse")
    net.save("net.keras")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save()
    rng = np.random.default_rng(1)
    np.savez("data.npz", x=rng.standard_normal((12, 4)), y=rng.standard_normal((12, 2)))
    return tmp_path


def check(*arguments):
    files = ("--model", "net.keras", "--data", "data.npz")
    return run("check", *files, *arguments)


def test_what_is_recorded_is_held_against(here):
    result = check("--record", "golden.json", "--seed", 3)
    assert (result.exit_code, result.stderr) == (0, ""), result.exception
    assert "wrote golden.json" in result.stdout
    assert json.loads((here / "golden.json").read_text(encoding="utf-8"))["seed"] == 3
    result = check("--against", "golden.json")
    assert (result.exit_code, result.stderr) == (0, ""), result.exception
    assert "golden.json: 9 numbers are as recorded" in result.stdout
    save(seed=1)
    result = check("--against", "golden.json", "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("hvp: golden.json: 9 of 9 numbers are not as recorded\n")
    assert result.stderr.splitlines()[1] == "changed: weights"
    assert "Traceback" not in result.stderr


def test_nothing_is_recorded_where_a_check_fails(here, monkeypatch):
    failed = finite_differences.Report((Check("a check", 2.0, 1.0),))
    monkeypatch.setattr(finite_differences, "check", lambda lin, seed: failed)
    result = check("--record", "golden.json")
    assert result.exit_code == 1
    assert result.stderr == "hvp: golden.json is not written, as a check failed\n"
    assert not (here / "golden.json").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--against", "none.json"),
            "expected a golden file of hvp, got no file 'none.json'; check the path, or write it "
            "first",
        ),
        (
            ("--against", "data.npz"),
            "expected a golden file of hvp, got 'data.npz', which is no JSON; write one by "
            "--record",
        ),
        (
            ("--record", "none/golden.json"),
            "expected a file to write, got 'none/golden.json': no directory above it; choose "
            "another path",
        ),
        (
            ("--record", "a.json", "--against", "b.json"),
            "expected one of --record and --against, got both; record first, compare later",
        ),
    ],
)
def test_a_wrong_file_is_one_line_before_any_work(here, monkeypatch, arguments, line):
    monkeypatch.setattr(process, "import_tensorflow", None)
    result = check(*arguments)
    assert (result.exit_code, result.stderr) == (2, f"hvp: {line}\n")

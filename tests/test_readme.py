"""The README is executed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.layer_cases import coverage

README = Path(__file__).parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


def test_the_api_in_about_twenty_lines_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (program,) = blocks("python")
    lines = [line for line in program.splitlines() if line.strip()]
    assert 10 <= len(lines) <= 32
    assert max(map(len, lines)) <= 100
    exec(compile(program, str(README), "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.rglob("compare.*")) == [
        "compare.html",
        "compare.json",
        "compare.png",
        "compare.svg",
    ]


def test_two_commands_do_the_set_up():
    commands = blocks("sh")
    assert len(commands) == 2
    run, test = commands
    assert "hvp compare" in run
    assert "pytest" in test
    for command in commands:
        assert len(command.strip().splitlines()) == 1
        assert "pip install" in command


@pytest.mark.parametrize("number", [0, 1])
def test_the_commands_are_valid_shell(number):
    command = blocks("sh")[number]
    assert subprocess.run(("sh", "-n"), input=command, text=True).returncode == 0


def test_every_file_and_option_it_names_is_there():
    text = README.read_text()
    for path in re.findall(r"`((?:hvp|tests)/[\w./]+)`", text):
        assert (README.parent / path).exists(), path
    shown = "".join(
        subprocess.run(
            (sys.executable, "-m", *command, "--help"), capture_output=True, text=True
        ).stdout
        for command in (("hvp", "compare"), ("bench",))
    )
    for option in re.findall(r"`[^`]*?(--[a-z]+)[^`]*`", text):
        assert option in shown or option == "--help"


def test_the_floor_plan_names_every_file():
    plan = README.read_text().split("## The floor plan")[1].split("\n## ")[0]
    files = {path.stem for path in (README.parent / "hvp").glob("*.py")}
    assert {name for name in files if f"`{name}`" not in plan} <= {"__init__", "__main__"}


def test_no_placeholder_is_left():
    assert "RESULTS" not in README.read_text()


def test_what_is_covered_is_what_the_table_of_cases_holds():
    assert coverage() in README.read_text(encoding="utf-8")

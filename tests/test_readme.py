"""The README files are executed, and what they name exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.layer_cases import coverage

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = ("README.md", "hvp/README.md", "tests/README.md")
PACKAGES = sorted(path.parent for path in (ROOT / "hvp").glob("*/__init__.py"))


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


def text_of(document):
    return (ROOT / document).read_text(encoding="utf-8")


def test_the_readme_is_read_in_five_minutes():
    assert len(text_of("README.md").splitlines()) <= 130


def test_the_program_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    program = "\n".join(blocks("python"))
    lines = [line for line in program.splitlines() if line.strip()]
    assert 10 <= len(lines) <= 32
    assert max(map(len, lines)) <= 100
    exec(compile(program, str(README), "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.rglob("compare.*")) == [
        "compare.html",
        "compare.json",
        "compare.npz",
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
        assert "[report" in command


@pytest.mark.parametrize("number", [0, 1])
def test_the_commands_are_valid_shell(number):
    command = blocks("sh")[number]
    assert subprocess.run(("sh", "-n"), input=command, text=True).returncode == 0


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_and_option_it_names_is_there(document):
    text = text_of(document)
    for path in re.findall(r"`((?:hvp|tests|bench)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(([\w./]+)\)", text):
        assert (ROOT / document).parent.joinpath(path).exists(), path
    if document != "README.md":
        return
    shown = "".join(
        subprocess.run(
            (sys.executable, "-m", "hvp", command, "--help"), capture_output=True, text=True
        ).stdout
        for command in ("compare", "check")
    )
    for option in re.findall(r"`[^`]*?(--[a-z]+)[^`]*`", text):
        assert option in shown


def test_the_pictures_are_small():
    pictures = re.findall(r"!\[[^]]+\]\(([\w./]+)\)", text_of("README.md"))
    assert pictures
    assert all(0 < (ROOT / picture).stat().st_size < 150_000 for picture in pictures)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_the_readme_of_the_packages_names_every_module(package):
    (row,) = re.findall(rf"^\| `{package.name}` \| (`.*) \|$", text_of("hvp/README.md"), re.M)
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert {name for name in modules if f"`{name}`" not in row} == set()


def test_the_files_of_a_recipe_are_at_most_four():
    recipes = text_of("hvp/README.md").split("## How to add ...")[1].split("\n\n**")[1:]
    names = [recipe.split("**")[0] for recipe in recipes]
    assert names == [
        "An operator",
        "A pass",
        "A spectral algorithm",
        "A section of the report",
        "A backend",
    ]
    for recipe in recipes:
        files = set(re.findall(r"`([\w/]+\.(?:pyi?|html\.j2))`", recipe))
        assert len([name for name in files if not name.startswith("tests/")]) <= 5


def test_what_is_covered_is_what_the_table_of_cases_holds():
    assert coverage() in text_of("tests/README.md")

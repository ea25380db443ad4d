"""Messages of the command line: remedies name its options, and what is long loses its middle."""

import ast
import re
from pathlib import Path

import pytest

from hvp import ConvergenceError, InputError
from hvp.cli import process

PACKAGES = ("objective", "autodiff", "passes", "linearization")
# What only Python's own arguments can raise.
PYTHON = {"linearize", "functions"}
ROOT = Path(process.__file__).parents[1]
FILES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def remedies(path):
    """The constant parts of all remedies in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("Error", "Finding")):
            given = [*node.args[2:3], *(k.value for k in node.keywords if k.arg == "remedy")]
            for value in given if "Error" in ast.unparse(node.func) else given[1:]:
                parts = [n.value for n in ast.walk(value) if isinstance(n, ast.Constant)]
                yield "".join(part for part in parts if isinstance(part, str))


def test_the_reader_of_remedies_finds_them():
    found = {text for path in FILES for text in remedies(path)}
    assert {"pass loss=", "name one of these"} <= found
    assert len(found) > 60


@pytest.mark.parametrize("path", [p for p in FILES if p.stem not in PYTHON], ids=lambda p: p.stem)
def test_no_remedy_names_an_argument_of_python(path):
    for text in remedies(path):
        without_keras = text.replace("(from_logits=True)", "")
        assert not re.search(r"\b[a-z_]+=", process.in_options(without_keras)), text


@pytest.mark.parametrize(
    ("python", "option"),
    [
        ("pass loss=", "give --loss NAME"),
        ("use the loss mean_squared_error, or", "give --loss mean_squared_error, or"),
        ('cast them before, or pass dtype="float64"', "cast them before, or give --dtype float64"),
        ("leave dtype= out", "leave --dtype out"),
        ("leave the parameters before it out of variables=", "before it out of --layers"),
        ("pass batch_size=len(x), or training=False", "leave --batch-size out"),
        ("raise cache= if memory allows", "free memory, or take fewer examples"),
    ],
)
def test_a_remedy_names_the_option(python, option):
    assert process.in_options(python).endswith(option)


def test_no_convergence_names_options():
    error = ConvergenceError(
        "expected 3 pairs at LA within 1.0e-12 of ‖A‖, got 0 that converged after 9 products; "
        "accept errors up to 1.0e-3 by tol=1.0e-6 or scale=3.0 (tol * scale is the absolute error)"
    )
    assert process.message(error).endswith("9 products; lower -k, or give --dtype float64")


@pytest.mark.parametrize("expected", ["a layer among a, b", ", ".join(map(str, range(999)))])
@pytest.mark.parametrize("got", ["'a'", "x" * 999 + "'"])
@pytest.mark.parametrize("remedy", ["take a", "write " + "y" * 200])
def test_no_message_is_longer_than_300_characters(expected, got, remedy):
    line = process.message(InputError(expected, got, remedy))
    assert len(line) < 300
    assert line.startswith(f"expected {expected[:10]}")
    assert f"got {got[:3]}" in line
    assert line.endswith(f"{got[-1]}; {remedy}")

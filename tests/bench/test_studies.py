"""The studies of published claims: that they run and are what they are said to be."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from support.sweep import sweep

import hvp
from bench.studies import initialisation, study, table, width
from bench.studies.__main__ import SOURCES
from bench.studies.study import Row, Study

ROOT = Path(__file__).parents[2]
NAMES = sorted(SOURCES)
PUBLIC_MODULES = {"examples"}


@pytest.fixture(scope="module")
def found():
    """Name -> its quick run; each runs once."""
    results = {}

    def run(name):
        if name not in results:
            results[name] = importlib.import_module(f"bench.studies.{name}").run(True)
        return results[name]

    return run


@pytest.mark.parametrize("name", sweep(NAMES, {"spiked_matrix"}))
def test_a_study_gives_finite_numbers_and_a_figure(name, found, tmp_path):
    result = found(name)
    assert result.title
    assert result.rows
    for row in result.rows:
        assert row.claim
        assert row.published
        assert re.search(r"\d", row.here)
        assert not re.search(r"\b(nan|inf)\b", row.here)
        assert row.holds in (True, False, None)
    assert isinstance(result.figure, Figure)
    result.figure.savefig(tmp_path / "a.png")
    assert all(axes.get_xlabel() or axes.get_title() for axes in result.figure.axes)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_is_short_and_says_whose_claim_it_tries(name):
    text = SOURCES[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 105
    assert re.search(r"\b(19|20)\d\d\b", ast.get_docstring(ast.parse(text)))


@pytest.mark.parametrize("name", NAMES)
def test_a_study_uses_the_public_names_of_hvp_alone(name):
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hvp":
            assert node.module == "hvp"
            assert {alias.name for alias in node.names} <= PUBLIC_MODULES
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_")
            if ast.unparse(node.value) == "hvp":
                assert node.attr in hvp.__all__


@pytest.mark.sweep
def test_what_holds_exactly_holds_in_quick_runs_too(found):
    verdicts = {name: [row.holds for row in found(name).rows] for name in ("chain_rule",)}
    assert verdicts == {"chain_rule": 8 * [True]}
    assert [row.holds for row in found("spiked_matrix").rows if "LAPACK" in row.claim] == [True]


# The theory beside which the studies stand


def test_mean_field_is_level_with_relu_and_falls_with_tanh_beyond_its_critical_variance():
    for v in (0.5, 2.0, 4.0):
        np.testing.assert_allclose(initialisation._mean_field("relu", v, 1.7, 8), np.ones(6))
    falling = initialisation._mean_field("tanh", 4.0, 2.0, 12)
    assert (np.diff(falling) < 0).all()
    # Where the signal is small, tanh is the identity, and v counts forwards as it does backwards.
    np.testing.assert_allclose(initialisation._mean_field("tanh", 0.5, 1e-6, 5), np.ones(3), 1e-5)


def test_the_constants_of_the_width_law_are_those_of_sampled_signals():
    rng, M, v = np.random.default_rng(0), 4000, width.VARIANCE
    a = rng.standard_normal((M, 2))
    signals, slopes = [a], []
    for _ in range(width.DEPTH - 1):
        s = rng.standard_normal((M, M)) @ signals[-1] * np.sqrt(v / M)
        signals.append(np.maximum(s, 0))
        slopes.append(s > 0)
    errors = [np.ones((M, 2))]
    for slope in reversed(slopes):
        own = errors[-1].T @ errors[-1] / M
        errors.append(rng.standard_normal((M, 2)) @ np.linalg.cholesky(own + 1e-12 * np.eye(2)).T)
        errors[-1] *= np.sqrt(v) * slope
    grams = [(a.T @ a / M, e.T @ e / M) for a, e in zip(signals, reversed(errors), strict=True)]
    sampled = [sum(A[0, i] * E[0, i] for A, E in grams) for i in (0, 1)]
    np.testing.assert_allclose(width._mean_field(), sampled, rtol=0.1)


# The table


def example():
    rows = (
        Row("a | b", "1", "1.02 ± 0.05", True),
        Row("c", "2", "3", False),
        Row("d", "", "4", None),
    )
    return Study("Title (Paper 2000)", rows, study.figure("f"), ("A remark.",))


def test_a_table_is_appended_with_date_machine_versions_and_time(tmp_path):
    text, picture = tmp_path / "x.md", tmp_path / "x.png"
    for seconds in (1.0, 2.0):
        table.save(example(), text, picture, seconds)
    assert picture.stat().st_size > 1000
    content = text.read_text()
    assert content.count("## Title (Paper 2000)") == 2
    assert "| a \\| b | 1 | 1.02 ± 0.05 | yes |\n| c | 2 | 3 | no |\n| d |  | 4 | – |" in content
    assert re.search(r"^\d{4}-\d\d-\d\d; .+ cores, Python 3.*tensorflow 2.*; 2 s\.$", content, re.M)
    assert "A remark.\n\n![Title (Paper 2000)](x.png)" in content


def test_a_table_is_shown_with_its_verdicts():
    console = Console(record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    table.show(example(), console)
    shown = console.export_text()
    assert [
        word for word in ("Title", "1.02 ± 0.05", "yes", "no", "A remark.") if word not in shown
    ] == []


# The command line


def command(*arguments):
    return subprocess.run(
        (sys.executable, "-m", "bench.studies", *arguments),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_studies_are_listed_with_what_they_claim():
    completed = command()
    assert completed.returncode == 0
    assert [line.split()[0] for line in completed.stdout.splitlines()] == NAMES
    assert "Three outliers of a 2000 × 2000 matrix" in completed.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nonsense",), "expected a study among"),
        (("spiked_matrix", "--out", "pyproject.toml/a"), "expected a file to write"),
    ],
)
def test_what_cannot_be_run_is_reported_in_one_line(arguments, line):
    completed = command(*arguments)
    assert completed.returncode == 2
    assert completed.stderr.startswith("studies: expected ")
    assert line in completed.stderr
    assert completed.stderr.count("\n") == 1
    assert not completed.stdout


@pytest.mark.sweep
def test_a_quick_study_is_shown_and_saved_beside_full_ones(tmp_path):
    completed = command("spiked_matrix", "--quick", "--out", str(tmp_path))
    assert completed.returncode == 0, completed.stderr
    assert "published" in completed.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "spiked_matrix-quick.md",
        "spiked_matrix-quick.png",
    ]

"""Counts and dimensions in words: the same sentences and digits in all places."""

import json

import numpy as np
import pytest
from rich.console import Console
from support.matrices import Known, network, rotated
from support.pages import Page

import hvp
from hvp.comparison.counts import Counts
from hvp.linalg.brackets import Bounds
from hvp.report import counts_and_dimensions, html_page, summary, terminal
from hvp.report.number_format import between, typeset


@pytest.fixture(scope="module")
def comparison():
    return hvp.compare(network(), 4, title="a small network", num_probes=6, num_steps=30)


def plain(text):
    return " ".join(text.split())


def test_terminal_page_json_and_notebook_say_the_same(comparison):
    shown = terminal.Terminal(quiet=False)
    shown.console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    shown.show(comparison)
    on_terminal = plain(shown.console.export_text())
    page = Page(html_page.page(comparison))
    in_json = json.loads(json.dumps(comparison.to_json()))["headline"]
    notebook = comparison._repr_html_()
    assert list(summary.headline(comparison)) == in_json
    assert len(in_json) == 10
    for paragraph in summary.paragraphs(comparison):
        text = " ".join(paragraph)
        assert plain(text) in on_terminal
        assert typeset(text).replace("λ_max", "λmax") in page.texts["p"]
        assert f"<p>{text}</p>" in notebook


def test_the_sentences_have_the_numbers_of_the_file(comparison):
    numbers, text = comparison.to_json(), " ".join(summary.headline(comparison))
    H = numbers["counts"]["H"]
    for side in ("above", "below", "null"):
        assert between(H[side], 70) in text
    assert "within ±ε" in text
    assert f"2/λ_max = {numbers['stable_learning_rate']:.3g}" in text
    assert f"{numbers['stable_rank']['H']['value']:.2g}"[:3] in text
    low, high = (numbers["condition"]["G"][name] for name in ("lower", "upper"))
    values = np.linalg.eigvalsh(network().dense("G"))
    assert low <= values[-1] / values[values > numbers["condition"]["G"]["floor"]].min() <= high


@pytest.mark.parametrize(
    ("above", "below", "null", "words"),
    [
        (
            (3, 7),
            (1, 1),
            (62, 66),
            "3 to 7 are above ε = 1.0e-4 (30 noise floors), 1 is below -ε, and 62 to 66 are within",
        ),
        (
            (70, 70),
            (0, 0),
            (0, 0),
            "70 are above ε = 1.0e-4 (30 noise floors), none are below -ε, and none are within",
        ),
        (
            (4, 70),
            (0, 70),
            (0, 66),
            "at least 4 are above ε = 1.0e-4 (30 noise floors), an unknown number are below -ε",
        ),
    ],
)
def test_bounds_are_said_in_words(comparison, above, below, null, words):
    counts = Counts(1e-4, 30, Bounds(*above), Bounds(*below), Bounds(*null))
    comparison.__dict__["counts"] = {"H": counts}
    try:
        assert words in counts_and_dimensions.counts_in_words(comparison)
    finally:
        del comparison.__dict__["counts"]


def test_what_was_not_computed_is_not_said():
    found = hvp.compare(network(), 2, results="ends")
    text = " ".join(summary.headline(found))
    assert "ε" not in text
    assert "effective dimension" not in text
    assert counts_and_dimensions.cells(found) == {}
    assert counts_and_dimensions.rows(found) == []
    zero = np.zeros((1, 30, 30))
    nothing = hvp.compare(Known(zero, zero, {"only": 30}), 2)
    assert counts_and_dimensions.cells(nothing) == {}
    assert "No eigenvalue is negative beyond the rounding" in " ".join(summary.headline(nothing))


def test_without_H_the_counts_are_those_of_G():
    G = rotated(np.r_[np.zeros(20), np.geomspace(0.1, 4.0, 30)], 3)[None]
    found = hvp.compare(Known(G, G, {"only": 50}), 2, matrices="G", results="density")
    low, high = found.counts["G"].above
    assert low <= 30 <= high < low + 9
    assert counts_and_dimensions.counts_in_words(found).startswith("Of the 50 eigenvalues of G, ")

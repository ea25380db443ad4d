"""The page of several models: its numbers are those of their pages, and it links to them."""

import dataclasses
import re

import numpy as np
import pytest
from support.browser import CHROMIUM
from support.browser import browser as running_browser
from support.matrices import network
from support.pages import EVIL, LAYOUT, Page

import hvp
from hvp.certificate import Certificate
from hvp.certificate.checks import Check
from hvp.report import (
    entries,
    html_page,
    matplotlib_figure,
    overview_page,
    page_figures,
    save,
    summary,
)
from hvp.report.number_format import NONE, typeset

K = 3
EFFORT = {"num_probes": 2, "num_steps": 20, "layers": False}


def compared(title, scale=1.0, **options):
    lin = network()
    lin.stacks = {letter: scale * stack for letter, stack in lin.stacks.items()}
    return hvp.compare(lin, K, title=title, **{**EFFORT, **options})


@pytest.fixture(scope="module")
def first():
    return compared("first")


@pytest.fixture(scope="module")
def pair(first):
    return {"first": first, "a #2": compared("a #2", 2.0)}


@pytest.fixture(scope="module")
def page(pair):
    return Page(overview_page.page(pair))


def cells(page, name):
    """The cells of the row of that name."""
    (row,) = [
        row
        for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL)
        if re.sub("<[^>]+>", "", row).startswith(name)
    ]
    found = re.findall("<td.*?</td>", row)
    return [plain(re.sub("<[^>]+>", "", cell)) for cell in found]


def plain(text):
    """A typeset text with single spaces, whether they may break a line or not."""
    return " ".join(typeset(text).split())


@pytest.mark.sweep
def test_the_table_has_the_numbers_of_each_page(pair):
    text = overview_page.page(pair)
    for letter in "HGR":
        found = [entries.eigenvalue(c, c.whole, letter, "largest").text() for c in pair.values()]
        assert cells(text, f"λmax of {letter}") == [plain(each) for each in found]
    top = np.linalg.eigvalsh(network().dense("H"))[-1]
    shown = [float(cell.split()[0]) for cell in cells(text, "λmax of H")]
    assert shown == pytest.approx([top, 2 * top], rel=1e-5)
    rates = [float(cell) for cell in cells(text, "2/λmax")]
    assert rates == pytest.approx([2 / top, 1 / top], rel=5e-3)
    assert cells(text, "parameters") == ["70", "70"]
    assert cells(text, "examples") == ["40", "40"]
    assert cells(text, "accuracy") == ["75.0 %"] * 2
    assert cells(text, "overlap") == [plain(entries.overlap(c.whole)) for c in pair.values()]
    assert cells(text, "certificate") == ["passed"] * 2
    for name, c in pair.items():
        single = Page(html_page.page(c))
        key = dict(zip(single.texts["dt"], single.texts["dd"], strict=True))
        column = list(pair).index(name)
        for number in ("trace of H", "share of R in the trace", "eigenvalues of H below −ε"):
            assert cells(text, number)[column].split() == key[number].split()


def test_each_model_has_a_link_its_sentences_and_its_density(pair, page):
    links = [a["href"] for tag, a in page.tags if tag == "a" and "#" not in a["href"]]
    assert links == ["first/compare.html", "a%20%232/compare.html"] * 2
    for c in pair.values():
        shown = typeset(" ".join(summary.headline(c))).replace("λ_max", "λmax")
        assert shown in page.texts["article"][list(pair.values()).index(c)]
    drawn = [a["data-name"] for _, a in page.tags if "data-name" in a]
    assert drawn == ["largest-of-models", "model1-density", "model2-density"]


@pytest.mark.sweep
def test_a_page_of_one_of_several_models_links_back(first):
    back = [a["href"] for tag, a in Page(html_page.page(first, num_models=3)).tags if tag == "a"]
    assert back[0] == "../compare.html"


def test_the_largest_eigenvalues_of_all_models_are_in_one_figure(pair):
    figure = page_figures.largest_of_models(list(pair.values()))
    rows = [line.split(",") for line in figure.data.splitlines()[1:]]
    for title, c in pair.items():
        found = [float(row[2]) for row in rows if row[0] == title]
        np.testing.assert_allclose(found, c.whole.H.largest.values[::-1], rtol=1e-5)
    assert figure.narrow.count("data-hover") == 2 * K


def test_densities_have_one_axis_unless_one_would_be_a_spike(first, pair):
    def ticks(figure):
        return set(re.findall(r">([−\d.]+)</text>", figure.narrow))

    figures, is_common = page_figures.densities_of_models(list(pair.values()))
    assert is_common
    assert "8" in ticks(figures[0])  # beyond its own eigenvalues, below 4.5
    figures, is_common = page_figures.densities_of_models([first, compared("wide", 30.0)])
    assert not is_common
    assert "120" in ticks(figures[1]) - ticks(figures[0])


def test_what_was_not_computed_is_a_dash(pair, first):
    partial = {
        "chain": compared("chain", results="chain-rule"),
        "G": compared("G", matrices="G", results="ends"),
        "untested": dataclasses.replace(
            first, title="untested", certificate=None, unfinished=("traces of H",)
        ),
    }
    text = overview_page.page(partial)
    assert cells(text, "λmax of H")[:2] == [NONE, NONE]
    assert cells(text, "λmax of G")[0] == NONE
    assert cells(text, "λmax of G")[1] == cells(text, "λmax of G")[2]
    assert cells(text, "trace of H")[:2] == [NONE, NONE]
    assert cells(text, "eigenvalues of G above ε")[:2] == [NONE, NONE]
    assert cells(text, "certificate")[2] == NONE
    page = Page(text)
    assert "No spectrum was computed." in page.texts["article"][0]
    assert "untested: Interrupted: traces of H are missing." in page.texts["p"]
    empty = {"a": partial["chain"], "b": partial["chain"]}
    assert "<svg" not in overview_page.page(empty)


def test_a_failed_certificate_and_missing_models_are_reported(first):
    failed = Certificate(Check("Hv", 0.5, 1e-6), Check("gradient", 1e-9, 1e-6), "float64", 2)
    wrong = dataclasses.replace(first, certificate=failed, title="wrong")
    text = overview_page.page({"first": first, "wrong": wrong}, missing=["last"])
    assert cells(text, "certificate") == ["passed", "failed"]
    alarms = [p for p in Page(text).texts["p"] if "missing" in p or "failed" in p]
    assert alarms[0] == "last is missing: not compared."
    assert alarms[1].startswith("wrong: The certificate failed: Hv is 0.5 off.")


def test_a_row_tells_losses_apart(first):
    other = dataclasses.replace(first, loss_name="absolute_error")
    assert "loss function" not in overview_page.rows([first, first])
    assert cells(overview_page.page({"a": first, "b": other}), "loss function") == [
        "squared error",
        "absolute error",
    ]


def test_nothing_is_fetched_and_identifiers_are_there_once(pair, page):
    text = overview_page.page(pair)
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    policy = next(a["content"] for t, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    found = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(found) == len(set(found))
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', text)) <= set(found)


def test_files_appear_together_or_not_at_all(pair, tmp_path, monkeypatch):
    def fill(*arguments, **options):
        raise OSError(28, "No space left on device")

    def touch(comparison, *paths, **options):
        for path in paths:
            path.touch()

    monkeypatch.setattr(matplotlib_figure, "save_comparison", touch)  # both take seconds
    monkeypatch.setattr(html_page, "save_page", touch)
    with monkeypatch.context() as patched:
        patched.setattr(overview_page, "page", fill)
        with pytest.raises(OSError, match="No space"):
            save.save_several(pair, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    written = save.save_several(pair, tmp_path)
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(written) == 2 * len(save.SUFFIXES) + 1
    alone = save.save_several({"first": pair["first"]}, tmp_path / "one", missing=["a #2"])
    assert len(alone) == len(save.SUFFIXES)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")
def test_a_page_fits_its_width(first, tmp_path):
    long = "a_model_whose_name_is_rather_long_indeed_and_longer"
    several = {title: dataclasses.replace(first, title=title) for title in ("first", EVIL, long)}
    path = tmp_path / "compare.html"
    overview_page.save_page(several, path)
    assert EVIL not in path.read_text()
    with running_browser() as browser:
        for width in (390, 1280):
            browser.open(path, width)
            found = browser.evaluate(LAYOUT)
            assert browser.problems == []
            assert found["wide"] <= found["available"]
            assert (found["over"], found["outside"]) == ([], [])
            assert found["figures"] == 4
            assert found["cut"] == 0 or width == 390

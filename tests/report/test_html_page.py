"""The page: what it says, that it fetches nothing, and that a browser draws all of it."""

import dataclasses
import re
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
from support.browser import CHROMIUM
from support.browser import browser as running_browser
from support.matrices import Known, network, rotated
from support.pages import EVIL, LAYOUT, Page

import hvp
from hvp.linalg.estimate import Estimate
from hvp.report import (
    density_curves,
    entries,
    figure_style,
    html_page,
    number_format,
    page_figures,
    page_tables,
    palette,
    summary,
)
from hvp.report.number_format import SINGLE, typeset

K = 4
# Attributes that make a browser fetch, and what does so in a style sheet.
FETCHING = {"src", "href", "srcset", "poster", "data", "action", "background"}
FIGURES = {
    "density", "log-density", "counts", "largest", "smallest", "slice1", "slice2", "overlaps",
    "angles", "shares",
}  # fmt: skip


@pytest.fixture(scope="module")
def comparison():
    return hvp.compare(network(), K, title="a small network", command="hvp compare -k 4")


@pytest.fixture(scope="module")
def evil():
    """Every text that a user may choose is a script; R vanishes on the last layer."""
    lin = network(((EVIL, 40), ("a_layer_whose_name_is_rather_long_indeed", 30)))
    lin.findings = (EVIL,)
    lin.loss_name = EVIL
    return hvp.compare(lin, K, title=EVIL, command=EVIL)


@pytest.fixture(scope="module")
def text(comparison):
    return html_page.page(comparison)


@pytest.fixture(scope="module")
def parsed(text):
    return Page(text)


def said(page):
    return " ".join(" ".join(page.texts["main"] + page.texts["header"]).split())


def test_every_script_is_in_the_page(parsed):
    scripts = [attributes for tag, attributes in parsed.tags if tag == "script"]
    assert not any("src" in attributes for attributes in scripts)
    assert [attributes.get("type") for attributes in scripts] == ["application/json", None]


def test_nothing_is_fetched(parsed, text):
    for tag, attributes in parsed.tags:
        for name in FETCHING & attributes.keys():
            assert attributes[name].startswith("#"), (tag, name)
    assert "link" not in dict(parsed.tags)
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    policy = next(a["content"] for t, a in parsed.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


@pytest.mark.sweep
def test_the_page_is_one_file_of_modest_size_however_many_layers_there_are():
    sizes = {f"layer{i}": 12 for i in range(10)}
    page = html_page.page(hvp.compare(network(tuple(sizes.items())), K, num_probes=2, num_steps=20))
    assert len(page.encode()) < 1_500_000
    assert len(Page(page).texts["summary"]) == 1 + page_figures.MAX_LAYERS
    assert f"Figures of the {page_figures.MAX_LAYERS} layers with the largest eigenvalues" in page


def test_identifiers_are_there_once_and_all_that_is_referred_to(parsed, text):
    found = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(found) == len(set(found))
    referred = re.findall(r'(?:href="|url\()#([\w-]+)', text)
    assert len(referred) > 100
    assert set(referred) <= set(found)


@pytest.mark.sweep
def test_texts_of_users_are_escaped_everywhere(evil):
    text = html_page.page(evil)
    assert EVIL not in text
    page = Page(text)
    assert page.texts["title"] == [f"{EVIL} · curvature"]
    assert page.texts["h1"] == [EVIL]
    assert page.texts["summary"][1].startswith(EVIL)
    assert page.texts["li"] == [EVIL]
    assert EVIL in page.texts["pre"]
    assert figure_style.short(EVIL) in page.texts["text"]
    assert sum(tag == "script" for tag, _ in page.tags) == 2


def test_a_text_that_looks_like_a_part_of_a_drawing_is_shown_as_it_is():
    name = ' id="hover-9" #0072b2'
    svg = f'<svg width="9" id="a"><g id="hover-0"><text>{name}</text></g></svg>'
    inlined = page_figures.inlined(svg, "figure", ['5 < "6"'])
    assert inlined == (f'<svg><g data-hover="5 &lt; &#34;6&#34;"><text>{name}</text></g></svg>')


def test_every_figure_is_drawn_in_the_page_with_its_data(comparison, parsed):
    figures = page_figures.of_whole(comparison)
    assert set(figures) == FIGURES
    layers = page_figures.of_layers(comparison)
    assert list(layers) == list(comparison.parts)[1:]
    drawn = [a["data-name"] for _, a in parsed.tags if "data-name" in a]
    assert drawn == [*figures, *(f.name for each in layers.values() for f in each)]
    assert sum(tag == "svg" for tag, _ in parsed.tags) == len(drawn) + 1  # one is there twice
    rows = [line.split(",") for line in figures["largest"].data.splitlines()]
    assert rows[0][:3] == ["matrix", "rank", "eigenvalue"]
    found = [float(row[2]) for row in rows if row[0] == "H"]
    np.testing.assert_allclose(found, comparison.whole.H.largest.values[::-1], rtol=1e-5)
    for figure in figures.values():
        lengths = {line.count(",") for line in figure.data.splitlines()}
        assert len(lengths) == 1


def test_who_points_at_an_eigenvalue_sees_its_numbers(comparison, parsed):
    texts = [a["data-hover"] for _, a in parsed.tags if "data-hover" in a]
    for letter in "HGR":
        for end in ("largest", "smallest"):
            value = entries.eigenvalue(comparison, comparison.whole, letter, end).text()
            start = typeset(f"{letter}, {end} no. 1: {value}; sampling error ")
            assert any(text.startswith(start) for text in texts), start


def headline(comparison):
    return " ".join(summary.headline(comparison))


def test_the_headline_has_the_numbers_of_the_comparison(comparison, parsed):
    H = comparison.whole.H
    shown = " ".join(parsed.texts["p"][2:5])
    assert shown == typeset(headline(comparison)).replace("λ_max", "λmax")
    assert f"2/λmax = {2 / H.largest.values[-1]:.3g}" in shown
    for value in (H.largest.values[-1], H.smallest.values[0]):
        assert f"{value:.4g}".replace("-", "−")[:-1] in shown
    share = comparison.shares.whole.trace.value
    assert f"{100 * (1 - share):.4g}"[:4] in shown
    assert f"{100 * comparison.whole.overlap:.1f}" in shown
    assert "R vanishes on the block of last only." in shown


def test_the_number_of_negative_eigenvalues_is_within_the_bounds_shown(comparison):
    values = np.linalg.eigvalsh(network().dense("H"))
    shown = re.search(r", (\d+) to (\d+) are below -ε", headline(comparison)).groups()
    low, high = map(int, shown)
    assert low <= np.sum(values < -comparison.counts["H"].threshold) <= high <= 2 * low


def with_depth(comparison, depth):
    """The same, as if fewer Lanczos steps had changed every mass by so much."""
    d = comparison.whole.H.density
    half = np.where(d.nodes < 0, np.nan, d.half_nodes)
    assert half.shape == d.nodes.shape
    changed = dataclasses.replace(d, half_weights=d.half_weights * depth)
    H = dataclasses.replace(comparison.whole.H, density=changed)
    whole = dataclasses.replace(comparison.whole, spectra={**comparison.whole.spectra, "H": H})
    return dataclasses.replace(comparison, parts={**comparison.parts, whole.name: whole})


def test_a_count_whose_depth_is_beyond_it_is_given_by_a_bound(comparison):
    unknown = with_depth(comparison, 10.0)
    assert number_format.is_unknown(unknown.negative)
    count = unknown.negative_brackets[0].at_least
    assert 4 <= count <= np.sum(np.linalg.eigvalsh(network().dense("H")) < 0)
    row = Page(html_page.page(unknown)).row("negative eigenvalues of H")
    assert row.startswith(f"negative eigenvalues of H{count} to ")


def test_bounds_of_counts_hold(comparison):
    true = np.linalg.eigvalsh(network().dense("H"))
    for bracket in comparison.negative_brackets:
        count = np.sum(true < bracket.threshold)
        assert bracket.lower - 4 * bracket.stderr <= count <= bracket.upper + 4 * bracket.stderr
    assert comparison.negative_brackets[0].at_least <= np.sum(true < 0)


def test_a_spectrum_without_negative_eigenvalues_is_said_to_have_none():
    G = rotated(np.linspace(1.0, 3.0, 30), 3)[None]
    found = hvp.compare(Known(G, G, {"only": 30}), 2)
    assert "30 are above ε" in headline(found)
    assert "none are below -ε, and none are within" in headline(found)
    assert "H and G are the same" in headline(found)


@pytest.mark.sweep
def test_values_that_are_bounds_are_shown_as_bounds(comparison):
    pairs = comparison.whole.G.smallest
    loose = dataclasses.replace(pairs, errors=np.full(K, 0.05))
    assert not loose.separate.any()
    G = dataclasses.replace(comparison.whole.G, smallest=loose)
    whole = dataclasses.replace(comparison.whole, spectra={**comparison.whole.spectra, "G": G})
    changed = dataclasses.replace(comparison, parts={**comparison.parts, whole.name: whole})
    page = Page(html_page.page(changed))
    row = page.row(f"{whole.name}, G")
    assert row.count("≤") == 2
    edges = [float(edge) for edge in re.findall(r"≤\xa0([\d.]+)", row)]
    assert edges[0] >= loose.values[-1] + 0.05 - 1e-12
    assert edges[1] >= loose.values[0] + 0.05 - 1e-12
    texts = re.findall(r'data-hover="([^"]*)"', page_figures.of_whole(changed)["smallest"].narrow)
    of_G = [text for text in texts if text.startswith("G")]
    assert len(of_G) == K
    assert all("≤" in text for text in of_G)


@pytest.mark.sweep
def test_a_single_batch_gives_no_error_for_other_data():
    found = hvp.compare(network(batches=1), K)
    text = html_page.page(found)
    page = Page(text)
    assert SINGLE in said(page)
    assert "The data came as a single batch" in said(page)
    assert "nan" not in said(page).lower()
    assert "not known from a single batch" in page_figures.of_whole(found)["largest"].narrow


def test_a_single_probe_gives_no_error():
    found = hvp.compare(network(), K, num_probes=1)
    assert np.isnan(found.whole.distance.stderr)
    text = html_page.page(found)
    page = Page(text)
    assert "±\xa0unknown" in page.row("whole network")
    assert "nan" not in said(page).lower()
    assert "± nan" not in text


def test_the_alarm_and_what_made_it_are_on_the_page(comparison, parsed):
    alarmed = dataclasses.replace(comparison, findings=("different: an eigenvalue was missed",))
    assert Page(html_page.page(alarmed)).texts["li"] == ["different: an eigenvalue was missed"]
    assert "li" not in parsed.texts
    shown = said(parsed)
    for made in ("hvp compare -k 4", 64 * "d", 64 * "e", f"hvp=={hvp.__version__}"):
        assert made in shown
    for name, number in comparison.versions.items():
        assert f"{name} {number}" in shown


def test_the_error_table_has_the_three_errors_of_each_number(comparison):
    rows = {row[0]: row[1:] for row in entries.errors(comparison)}
    trace = comparison.traces["H"].whole.trace
    assert rows["trace of H"] == (
        number_format.measured(trace.value, trace.stderr).partition(" ± ")[0],
        number_format.margin(trace.stderr) if trace.stderr else number_format.NONE,
        number_format.NONE,
        number_format.margin(comparison.whole.sampling["H"].trace),
    )
    pairs, moved = comparison.whole.H.largest, comparison.whole.sampling["H"].largest
    assert rows["λ_max of H"][2:] == (
        number_format.margin(pairs.errors[-1]),
        number_format.margin(moved[-1]),
    )


def test_a_share_that_is_none_is_not_read_as_one(comparison):
    trace = Estimate(-0.4, 0.01)
    whole = dataclasses.replace(comparison.shares.whole, trace=trace)
    shares = dataclasses.replace(comparison.shares, whole=whole)
    odd = summary.share_of_residual(dataclasses.replace(comparison, shares=shares))
    assert odd.startswith("The trace of R is ")
    assert "trace of G" not in odd


def test_colours_are_those_of_the_style_sheet(comparison, text):
    for figure in page_figures.of_whole(comparison).values():
        for svg in (figure.narrow, figure.wide):
            assert not re.search(r"#[0-9a-f]{6}|rgb", svg)
            assert set(re.findall(r"var\(--(\w+)\)", svg)) <= set(palette.LIGHT)
    for colours in (palette.LIGHT, palette.DARK):
        assert all(f"--{name}: {colour};" in text for name, colour in colours.items())
    assert set(palette.LIGHT) == set(palette.DARK)


def test_where_r_vanishes_its_numbers_are_zero_and_nothing_is_drawn(comparison):
    part = comparison.parts["last"]
    assert part.agrees
    assert set(density_curves.linear(part)) == {"H", "G"}
    for end in ("largest", "smallest"):
        assert entries.eigenvalue(comparison, part, "R", end).text() == "0"
    figures = page_figures.of_layers(comparison)["last"]
    assert all("--R" not in figure.narrow for figure in figures)
    rows = {row[0]: row for row in page_tables.all_tables(comparison)["layers"].rows}
    assert rows["last"][4] == "0"


def test_layers_are_coloured_by_their_largest_eigenvalue_and_trace(comparison):
    table = page_tables.all_tables(comparison)["heat_map"]
    assert [row[0] for row in table.rows] == ["first", "last"]
    assert table.headings[2:5] == ("λ_max of H", "λ_max of G", "λ_max of R")
    for row, heat, part in zip(
        table.rows, table.heat, list(comparison.parts.values())[1:], strict=True
    ):
        value = part.H.largest.values[-1]
        assert float(row[2]) == pytest.approx(value, rel=0.005)
        largest = max(
            p.spectra[letter].largest.values[-1]
            for p in list(comparison.parts.values())[1:]
            for letter in "HGR"
        )
        assert heat[1] == (
            "H",
            round(100 * (1 + np.log10(value / largest) / page_tables.HEAT_DECADES)),
        )
    alone = dataclasses.replace(comparison, parts={comparison.whole.name: comparison.whole})
    assert page_tables.all_tables(alone)["heat_map"].headings[2] == "trace of H / P"


def test_a_number_has_one_text_everywhere(comparison, parsed):
    for side in ("above", "below"):
        text = number_format.between(getattr(comparison.counts["H"], side), comparison.size)
        sign = {"above": "", "below": "−"}[side]
        name = f"eigenvalues of H {side} {sign}ε"
        assert f"{text} are {side} {sign}ε" in parsed.texts["p"][2]
        assert parsed.texts["dd"][parsed.texts["dt"].index(name)].startswith(f"{text} ε = ")
        threshold = number_format.known(comparison.counts["H"].threshold, 0.0, 2)
        row = parsed.row(typeset(f"eigenvalues of H {side} {sign}{threshold}"))
        assert row.endswith(f"{text}–––")


def contrast(first, second):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        lit = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return np.dot(lit, [0.2126, 0.7152, 0.0722])

    high, low = sorted([luminance(first), luminance(second)], reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", [*palette.COLOURS.values(), palette.INK, palette.MUTED])
def test_colours_stand_out_from_the_page_by_day_and_by_night(colour):
    # WCAG 2.2, 1.4.3 for text and 1.4.11 for graphics.
    least = 4.5 if colour in (palette.INK, palette.MUTED) else 3.0
    assert contrast(colour, palette.PAPER) >= least
    night = next(palette.DARK[name] for name, day in palette.LIGHT.items() if day == colour)
    assert contrast(night, palette.DARK["paper"]) >= least


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs chromium, which is not installed: apt-get install chromium")
    with running_browser() as found:
        yield found


@pytest.fixture(scope="module")
def page_file(evil, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "compare.html"
    html_page.save_page(evil, path)
    return path


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_fits_its_width(browser, page_file, width):
    browser.media()
    browser.open(page_file, width)
    found = browser.evaluate(LAYOUT)
    assert browser.problems == []
    assert found["wide"] <= found["available"]
    assert found["over"] == []
    assert found["outside"] == []
    assert found["figures"] == len(FIGURES) + 2 * 2
    assert found["links"] == 7
    if width == 1280:
        assert found["cut"] == 0  # tables scroll on a phone only
        assert found["smallest"] > 400
    else:
        assert found["smallest"] > 330


def test_the_first_figure_is_there_without_scripts(browser, page_file):
    browser.media()
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page_file)
        root = browser.call("DOM.getDocument")["root"]["nodeId"]
        query = {"nodeId": root, "selector": ".plot .wide svg"}
        found = browser.call("DOM.querySelector", **query)["nodeId"]
        box = browser.call("DOM.getBoxModel", nodeId=found)["model"]
        assert (box["width"], box["height"]) > (900, 300)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


COLOURS = """(() => {
  const line = [...document.querySelectorAll(".plot .wide path")].find(
    (e) => e.getAttribute("style")?.includes("stroke: var(--H)") && e.getTotalLength() > 200);
  return [getComputedStyle(document.body).backgroundColor, getComputedStyle(line).stroke];
})()"""


def rgb(colour):
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"


def test_dark_mode_follows_a_switch_while_the_page_is_open_and_print_is_light(browser, page_file):
    light, dark = (
        [rgb(colours["paper"]), rgb(colours["H"])] for colours in (palette.LIGHT, palette.DARK)
    )
    browser.media(scheme="light")
    browser.open(page_file)
    assert browser.evaluate(COLOURS) == light
    browser.media(scheme="dark")
    assert browser.evaluate(COLOURS) == dark
    browser.media("print", scheme="dark")
    assert browser.evaluate(COLOURS)[1] == light[1]
    hidden = "getComputedStyle(document.querySelector('nav.parts')).display"
    assert browser.evaluate(hidden) == "none"
    browser.media(scheme="light")
    assert browser.evaluate(COLOURS) == light


TAKEN = """(async () => {
  const files = {};
  URL.createObjectURL = (blob) => { files.next = blob; return "#"; };
  HTMLAnchorElement.prototype.click = function () { files[this.download] = files.next; };
  for (const kind of ["svg", "csv"]) document.querySelector(`[data-take=${kind}]`).click();
  return [await files["density.svg"].text(), await files["density.csv"].text()];
})()"""


def test_figures_and_data_can_be_taken_along(browser, page_file, evil):
    browser.media(scheme="dark")
    browser.open(page_file)
    svg, data = browser.evaluate(TAKEN)
    root = xml.etree.ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.get("width")) > 900
    assert "var(" not in svg
    assert palette.COLOURS["H"] in svg  # on white, whatever the page looks like
    assert data == page_figures.of_whole(evil)["density"].data
    assert browser.problems == []


POINTED = """(() => {
  const mark = document.querySelector('[data-name=largest] [data-hover]');
  const box = mark.getBoundingClientRect();
  window.scrollTo(0, box.top - 300);
  const { left, top } = mark.getBoundingClientRect();
  const at = { clientX: left + 4, clientY: top + 4, bubbles: true };
  const tip = document.getElementById("tip"), before = tip.hidden;
  mark.dispatchEvent(new PointerEvent("pointermove", at));
  const shown = [tip.hidden, tip.textContent];
  document.body.dispatchEvent(new PointerEvent("pointermove", { ...at, clientX: 1, clientY: 1 }));
  return [before, ...shown, tip.hidden, mark.dataset.hover];
})()"""


def test_an_eigenvalue_that_is_pointed_at_shows_its_numbers(browser, page_file):
    browser.media()
    browser.open(page_file)
    before, hidden, text, after, expected = browser.evaluate(POINTED)
    assert (before, hidden, after) == (True, False, True)
    assert text == expected
    assert text.startswith("H, largest no. 1: ")


def test_an_error_on_the_console_would_be_seen(browser, tmp_path):
    path = Path(tmp_path, "broken.html")
    path.write_text("<script>nothing()</script>", encoding="utf-8")
    browser.open(path)
    assert any("nothing is not defined" in problem for problem in browser.problems)


@pytest.mark.sweep
def test_the_loss_along_eigenvectors_is_in_a_table_and_in_the_data(comparison, parsed):
    found, figures = comparison.slices, page_figures.of_whole(comparison)
    for i, name in enumerate(found.names):
        row = parsed.row(f"v of the {name}")
        assert typeset(number_format.known(found.curvatures[i], 0.0, entries.SLICE_DIGITS)) in row
        assert row.endswith("–")  # the loss is quadratic: the order is not known
        data = figures[f"slice{i + 1}"].data.splitlines()
        assert data[0] == "t,loss,parabola"
        numbers = np.array([line.split(",") for line in data[1:]], float)
        expected = [found.steps[i], found.losses[i], found.parabolas[i]]
        np.testing.assert_allclose(numbers.T, expected, rtol=1e-5)
    assert "slices" in [attributes.get("id") for _, attributes in parsed.tags]
    alone = {comparison.whole.name: comparison.whole}
    without = html_page.page(dataclasses.replace(comparison, parts=alone, slices=None))
    assert "slices" not in without

"""The page: what it says, that it fetches nothing, and that a browser draws all of it."""

import dataclasses
import html
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.matrices import Known, network, rotated

import hvp
from hvp.linalg.estimate import Estimate
from hvp.report import (
    density_curves,
    html_page,
    number_format,
    palette,
    plotly_figures,
    plotly_style,
    summary,
)
from hvp.report.number_format import SINGLE, UNKNOWN, typeset

K = 4
EVIL = "<script>alert('&')</script>"
CHROMIUM = shutil.which("chromium")
# Attributes that make a browser fetch, and what does so in a style sheet.
FETCHING = {"src", "href", "srcset", "poster", "data", "action", "background"}
NUM_FIGURES = 8


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text within some of them."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.inside, self.texts = [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)
        if tag not in ("meta", "input"):
            self.texts.setdefault(tag, []).append("")
        else:
            self.inside.pop()

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        for tag in set(self.inside):
            self.texts[tag][-1] += data

    def row(self, name):
        """The text of the first table row of that name."""
        return next(row for row in self.texts["tr"] if row.startswith(name))


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


def test_plotly_is_there_once_and_every_script_is_in_the_page(parsed):
    scripts = [attributes for tag, attributes in parsed.tags if tag == "script"]
    assert not any("src" in attributes for attributes in scripts)
    assert sum("plotly.js v" in script for script in parsed.texts["script"]) == 1
    kinds = [attributes.get("type") for attributes in scripts]
    assert kinds == [None, *3 * ["application/json"], None]


def test_nothing_is_fetched(parsed, text):
    for tag, attributes in parsed.tags:
        for name in FETCHING & attributes.keys():
            assert attributes[name].startswith("#"), (tag, name)
    assert "link" not in dict(parsed.tags)
    own = text.replace(plotly_style.script(), "")
    assert not re.search(r"https?:|@import|url\(", own)
    policy = next(a["content"] for t, a in parsed.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_the_page_is_one_file_of_modest_size(text):
    assert len(text.encode()) < len(plotly_style.script().encode()) + 1_000_000


def test_texts_of_users_are_escaped_everywhere(evil):
    text = html_page.page(evil)
    assert EVIL not in text
    page = Page(text)
    assert page.texts["title"] == [f"{EVIL} · curvature"]
    assert page.texts["h1"] == [EVIL]
    assert page.texts["option"][1] == EVIL
    assert page.texts["li"] == [EVIL]
    assert EVIL in page.texts["pre"]
    assert html.escape(EVIL, quote=False)[:6] in plotly_style.cut(EVIL)
    assert sum(tag == "script" for tag, _ in page.tags) == 5


def test_json_in_the_page_has_no_tags_and_is_the_same_json():
    plain = {"name": EVIL, "number": 1.5}
    packed = plotly_style.for_page(plain)
    assert not set("<>&") & set(packed)
    assert json.loads(packed) == plain


def test_every_figure_has_all_that_the_script_asks_for(comparison, parsed):
    figures = json.loads(plotly_figures.figures(comparison))
    asked = [a["data-figure"] for _, a in parsed.tags if "data-figure" in a]
    assert len(asked) == NUM_FIGURES
    names = {n.replace("AXIS", axis) for n in asked for axis in ("linear", "logarithmic")}
    assert names == set(figures)
    for members in figures.values():
        assert list(members) in ([""], list(comparison.parts))


def headline(comparison):
    return " ".join(summary.headline(comparison))


def test_the_headline_has_the_numbers_of_the_comparison(comparison, parsed):
    H = comparison.whole.H
    shown = parsed.texts["p"][2]
    assert shown == typeset(headline(comparison))
    for value in (H.largest.values[-1], H.smallest.values[0]):
        assert f"{value:.4g}".replace("-", "−") in shown
    share = comparison.shares.whole.trace.value
    assert f"{100 * (1 - share):.4g}"[:4] in shown
    assert f"{100 * comparison.whole.overlap:.1f}" in shown
    assert "R vanishes on the block of last only." in shown


def test_the_number_of_negative_eigenvalues_is_given_where_it_is_known(comparison):
    true = int(np.sum(np.linalg.eigvalsh(network().dense("H")) < 0))
    count = comparison.negative
    assert not number_format.is_unknown(count)
    assert abs(count.value - true) <= 3 * max(count.stderr, count.depth, 0.2)
    (shown, margin) = re.search(
        r"(\d+) ± (\d+) of the 70 are negative", headline(comparison)
    ).groups()
    assert abs(int(shown) - true) <= 3 * int(margin)


def with_depth(comparison, depth):
    """The same, as if fewer Lanczos steps had changed every mass by so much."""
    d = comparison.whole.H.density
    half = np.where(d.nodes < 0, np.nan, d.half_nodes)
    assert half.shape == d.nodes.shape
    changed = dataclasses.replace(d, half_weights=d.half_weights * depth)
    H = dataclasses.replace(comparison.whole.H, density=changed)
    whole = dataclasses.replace(comparison.whole, H=H)
    return dataclasses.replace(comparison, parts={**comparison.parts, whole.name: whole})


@pytest.mark.sweep
def test_a_count_whose_depth_is_beyond_it_is_not_printed(comparison):
    unknown = with_depth(comparison, 10.0)
    assert number_format.is_unknown(unknown.negative)
    nearest, far = unknown.negative_brackets
    count = summary.certainly_negative(unknown)
    assert 4 <= count == nearest.at_least <= nearest.lower
    text = headline(unknown)
    assert f"At least {count} are negative, {summary.between(far)} of them below " in text
    assert f"times the noise floor; their total number is {UNKNOWN}." in text
    page = Page(html_page.page(unknown))
    assert UNKNOWN in page.row("negative eigenvalues")
    assert summary.between(nearest) in page.row("negative, H: λ < ")
    assert f"≥\xa0{count}" in page.texts["dd"][7]


def test_bounds_of_counts_hold(comparison):
    true = np.linalg.eigvalsh(network().dense("H"))
    for bracket in comparison.negative_brackets:
        count = np.sum(true < bracket.threshold)
        assert bracket.lower - 4 * bracket.stderr <= count <= bracket.upper + 4 * bracket.stderr
    assert comparison.negative_brackets[0].at_least <= np.sum(true < 0)


def test_a_spectrum_without_negative_eigenvalues_is_said_to_have_none():
    G = rotated(np.linspace(1.0, 3.0, 30), 3)[None]
    found = hvp.compare(Known(G, G, {"only": 30}), 2)
    assert "No eigenvalue is negative beyond the noise of the products." in headline(found)
    assert "H and G are the same" in headline(found)


def test_values_that_are_bounds_are_shown_as_bounds(comparison):
    pairs = comparison.whole.G.smallest
    loose = dataclasses.replace(pairs, errors=np.full(K, 0.05))
    assert not loose.separate.any()
    G = dataclasses.replace(comparison.whole.G, smallest=loose)
    whole = dataclasses.replace(comparison.whole, G=G)
    changed = dataclasses.replace(comparison, parts={**comparison.parts, whole.name: whole})
    page = Page(html_page.page(changed))
    row = page.row(f"{whole.name}, G")
    assert row.count("≤") == 2
    edges = [float(edge) for edge in re.findall(r"≤\xa0([\d.]+)", row)]
    assert edges[0] >= loose.values[-1] + 0.05 - 1e-12
    assert edges[1] >= loose.values[0] + 0.05 - 1e-12
    figure = plotly_figures.ends(whole, "smallest", comparison.floor)
    drawn = [trace for trace in figure.data if trace.name == "G" and len(trace.x)]
    assert [trace.marker.symbol for trace in drawn] == ["triangle-down-open"]
    assert all("≤" in point for point in drawn[0].text)


def test_a_single_batch_gives_no_error_for_other_data():
    found = hvp.compare(network(batches=1), K)
    text = html_page.page(found)
    page = Page(text)
    assert SINGLE in said(page)
    assert "The data came as a single batch" in said(page)
    assert "nan" not in said(page).lower()
    json.loads(plotly_figures.figures(found), parse_constant=lambda name: pytest.fail(name))


def test_a_single_probe_gives_no_error():
    found = hvp.compare(network(), K, num_probes=1)
    assert np.isnan(found.whole.distance.stderr)
    page = Page(html_page.page(found))
    assert "±\xa0unknown" in page.row("whole network")
    assert "nan" not in said(page).lower()
    assert "± nan" not in plotly_figures.figures(found)


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
    rows = {row[0]: row[1:] for row in summary.errors(comparison)}
    trace = comparison.traces["H"].whole.trace
    assert rows["trace of H"] == (
        number_format.measured(trace.value, trace.stderr).partition(" ± ")[0],
        number_format.margin(trace.stderr) if trace.stderr else summary.NONE,
        summary.NONE,
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
    assert "G carries" not in odd


def test_curves_pass_through_the_density_they_are_of(comparison):
    for letter, curve in density_curves.linear(comparison.whole).items():
        d = getattr(comparison.whole, letter).density
        values, _ = d.curve(curve.x, curve.width)
        np.testing.assert_allclose(curve.values, values)
        # The axis is logarithmic, and so are the lines between the points.
        x = np.linspace(curve.x[0], curve.x[-1], 5001)
        true = d.curve(x, curve.width)[0]
        shown = true > density_curves.BELOW_ONE * density_curves.alone(70, curve.width)
        line = np.interp(x, curve.x, np.log(np.maximum(curve.values, 1e-300)))
        np.testing.assert_allclose(line[shown], np.log(true[shown]), atol=0.05)
        assert len(curve.x) < 30 * 70  # each eigenvalue a bell of its own
    widths = {letter: c.width for letter, c in density_curves.linear(comparison.whole).items()}
    assert widths["H"] == widths["G"]


def test_r_is_left_out_where_it_vanishes(comparison):
    figure = plotly_figures.densities(comparison.parts["last"], comparison.floor)
    assert {trace.name for trace in figure.data if trace.name} == {"H", "G"}
    assert "R vanishes here" in figure.layout.meta["note"]


def test_dark_colours_replace_every_colour_of_the_figures(comparison):
    figures = plotly_figures.figures(comparison) + plotly_style.for_page(
        plotly_style.template().to_plotly_json()
    )
    for light, night in palette.dark().items():
        figures = figures.replace(light, night)
    used = set(re.findall(r"#[0-9a-f]{6}|rgba\(\d+,\d+,\d+,", figures))
    assert used <= set(palette.dark().values()) | {"rgba(0,0,0,"}


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
    assert contrast(palette.DARK[colour], palette.DARK[palette.PAPER]) >= least


# The result of a frame of each width, collected by the page around them.
FRAMES = """<body>{frames}<script>
const frames = [...document.querySelectorAll("iframe")];
const wait = setInterval(() => {{
  const pages = frames.map((frame) => frame.contentDocument?.documentElement);
  if (!pages.every((page) => page?.dataset.drawn)) return;
  clearInterval(wait);
  document.body.dataset.found = JSON.stringify(pages.map((page) => ({{
    drawn: +page.dataset.drawn,
    plots: page.querySelectorAll(".plot").length,
    svgs: [...page.querySelectorAll(".plot:has(.main-svg path)")].length,
    points: page.querySelectorAll(".scatterlayer path.js-line, .scatterlayer path.point").length,
    wide: page.scrollWidth,
    available: page.clientWidth,
    over: [...page.querySelectorAll("main *, header *")].filter(
      (e) => e.getBoundingClientRect().right > page.clientWidth + 1 && !e.closest(".table, svg")
    ).map((e) => e.tagName),
    names: [...page.querySelectorAll("svg text")].map((t) => t.textContent).join(" "),
    scheme: getComputedStyle(page.querySelector("body")).backgroundColor,
  }})));
}}, 50);
</script></body>"""


def browsed(address, *options):
    """The page after its scripts ran, and what the console said; without a network."""
    if CHROMIUM is None:
        pytest.skip("needs chromium, which is not installed: apt-get install chromium")
    command = (
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=20000",
        "--enable-logging=stderr",
        "--v=0",
        *options,
        "--dump-dom",
        address,
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return done.stdout, console


LIGHT, DARK = (1, "rgb(255, 255, 255)"), (0, "rgb(21, 24, 28)")
SCHEMES = [LIGHT, pytest.param(*DARK, marks=pytest.mark.sweep)]


@pytest.mark.parametrize(("scheme", "paper"), SCHEMES)
def test_a_browser_draws_everything_at_two_widths(evil, tmp_path, scheme, paper):
    evil.save(tmp_path)
    frames = "".join(
        f'<iframe src="compare.html" style="border:0" width="{width}" height="900"></iframe>'
        for width in (390, 1280)
    )
    (tmp_path / "frames.html").write_text(FRAMES.format(frames=frames), encoding="utf-8")
    dom, console = browsed(
        (tmp_path / "frames.html").as_uri(), f"--blink-settings=preferredColorScheme={scheme}"
    )
    assert console == []
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', dom)[1]))
    for width, frame in zip((390, 1280), found, strict=True):
        assert frame["drawn"] == frame["plots"] == frame["svgs"] == NUM_FIGURES
        assert frame["points"] > 50
        assert width - 20 <= frame["available"] <= width
        assert frame["wide"] <= frame["available"]
        assert frame["over"] == []
        assert "<scrip…" in frame["names"]  # shown as it is, cut
        assert frame["scheme"] == paper


def test_the_page_works_from_a_file_address(text, tmp_path):
    path = Path(tmp_path, "compare.html")
    path.write_text(text, encoding="utf-8")
    dom, console = browsed(path.as_uri(), "--window-size=1280,900")
    assert console == []
    assert f'data-drawn="{NUM_FIGURES}"' in dom


def test_an_error_on_the_console_would_be_seen(text, tmp_path):
    path = Path(tmp_path, "broken.html")
    path.write_text(text.replace("drawAll();\n})();", "nothing();\n})();"), encoding="utf-8")
    dom, console = browsed(path.as_uri())
    assert any("nothing is not defined" in line for line in console)
    assert "data-drawn" not in dom


# What a reader's switches do: the path of the first curve, the axis and what a finger does.
SWITCHED = """<body><iframe src="compare.html" style="border:0" width="1280" height="900"></iframe>
<script>
const frame = document.querySelector("iframe");
const later = () => new Promise((done) => setTimeout(done, 50));
const root = () => frame.contentDocument?.documentElement;
async function after(change) {
  change();
  while (!root()?.dataset.drawn) await later();
  const plot = root().querySelector(".plot");
  const { xaxis, dragmode } = plot.layout;
  const path = plot.querySelector(".js-line").getAttribute("d");
  delete root().dataset.drawn;
  return [path, xaxis.title.text, xaxis.range, dragmode];
}
function set(element, property, value) {
  element[property] = value;
  element.dispatchEvent(new Event("change"));
}
const axis = (name) => () =>
  set(root().querySelector(`input[name=axis][value=${name}]`), "checked", true);
const part = (i) => () => {
  const select = root().querySelector("#part");
  set(select, "value", select.options[i].value);
};
(async () => {
  const found = {};
  found.first = await after(() => {});
  found.log = await after(axis("logarithmic"));
  found.near = await after(axis("near"));
  found.linear = await after(axis("linear"));
  found.layer = await after(part(1));
  found.whole = await after(part(0));
  found.narrow = await after(() => (frame.width = 390));
  document.body.dataset.found = JSON.stringify(found);
})();
</script></body>"""


def test_switches_draw_another_part_another_axis_and_another_width(text, tmp_path):
    (tmp_path / "compare.html").write_text(text, encoding="utf-8")
    (tmp_path / "switched.html").write_text(SWITCHED, encoding="utf-8")
    # Waiting takes virtual time, however fast the machine draws.
    address = (tmp_path / "switched.html").as_uri()
    dom, console = browsed(address, "--virtual-time-budget=600000")
    assert console == []
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', dom)[1]))
    first, (low, high) = found["first"], found["near"][2]
    assert found["linear"] == found["whole"] == first
    assert found["layer"][0] != first[0]
    assert found["layer"][1] == first[1] != found["log"][1]
    assert high - low < first[2][1] - first[2][0]
    assert (first[3], found["narrow"][3]) == ("zoom", False)

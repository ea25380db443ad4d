"""How results show in consoles and notebooks, and the rows that data frames take."""

import dataclasses
import html.parser

import numpy as np
import pytest
import scipy.sparse
from support.matrices import network

import hvp
from hvp.tables import Table

EVIL = "<script>alert('&')</script>"
LONG = "a layer of a very long name " * 20
MANY = 300


class Cells(html.parser.HTMLParser):
    """The tags of a fragment, and the rows of cells of its table."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.rows, self.caption = set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        assert not attributes
        self.tags.add(tag)
        self.open = tag
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        self.open = ""

    def handle_data(self, data):
        if self.open in ("td", "th"):
            self.rows[-1].append(data)
        elif self.open == "caption":
            self.caption += data


@pytest.fixture(scope="module")
def comparison():
    lin = network(((EVIL, 40), ("last", 30)))
    lin.loss_name = EVIL
    return hvp.compare(lin, 4, title=EVIL)


@pytest.fixture(scope="module")
def large(comparison):
    """The same with 300 layers, long names and many numbers."""
    last = comparison.parts["last"]
    names = [f"{i} {LONG}" for i in range(MANY)]
    parts = {name: dataclasses.replace(last, name=name) for name in names}
    traces = {letter: with_blocks(found, names) for letter, found in comparison.traces.items()}
    shares = with_blocks(comparison.shares, names)
    return dataclasses.replace(
        comparison,
        title=LONG,
        loss_name=LONG,
        parts={"whole network": comparison.whole, **parts},
        traces=traces,
        shares=shares,
        size=24_790_123,
    )


def with_blocks(found, names):
    block = found.layers["last"]
    return dataclasses.replace(
        found, layers={name: dataclasses.replace(block, name=name) for name in names}
    )


@pytest.fixture(scope="module")
def lin():
    layers = [np.ones(2) for _ in range(40)]
    return hvp.linearize_function(lambda w: w[0][0] ** 2, layers)


def results(comparison):
    """One of each kind of result, by its name."""
    part = comparison.parts["whole network"]
    block = next(iter(comparison.traces["H"].layers.values()))
    share = next(iter(comparison.shares.layers.values()))
    found = [comparison, *list(comparison.parts.values())[-1:], part, part.H, part.H.largest]
    found += [part.H.density, comparison.traces["H"], block, comparison.shares, share]
    found += [comparison.slices]
    return [*found, part.distance]


def test_every_result_is_a_few_short_lines_at_any_size(comparison, large, lin):
    A = scipy.sparse.diags_array(np.arange(700.0))
    many = [hvp.eigsh(A, 50, which="BE", second_start=True), hvp.diagonal(A), lin]
    many += [hvp.density(A, num_probes=10, num_steps=100)]
    for result in [*results(comparison), *results(large), *many]:
        lines = repr(result).splitlines()
        assert len(lines) <= 20
        assert 20 < len(repr(result)) <= 2000


def test_a_comparison_says_what_it_compares_and_the_main_numbers(comparison):
    text = " ".join(repr(comparison).split())
    assert text.startswith(f"{EVIL}: 70 parameters, ")
    assert " examples, " in text
    assert f"{EVIL} 0.5, accuracy 75.00%, float64 part P λ_max of H" in text
    largest = comparison.whole.H.largest.values[-1]
    assert f"The eigenvalues of H range from {comparison.whole.H.smallest.values[0]:.4g}" in text
    assert f" to {largest:.5g}" in text
    assert text.endswith(f"{comparison.num_products:,} products, {comparison.seconds:.1f} s")
    assert [name for name in ("whole network", "last") if f"{name} " in text] == [
        "whole network",
        "last",
    ]


def test_a_comparison_whose_certificate_failed_says_so_first(comparison):
    certificate = comparison.certificate
    Hv = dataclasses.replace(certificate.Hv, error=0.5)
    failed = dataclasses.replace(comparison, certificate=dataclasses.replace(certificate, Hv=Hv))
    assert "The certificate failed: Hv by differences" in repr(failed)
    assert "certificate" not in repr(comparison)


def test_the_middle_of_many_rows_is_left_out():
    pairs = hvp.eigsh(scipy.sparse.diags_array(np.arange(700.0)), MANY)
    lines = repr(pairs).splitlines()
    assert len(lines) == 20
    assert lines[2].split()[:2] == ["300", "400"]
    assert lines[-2].split()[:2] == ["1", "699"]
    assert [line for line in lines if set(line.split()) == {"…"}] == [lines[10]]


def test_a_density_says_probes_steps_mass_outliers_and_floor():
    A = np.diag(np.r_[np.linspace(0.0, 1.0, 98), 5.0, 7.0])
    pairs = hvp.eigsh(A, 2)
    found = hvp.density(A, pairs=pairs, num_probes=3, num_steps=20)
    rows = dict(line.split("  ", 1) for line in repr(found).splitlines()[1:9])
    said = {name: text.strip() for name, text in rows.items()}
    assert said["probes"] == "3"
    assert said["Lanczos steps of each"] == "20"
    assert said["mass of the nodes"] == "0.98"
    assert said["outliers"] == "2, from 5 to 7"
    assert said["floor"] == f"{found.floor:.2g}"
    assert repr(found).splitlines()[0] == "Density of 100 eigenvalues"


def shown_in_notebooks(comparison, lin):
    whole = comparison.whole
    found = [comparison, whole.H.largest, whole.H.density, comparison.traces["H"]]
    return [*found, comparison.slices, lin]


def test_a_notebook_shows_an_estimate_with_its_errors():
    found = hvp.Estimate(2.0, 0.25, 10, depth=0.5, method="Hutchinson", sampling=0.125)
    parsed = Cells(found._repr_html_())
    assert parsed.caption == "Estimate by 10 products, Hutchinson"
    assert dict(parsed.rows) == {
        "estimate": "2",
        "standard error of the probes": "0.25",
        "change with more Lanczos steps": "0.5",
        "sampling error": "0.12",
    }
    several = hvp.Estimate(np.array([1.0, 4.0]), np.array([0.1, 0.2]), 10)
    assert dict(Cells(several._repr_html_()).rows) == {
        "estimate": "2 values from 1 to 4",
        "standard error of the probes": "0.2 at most",
    }


def test_notebooks_show_plain_escaped_tables(comparison, lin):
    for result in shown_in_notebooks(comparison, lin):
        parsed = Cells(result._repr_html_())
        assert parsed.tags <= {"table", "caption", "tr", "th", "td", "p"}
        assert len({len(row) for row in parsed.rows}) == 1
        assert parsed.caption


def test_a_notebook_shows_the_rows_of_the_text(comparison):
    *results, _ = shown_in_notebooks(comparison, None)
    for result in results:
        lines = [line.split() for line in repr(result).splitlines()]
        for row in Cells(result._repr_html_()).rows:
            assert " ".join(row).split() in lines


def test_a_notebook_shows_the_layers_of_a_linearization(lin):
    parsed = Cells(lin._repr_html_())
    assert parsed.rows[0] == ["layer", "P", "parameters"]
    assert parsed.rows[1] == ["param0", "2", "param0 (2,)"]
    assert parsed.rows[-1] == ["param39", "2", "param39 (2,)"]
    assert "80 parameters (float64), 1 examples in 1 batch" in parsed.caption


PLAIN = {int, float, str}


def test_rows_are_dicts_of_plain_numbers_and_text_with_the_same_keys(comparison):
    results = (
        comparison, comparison.traces["H"], comparison.whole.H.largest, comparison.slices,
        comparison.shares, comparison.whole.H.density, comparison.traces["H"].whole.trace,
        hvp.noise_floor(np.eye(3)), hvp.low_rank(np.eye(3), 2), hvp.diagonal(np.eye(3)),
        hvp.solve(np.eye(3), np.ones((3, 2)), damping=1.0),
        hvp.solve(np.eye(3), np.ones(3), damping=1.0),
    )  # fmt: skip
    for result in results:
        rows = result.rows()
        assert len({tuple(row) for row in rows}) == 1
        assert {type(value) for row in rows for value in row.values()} <= PLAIN
        columns = zip(*(map(type, row.values()) for row in rows), strict=True)
        assert all(len(set(kinds)) == 1 for kinds in columns)


def test_the_rows_of_a_comparison_hold_each_part_and_matrix(comparison):
    rows = {(row["part"], row["matrix"]): row for row in comparison.rows()}
    assert list(rows) == [(name, letter) for name in comparison.parts for letter in "HGR"]
    H, part = rows["last", "H"], comparison.parts["last"]
    assert H["size"] == 30
    assert H["largest"] == part.H.largest.values[-1]
    assert H["largest_error"] == part.H.largest.errors[-1]
    assert H["smallest"] == part.H.smallest.values[0]
    assert H["trace"] == comparison.traces["H"].layers["last"].trace.value
    assert rows["whole network", "G"]["trace"] == comparison.traces["G"].whole.trace.value
    for letter in "HGR":
        separate = part.spectra[letter].largest.separate[-1]
        assert rows["last", letter]["largest_kind"] == ("separate" if separate else "bound")


def test_the_rows_of_layer_traces_end_with_the_whole(comparison):
    traces = comparison.traces["R"]
    *layers, whole = traces.rows()
    assert [row["layer"] for row in layers] == [EVIL, "last"]
    assert (whole["layer"], whole["size"]) == ("whole", 70)
    assert whole["squared_norm"] == traces.whole.squared_norm.value
    assert layers[1]["trace_stderr"] == traces.layers["last"].trace.stderr


def test_the_rows_of_shares_end_with_the_whole(comparison):
    *layers, whole = comparison.shares.rows()
    assert [row["layer"] for row in layers] == [EVIL, "last"]
    assert whole["squared_norm"] == comparison.shares.whole.squared_norm.value
    assert layers[0]["trace_stderr"] == comparison.shares.layers[EVIL].trace.stderr


def test_the_masses_of_a_density_add_up_to_one_and_give_its_moments(comparison):
    found = comparison.whole.H.density
    rows = found.rows()
    assert sum(row["mass"] for row in rows) == pytest.approx(1.0)
    mean = sum(row["mass"] * row["value"] for row in rows)
    assert mean == pytest.approx(found.moment(1).value)
    assert [row["value"] for row in rows if row["probe"] == -1] == found.outliers.tolist()


def test_a_table_of_headings_and_nothing_else_is_one_line_of_text():
    assert Table("", ("a", "b")).text() == "a  b"
    assert Table("title").html() == "<table><caption>title</caption></table>"

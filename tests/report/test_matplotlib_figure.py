"""The picture, read back from its axes."""

import sys
import types

import matplotlib.image
import numpy as np
import pytest

from hvp.linalg.lanczos_quadrature import density
from hvp.report import density_curves, matplotlib_figure


def pairs(values, error=0.0):
    values = np.array(values)
    separate = np.full(len(values), True)
    return types.SimpleNamespace(
        values=values, errors=np.full(len(values), error), separate=separate
    )


def part(name, H, G, error=0.0):
    """`H` and `G` are (smallest, largest), each in ascending order."""

    def ends(both):
        return types.SimpleNamespace(smallest=pairs(both[0], error), largest=pairs(both[1], error))

    def spectrum(both):
        values = np.r_[both[0], np.zeros(20), both[1]]
        found = ends(both)
        found.density = density(np.diag(values), num_probes=3, num_steps=10)
        return found

    spectra = {"H": spectrum(H), "G": spectrum(G), "R": None}
    return types.SimpleNamespace(name=name, size=1234, agrees=True, spectra=spectra, **spectra)


def comparison(*parts, **changed):
    fields = {
        "title": "tanh",
        "accuracy": 0.9712,
        "size": 24790,
        "num_examples": 5000,
        "loss": 0.0712345,
        "dtype": "float32",
        "floor": 0.0,
    }
    return types.SimpleNamespace(parts={p.name: p for p in parts}, **{**fields, **changed})


NETWORK = part("whole network", ([-3.0, -1.0], [2.0, 90.0]), ([0.0, 1e-8], [1.5, 80.0]))
LAYER = part("dense1", ([-1e-7, 0.0], [0.01, 0.5]), ([0.0, 0.0], [0.01, 0.4]))
ZERO = part("dead", ([0.0], [0.0]), ([0.0], [0.0]))
NEGATIVE = part("upside down", ([-9.0, -8.0], [-7.0, -2.0]), ([-5.0, -4.0], [-3.0, -1.0]))


def visible(figure):
    """The panels with the ends: of the whole, then of each layer."""
    return [panel for panel in figure.axes if panel.get_visible()][1:]


def markers(panel):
    """Label -> the points drawn: ranks and values."""
    return {box.get_label(): box.lines[0].get_data() for box in panel.containers}


def test_there_is_one_panel_a_part_in_order():
    figure = matplotlib_figure.comparison_figure(comparison(NETWORK, LAYER))
    assert [panel.get_title(loc="left") for panel in visible(figure)] == [
        "b   extreme eigenvalues by rank; triangles are bounds",
        "c   dense1, P = 1,234",
    ]


@pytest.mark.parametrize("drawn", [NETWORK, LAYER, NEGATIVE], ids=lambda p: p.name)
def test_each_panel_shows_all_numbers_of_h_and_g_from_the_top_down(drawn):
    (panel,) = visible(matplotlib_figure.comparison_figure(comparison(drawn)))
    shown = markers(panel)
    assert list(shown) == ["H", "G"]
    for name, (ranks, values) in shown.items():
        ends = getattr(drawn, name)
        expected = [*ends.largest.values[::-1], *ends.smallest.values[::-1]]
        assert values.tolist() == expected
        assert ranks.tolist() == [0, 1, 3, 4]


def test_h_and_g_differ_by_colour_and_marker():
    (panel,) = visible(matplotlib_figure.comparison_figure(comparison(NETWORK)))
    H, G = (box.lines[0] for box in panel.containers)
    assert H.get_color() != G.get_color()
    assert H.get_marker() != G.get_marker()


def test_the_densities_of_h_and_g_are_drawn_with_bands_and_ticks():
    figure = matplotlib_figure.comparison_figure(comparison(NETWORK))
    (inset,) = figure.axes[0].child_axes
    for panel in (figure.axes[0], inset):
        lines = {line.get_label(): line for line in panel.lines if line.get_label() in "HG"}
        assert list(lines) == ["G", "H"]
        for name, curve in density_curves.linear(NETWORK).items():
            x, y = lines[name].get_data()
            shown = curve.values > y.min() * 1.01
            np.testing.assert_array_equal(x, curve.x)
            np.testing.assert_allclose(y[shown], curve.values[shown])
            assert lines[name].get_color() == matplotlib_figure.STYLES[name]["color"]
        assert len(panel.collections) == 2
        assert panel.get_yscale() == "log"
    assert [text.get_text() for text in inset.get_legend().get_texts()] == ["H", "G"]
    low, high = inset.get_xlim()
    assert low < -3.0 < 0 < high


def test_a_drawing_has_no_text_that_needs_a_font(tmp_path):
    path = tmp_path / "picture.svg"
    matplotlib_figure.save_comparison(comparison(NETWORK, LAYER), path)
    first = path.read_bytes()
    assert b"<text" not in first
    assert b"font-family" not in first
    matplotlib_figure.save_comparison(comparison(NETWORK, LAYER), path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("drawn", [NETWORK, LAYER, ZERO, NEGATIVE], ids=lambda p: p.name)
def test_every_point_lies_inside_the_limits(drawn):
    figure = matplotlib_figure.comparison_figure(comparison(drawn))
    figure.draw_without_rendering()
    (panel,) = visible(figure)
    low, high = panel.get_ylim()
    left, right = panel.get_xlim()
    assert low < high
    for ranks, values in markers(panel).values():
        assert (ranks > left).all()
        assert (ranks < right).all()
        assert (values > low).all()
        assert (values < high).all()
    assert low < 0 < high


@pytest.mark.filterwarnings("error")
def test_a_part_that_is_all_zero_is_drawn_without_warnings(tmp_path):
    path = tmp_path / "picture.png"
    matplotlib_figure.save_comparison(comparison(NETWORK, ZERO), path)
    assert matplotlib.image.imread(path).std() > 0


def test_errors_are_drawn_as_bars_around_the_values():
    drawn = part(
        "whole network", ([-3.0, -1.0], [2.0, 90.0]), ([-2.0, -1.0], [1.5, 80.0]), error=0.25
    )
    (panel,) = visible(matplotlib_figure.comparison_figure(comparison(drawn)))
    (bars,) = panel.containers[0].lines[2]
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [[89.75, 90.25], [1.75, 2.25], [-1.25, -0.75], [-3.25, -2.75]]


def test_bounds_are_triangles_that_point_away_from_the_bulk_and_have_no_bars():
    drawn = part("dense1", ([-3.0, 0.0], [2.0, 90.0]), ([0.0, 0.0], [1.5, 80.0]), error=0.25)
    drawn.H.smallest.separate[1] = drawn.G.largest.separate[0] = False
    (panel,) = visible(matplotlib_figure.comparison_figure(comparison(drawn)))
    shown = {
        (line.get_color(), line.get_marker()): line.get_xydata().tolist()
        for line in panel.lines
        if line.get_marker() in ("^", "v") and len(line.get_xdata())
    }
    H, G = (matplotlib_figure.STYLES[name]["color"] for name in "HG")
    assert shown == {(H, "v"): [[3.0, 0.0]], (G, "^"): [[1.0, 1.5]]}
    assert {name: ranks.tolist() for name, (ranks, _) in markers(panel).items()} == {
        "H": [0, 1, 4],
        "G": [0, 3, 4],
    }


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (4, 1, 4), (5, 2, 4), (9, 3, 4)])
def test_many_layers_wrap_into_rows(count, rows, columns):
    parts = [part(f"layer{i}", ([-1.0], [1.0]), ([0.0], [1.0])) for i in range(count)]
    figure = matplotlib_figure.comparison_figure(comparison(NETWORK, *parts))
    panels = visible(figure)[1:]
    assert len(panels) == count
    grid = panels[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (rows, columns)
    width, height = figure.get_size_inches()
    assert width == matplotlib_figure.WIDTH_INCHES
    assert height > 1.9 * rows + 2
    figure.draw_without_rendering()
    boxes = [panel.get_window_extent() for panel in panels]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_headline_says_what_is_compared():
    headline = matplotlib_figure.comparison_figure(comparison(NETWORK)).get_suptitle()
    for words in ("tanh: ", "24,790 parameters", "5,000 examples", "0.07123", "97.1%", "float32"):
        assert words in headline


def test_the_headline_leaves_out_what_there_is_not():
    headline = matplotlib_figure.comparison_figure(
        comparison(NETWORK, accuracy=None, title="")
    ).get_suptitle()
    assert headline.startswith("the spectra")
    assert "accuracy" not in headline


def test_the_file_is_a_picture_with_both_colours(tmp_path):
    path = tmp_path / "picture.png"
    matplotlib_figure.save_comparison(comparison(NETWORK, LAYER), path)
    pixels = matplotlib.image.imread(path)[:, :, :3]
    for red, green, blue in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        colour = np.array([red, green, blue]) / 255
        assert (np.abs(pixels - colour).max(axis=2) < 0.01).sum() > 50


def test_pyplot_and_its_global_state_are_left_alone(tmp_path):
    matplotlib_figure.save_comparison(comparison(NETWORK), tmp_path / "picture.png")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []

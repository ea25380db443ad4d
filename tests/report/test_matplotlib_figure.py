"""The picture, read back from its axes."""

import dataclasses
import sys
import xml.etree.ElementTree

import matplotlib.image
import numpy as np
import pytest
from support.matrices import Known, network, rotated

import hvp
from hvp.linalg.estimate import Estimate
from hvp.report import (
    density_curves,
    density_panels,
    eigenvalue_panels,
    figure_style,
    matplotlib_figure,
)
from hvp.report.palette import COLOURS

K = 4


@pytest.fixture(scope="module")
def comparison():
    return hvp.compare(network(), K, title="tanh")


def without_layers(comparison):
    whole = comparison.whole
    return dataclasses.replace(comparison, parts={whole.name: whole})


def single(H, G, **options):
    return hvp.compare(Known(H[None], G[None], {"only": len(H)}, **options), 2, num_probes=2)


ZERO = single(np.zeros((30, 30)), np.zeros((30, 30)))
NEGATIVE = single(rotated(np.linspace(-9.0, -2.0, 30), 1), rotated(np.linspace(-5.0, -1.0, 30), 2))
LARGE = single(rotated(np.linspace(-1e7, 1e9, 30), 1), rotated(np.linspace(0.0, 1e9, 30), 1))


def titles(figure):
    return [panel.get_title(loc="left") for panel in figure.axes]


def test_four_panels_without_layers_and_a_fifth_with_them(comparison):
    figure = matplotlib_figure.comparison_figure(without_layers(comparison))
    density, log, largest, smallest = titles(figure)
    width = density_curves.kernel_width(comparison.whole)
    assert density == f"spectral density, kernel width σ = {width:.2g}"
    assert log.startswith("the same on a logarithmic axis")
    assert largest == "the four largest λ, ± sampling error"
    assert smallest == "the four smallest λ, ± sampling error"
    figure = matplotlib_figure.comparison_figure(comparison)
    assert titles(figure)[4] == "largest λ by layer"
    width, height = figure.get_size_inches()
    assert width / height == pytest.approx(4 / 3)


@pytest.mark.parametrize("kind", ["layers", "whole", "zero", "negative", "large"])
def test_nothing_is_cut_and_no_panel_is_empty(comparison, kind):
    drawn = {
        "layers": comparison, "whole": without_layers(comparison), "zero": ZERO,
        "negative": NEGATIVE, "large": LARGE,
    }[kind]  # fmt: skip
    drawn = dataclasses.replace(drawn, title=80 * "long $name$ ")
    with figure_style.style(matplotlib_figure.FONT_SIZE):
        figure = matplotlib_figure.comparison_figure(drawn)
        figure.draw_without_rendering()
    box = figure.bbox
    for panel in figure.axes:
        bounds = panel.get_tightbbox()
        assert box.x0 <= bounds.x0 <= bounds.x1 <= box.x1
        assert box.y0 <= bounds.y0 <= bounds.y1 <= box.y1
        assert panel.has_data()
    boxes = [panel.get_tightbbox() for panel in figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    for text in figure.subfigs[0].texts:
        assert text.get_window_extent().x1 <= box.x1


def lines_of(panel):
    found = {line.get_label(): line for line in panel.lines}
    return {name: found[label] for name, label in figure_style.NAMES.items() if label in found}


def test_curves_are_the_densities_per_width_of_one_kernel(comparison):
    part = comparison.whole
    figure = matplotlib_figure.comparison_figure(comparison)
    linear, log = figure.axes[:2]
    for panel, curves in (
        (linear, density_curves.linear(part)),
        (log, density_curves.logarithmic(part)),
    ):
        assert list(lines_of(panel)) == ["H", "G", "R"]
        assert len({curve.width for curve in curves.values()}) == 1
        for name, line in lines_of(panel).items():
            x, y = line.get_data()
            curve = curves[name]
            shown = curve.values > density_curves.BOTTOM
            np.testing.assert_array_equal(x, curve.x)
            np.testing.assert_allclose(y[shown], curve.values[shown])
            assert line.get_color() == COLOURS[name]
        assert panel.get_yscale() == "log"


def test_a_single_eigenvalue_has_height_one():
    values = np.r_[np.linspace(-1.0, 1.0, 58), 20.0, 60.0]
    H = rotated(values, 1)
    part = single(H, H).whole
    linear, log = (f(part)["H"] for f in (density_curves.linear, density_curves.logarithmic))
    for value in values[-2:]:
        assert np.interp(value, linear.x, linear.values) == pytest.approx(1, abs=0.01)
        # They are two widths apart on the logarithmic axis.
        assert np.interp(value, log.points, log.values) == pytest.approx(1, abs=0.2)


def test_curves_pass_through_the_density_they_are_of(comparison):
    for name, curve in density_curves.linear(comparison.whole).items():
        d = comparison.whole.spectra[name].density
        scale = density_curves.single(d.size, curve.width)
        # The axis is logarithmic, and so are the lines between the points.
        x = np.linspace(curve.x[0], curve.x[-1], 5001)
        true = scale * d.curve(x, curve.width)[0]
        shown = true > density_curves.BOTTOM
        line = np.interp(x, curve.x, np.log(np.maximum(curve.values, 1e-300)))
        np.testing.assert_allclose(line[shown], np.log(true[shown]), atol=0.05)
        # The curve ends where it is no longer visible.
        assert curve.values[[0, -1]].max() < density_curves.BOTTOM


def test_a_tick_stands_below_each_separate_eigenvalue(comparison):
    panel = matplotlib_figure.comparison_figure(comparison).axes[0]
    for name, spectrum in comparison.whole.spectra.items():
        ticks = [
            float(line.get_xdata()[0])
            for line in panel.lines
            if line.get_marker() == "|" and line.get_color() == COLOURS[name]
        ]
        ends = (spectrum.largest, spectrum.smallest)
        expected = np.concatenate([pairs.values[pairs.separate] for pairs in ends])
        np.testing.assert_allclose(sorted(ticks), sorted(expected))


def points(panel, name):
    """The values of a matrix by rank, and the half lengths of their bars."""
    found = [box for box in panel.containers if box.lines[0].get_color() == COLOURS[name]]
    values = [float(box.lines[0].get_ydata()[0]) for box in found]
    bars = [np.ptp(box.lines[2][0].get_segments()[0][:, 1]) / 2 for box in found]
    markers = [box.lines[0].get_marker() for box in found]
    return np.array(values), np.array(bars), markers


def test_eigenvalues_by_rank_have_their_sampling_errors_as_bars(comparison):
    figure = matplotlib_figure.comparison_figure(comparison)
    for panel, end, step in zip(figure.axes[2:4], ("largest", "smallest"), (-1, 1), strict=True):
        for name in "HGR":
            pairs = getattr(comparison.whole.spectra[name], end)
            sampling = getattr(comparison.whole.sampling[name], end)
            values, bars, _ = points(panel, name)
            np.testing.assert_allclose(values, pairs.values[::step])
            if end == "largest":
                np.testing.assert_allclose(bars, np.fmax(sampling, pairs.errors)[::step])


def test_bounds_are_triangles_that_point_away_from_the_bulk(comparison):
    panel = matplotlib_figure.comparison_figure(comparison).axes[3]
    assert not comparison.whole.G.smallest.separate.any()
    assert points(panel, "G")[2] == K * ["v"]
    assert points(panel, "H")[2] == K * ["o"]
    assert panel.get_xlabel() == "rank (triangles are bounds)"


def test_the_number_of_outputs_is_marked(comparison):
    digits = dataclasses.replace(
        comparison, loss_name="categorical_crossentropy", rank_bound=60, num_examples=20
    )
    panel = matplotlib_figure.comparison_figure(digits).axes[2]
    assert [text.get_text() for text in panel.texts] == ["outputs − 1 = 2"]


def test_only_the_layers_with_the_largest_eigenvalues_are_drawn():
    sizes = {f"layer{i}": 2 for i in range(eigenvalue_panels.MAX_LAYERS + 3)}
    values = rotated(np.linspace(0.0, 4.0, 2 * len(sizes)), 0)
    found = hvp.compare(Known(values[None], values[None], sizes), 2, num_probes=2)
    panel = matplotlib_figure.comparison_figure(found).axes[4]
    assert (
        panel.get_title(loc="left")
        == f"largest λ by layer, {eigenvalue_panels.MAX_LAYERS} of {len(sizes)}"
    )
    assert len(panel.get_yticks()) == eigenvalue_panels.MAX_LAYERS


def test_text_stays_text_and_a_drawing_is_the_same_again(comparison, tmp_path):
    path = tmp_path / "picture.svg"
    matplotlib_figure.save_comparison(comparison, path)
    first = path.read_bytes()
    root = xml.etree.ElementTree.fromstring(first)
    texts = {"".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "tanh: the spectra of the Hessian and the Gauss-Newton matrix" in texts
    assert "eigenvalue λ" in texts
    matplotlib_figure.save_comparison(comparison, path)
    assert path.read_bytes() == first


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("drawn", [ZERO, NEGATIVE, LARGE], ids=["zero", "negative", "large"])
def test_unusual_spectra_are_drawn_without_warnings(drawn, tmp_path):
    path = tmp_path / "picture.png"
    matplotlib_figure.save_comparison(drawn, path)
    assert matplotlib.image.imread(path).std() > 0


def test_the_head_says_what_is_compared(comparison):
    figure = matplotlib_figure.comparison_figure(comparison)
    head = " ".join(text.get_text() for text in figure.subfigs[0].texts)
    for words in ("tanh: the spectra", "70 parameters", "40 examples", "loss 0.5", "75.0%"):
        assert words in head
    bare = dataclasses.replace(comparison, title="", accuracy=None)
    figure = matplotlib_figure.comparison_figure(bare)
    head = " ".join(text.get_text() for text in figure.subfigs[0].texts)
    assert head.startswith("the spectra")
    assert "accuracy" not in head


def test_the_file_is_a_picture_with_all_colours(comparison, tmp_path):
    path = tmp_path / "picture.png"
    matplotlib_figure.save_comparison(comparison, path)
    pixels = matplotlib.image.imread(path)
    assert (pixels[0, 0] == 1).all()  # a white page
    for colour in COLOURS.values():
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        assert (np.abs(pixels[:, :, :3] - wanted).max(axis=2) < 0.01).sum() > 50


def test_pyplot_and_its_global_state_are_left_alone(comparison, tmp_path):
    def figures():
        pyplot = sys.modules.get("matplotlib.pyplot")
        return [] if pyplot is None else pyplot.get_fignums()

    before = figures()
    matplotlib_figure.save_comparison(comparison, tmp_path / "picture.png")
    assert figures() == before


def test_a_line_of_counts_ends_where_the_count_is_not_known():
    """Closer to zero a count may look known by chance: no line leads there across a gap."""

    class Counted:
        floor, outliers = 1e-6, np.zeros(0)

        def count_above(self, threshold, floor):
            depth = 1e4 if 1e-4 < threshold < 1e-2 else 1.0
            return Estimate(1000.0, 1.0, depth=depth)

    thresholds, values, _ = density_panels._known_counts(Counted(), 1, 1e-6, 1.0)
    assert 1e-2 <= thresholds.min() < 2e-2
    assert thresholds.max() == 1.0
    assert (values == 1000.0).all()

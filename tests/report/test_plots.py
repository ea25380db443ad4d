"""The figures of single results, read back from their axes."""

import sys

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support.matrices import network

import hvp
from hvp.report.palette import COLOURS, INK


@pytest.fixture(autouse=True)
def closed():
    """pyplot keeps no figure of these tests."""
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def lin():
    return network()


@pytest.fixture(scope="module")
def pairs(lin):
    return hvp.eigsh(hvp.Hessian(lin), 4, which="BE")


def test_a_density_is_its_curve_per_kernel_width(lin, pairs):
    found = hvp.density(hvp.Hessian(lin), num_probes=4, num_steps=20, pairs=pairs)
    panel = found.plot()
    assert isinstance(panel, Axes)
    line = next(line for line in panel.lines if len(line.get_xdata()) > len(pairs.values))
    x, height = line.get_data()
    width = max(found.width, np.ptp([*found.nodes.ravel(), *found.outliers]) / 160)
    curve, _ = found.curve(x, width)
    shown = height > 0.3
    expected = found.size * width * np.sqrt(2 * np.pi) * curve
    np.testing.assert_allclose(height[shown], expected[shown], rtol=1e-9)
    ticks = next(line for line in panel.lines if line.get_marker() == "|")
    np.testing.assert_array_equal(ticks.get_xdata(), found.outliers)
    assert f"density of 70 eigenvalues, kernel width σ = {width:.2g}" in panel.get_title(loc="left")


def test_eigenpairs_are_drawn_by_rank_with_their_errors(pairs):
    panel = pairs.plot()
    separate = panel.containers[0]
    order = np.argsort(separate.lines[0].get_xdata())
    np.testing.assert_array_equal(separate.lines[0].get_ydata()[order], pairs.values[::-1])
    bars = [np.ptp(segment[:, 1]) / 2 for segment in separate.lines[2][0].get_segments()]
    np.testing.assert_allclose(bars, pairs.errors, atol=1e-12)
    labels = [label.get_text() for label in panel.get_xticklabels()]
    assert labels == ["1", "2", "−2", "−1"]
    assert panel.get_title(loc="left") == "4 eigenvalues of 70, ± ‖Av − λv‖"


def test_bounds_are_triangles():
    values, errors = np.array([0.0, 0.1, 2.0]), np.full(3, 0.2)
    panel = hvp.Eigenpairs(values, np.eye(9)[:, :3], errors, 5).plot()
    separate, bounds = (box.lines[0] for box in panel.containers)
    assert (separate.get_marker(), separate.get_ydata().tolist()) == ("o", [2.0])
    assert (bounds.get_marker(), bounds.get_ydata().tolist()) == ("^", [0.0, 0.1])
    assert panel.get_xlabel() == "rank (triangles are bounds)"


def test_no_eigenpairs_are_an_empty_panel():
    panel = hvp.Eigenpairs(np.zeros(0), np.zeros((9, 0)), np.zeros(0), 5).plot()
    assert panel.get_title(loc="left").startswith("0 eigenvalues of 9")


def test_a_slice_is_the_loss_over_its_parabola(lin, pairs):
    found = hvp.loss_slice(lin, pairs[:3], radius=[0.5, 1.0, 2.0])
    figure = found.plot()
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 3
    for i, panel in enumerate(figure.axes):
        loss = next(line for line in panel.lines if line.get_label() == "loss")
        np.testing.assert_array_equal(loss.get_data(), [found.steps[i], found.losses[i]])
        parabola = next(line for line in panel.lines if line.get_linestyle() == "--")
        assert (loss.get_color(), parabola.get_color()) == (INK, COLOURS["H"])
        t, y = parabola.get_data()
        np.testing.assert_allclose(
            y, found.loss + t * found.slopes[i] + t**2 * found.curvatures[i] / 2
        )
        low, high = panel.get_ylim()
        assert low < found.losses[i].min() <= found.losses[i].max() < high
        assert f"vᵀHv = {found.curvatures[i]:.2f}".replace("-", "−")[:-1] in panel.get_title(
            loc="left"
        )


def test_a_steep_parabola_does_not_hide_the_loss():
    line = hvp.linearize_function(lambda w: np.float64(1) / (1 + 100 * w[0] ** 2), np.zeros(1))
    found = hvp.loss_slice(line, np.ones(1), radius=1.0)
    (panel,) = found.plot().axes
    low, high = panel.get_ylim()
    assert found.parabolas.min() < -90
    assert high - low < 2 * np.ptp(found.losses)


def test_a_comparison_has_the_panels_of_its_file(lin):
    comparison = hvp.compare(lin, 2, num_probes=2, num_steps=10)
    figure = comparison.plot()
    assert len(figure.axes) == 5
    assert pyplot.get_fignums() == [figure.number]


def test_what_is_given_is_drawn_in(pairs):
    figure = Figure()
    panel = figure.subplots()
    assert pairs.plot(panel) is panel
    assert panel.containers
    assert pyplot.get_fignums() == []


def test_figures_are_on_white(pairs):
    assert pairs.plot().figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)


def test_without_matplotlib_it_is_said_in_one_line(lin, pairs, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("hvp.report.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = hvp.density(hvp.Hessian(lin), num_probes=2, num_steps=5)
    for result in (pairs, found, hvp.loss_slice(lin, pairs)):
        with pytest.raises(hvp.InputError, match=r"extra 'report', got no module matplotlib; pip"):
            result.plot()

"""Curvature along points: against dense algebra, with warm starts, refusals and files."""

import dataclasses
import json

import keras
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from support.matrices import Known

import hvp
import hvp.report.matplotlib_figure
from hvp.comparison import track as module

SIZE = 600


class Moving(Known):
    """Diagonal matrices with one of rank one beside them, that move with the point t."""

    opened = closed = 0

    def __init__(self, t=0.0):
        super().__init__(np.zeros((1, 1, 1)), np.zeros((1, 1, 1)), {"all": SIZE})
        self.t = t
        G = np.r_[np.linspace(0.0, 1.0, SIZE - 3), 3.0, 4.0, 6.0]
        R = np.linspace(-0.9, 0.3, SIZE) + 0.1 * t * np.linspace(-1.0, 1.0, SIZE)
        self.diagonals = {"G": G, "R": R, "H": G + R}
        self.vector = np.cos(np.arange(SIZE)) / 10

    def _times(self, letter, v):
        product = (self.diagonals[letter] * v.T).T
        if letter == "G":
            return product
        return product + np.outer(self.vector, self.vector @ v).reshape(v.shape)

    def dense(self, letter):
        return self._times(letter, np.eye(SIZE))

    def loss(self):
        return 1.0 + self.t**2

    def at(self, point):
        if not np.isfinite(point):
            raise hvp.InputError("finite parameters", "NaN", "check them")
        Moving.opened += 1
        return Moving(float(point))

    def close(self):
        Moving.closed += 1


@pytest.fixture(scope="module")
def found():
    return hvp.track(Moving(), {f"step {t}": t for t in (0, 1, 2)}, title="a & b")


def test_the_numbers_are_those_of_dense_algebra(found):
    for t, row in enumerate(found.rows()):
        H = Moving(t).dense("H")
        values = np.linalg.eigvalsh(H)
        assert row["point"] == f"step {t}"
        assert row["loss"] == 1.0 + t**2
        for end, value in (("largest", values[-1]), ("smallest", values[0])):
            assert abs(row[end] - value) <= row[f"{end}_error"] + 1e-12
            assert row[f"{end}_error"] <= 2e-3 * values[-1]
        assert abs(row["trace"] - np.trace(H)) <= 4 * row["trace_stderr"]
        assert 0 < row["trace_stderr"] < 0.05 * np.trace(H)
        assert row["gradient_norm"] == pytest.approx(0.25 * np.sqrt(SIZE))


def test_each_point_starts_from_the_vectors_of_the_one_before(found):
    again = hvp.track(Moving(), [1, 1])
    cold, warm = (point.num_products for point in again.points)
    assert warm <= cold - 20
    assert again.points[1].largest == pytest.approx(again.points[0].largest, abs=1e-3)


@pytest.mark.parametrize("letter", ["G", "R"])
def test_other_matrices_can_be_tracked(letter):
    (row,) = hvp.track(Moving(), [0], matrix=letter, num_products=4).rows()
    values = np.linalg.eigvalsh(Moving().dense(letter))
    assert row["largest"] == pytest.approx(values[-1], abs=2e-3)
    assert row["smallest"] == pytest.approx(values[0], abs=2e-3)


def test_each_point_is_closed_even_where_it_fails(monkeypatch):
    def fail(*args, **options):
        raise hvp.ConvergenceError("expected 1, got 2; ask for less")

    Moving.opened = Moving.closed = 0
    monkeypatch.setattr(module, "trace", fail)
    with pytest.raises(hvp.ConvergenceError, match=r"^expected 1, got 2 at last; raise tol"):
        hvp.track(Moving(), {"last": 0})
    assert (Moving.opened, Moving.closed) == (1, 1)


def test_an_interruption_leaves_what_is_done(monkeypatch):
    tracking = module.Tracking(Moving(), num_products=4)
    tracking.add("one", 0)

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "trace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tracking.add("two", 1)
    found = tracking.track(unfinished=["two"])
    assert [point.name for point in found.points] == ["one"]
    assert "Interrupted: without two." in repr(found)


def test_points_may_come_from_a_generator_and_get_numbers():
    seen = []

    def points():
        for t in (0.0, 0.5):
            seen.append(t)
            yield t

    found = hvp.track(Moving(), points(), num_products=4, progress=lambda label, n: None)
    assert [point.name for point in found.points] == ["0", "1"]
    assert seen == [0.0, 0.5]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "at least one checkpoint"),
        ({}, "at least one point, got none"),
        (3.0, "several points, got 3.0"),
        ({"good": 0.0, "bad": np.nan}, "finite parameters, got NaN at point 'bad'; check them"),
    ],
)
def test_what_cannot_be_tracked_is_refused(points, message, monkeypatch):
    monkeypatch.setattr(module, "trace", lambda *args, **options: hvp.Estimate(0.0, 0.0))
    with pytest.raises(hvp.InputError, match=message):
        hvp.track(Moving(), points)


@pytest.mark.parametrize(
    ("lin", "options", "message"),
    [
        (np.eye(2), {}, "a Linearization, got ndarray"),
        (Moving(), {"matrix": "F"}, "one of H, G, R, got 'F'"),
        (Moving(), {"num_products": 0}, "num_products of at least 1"),
    ],
)
def test_other_arguments_are_refused(lin, options, message):
    with pytest.raises(hvp.InputError, match=message):
        hvp.track(lin, [0.0], **options)


def test_it_shows_as_a_short_table(found):
    text = repr(found)
    assert text.splitlines()[0].startswith("a & b: H at 3 points, 600 parameters, 10 examples")
    row = next(line for line in text.splitlines() if line.startswith("step 1"))
    assert row.split()[2:4] == ["2.000", "75.00%"]
    assert float(row.split()[4]) == pytest.approx(found.points[1].largest, abs=1e-3)
    assert "<td>step 2</td>" in found._repr_html_()
    assert "a &amp; b" in found._repr_html_()


def test_rows_are_plain_and_have_the_same_keys(found):
    rows = found.rows()
    assert len({tuple(row) for row in rows}) == 1
    assert {type(value) for row in rows for value in row.values()} <= {int, float, str}


def test_a_failed_certificate_is_said_first(found):
    Hv = dataclasses.replace(found.certificate.Hv, error=0.5)
    certificate = dataclasses.replace(found.certificate, Hv=Hv)
    failed = dataclasses.replace(found, certificate=certificate)
    assert (found.passed, failed.passed) == (True, False)
    assert "The certificate failed: Hv by differences" in repr(failed)


def test_the_files_hold_the_numbers(found, tmp_path, monkeypatch):
    monkeypatch.setattr(hvp.report.matplotlib_figure, "DPI", 40)
    written = found.save(tmp_path / "new")
    assert [path.name for path in written] == ["track.json", "track.png", "track.svg"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [p.name for p in written]
    document = json.loads(written[0].read_text())
    assert document == found.to_json()
    assert document["points"] == found.rows()
    assert (document["schema"], document["matrix"], document["size"]) == (1, "H", SIZE)
    assert document["certificate"]["passed"]
    assert matplotlib.image.imread(written[1]).std() > 0.01
    assert "largest eigenvalue of H" in written[2].read_text()


def lines_of(figure):
    return [panel.get_lines()[0] for panel in figure.axes]


def test_the_picture_shows_the_numbers(found):
    figure = found.plot()
    assert isinstance(figure, Figure)
    for line, name in zip(lines_of(figure), ("largest", "smallest", "trace", "loss"), strict=True):
        np.testing.assert_allclose(line.get_ydata(), [row[name] for row in found.rows()])
        np.testing.assert_allclose(line.get_xdata(), [0, 1, 2])
    assert figure.axes[-1].get_xlabel() == "step"


def test_a_picture_of_named_points_has_their_names():
    found = hvp.track(Moving(), {"$start": 0.0, "the end": 1.0}, num_products=4)
    figure = found.plot()
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert labels == [r"\$start", "the end"]
    figure.savefig("/dev/null", format="png")


# Files of Keras


def network(units=4):
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(units, "tanh"), keras.layers.Dense(2)]
    )
    net.compile("sgd", "mse")
    return net


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A directory with weights after 1, 2 and 10 epochs, and the linearization at the start."""
    directory = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)).astype("float32"), rng.normal(size=(20, 2)).astype("float32")
    net = network()
    lin = hvp.linearize(net, (x, y), ad="forward-over-reverse", jit=False)
    for epoch in (1, 2, 10):
        net.fit(x, y, verbose=0)
        net.save_weights(directory / f"epoch-{epoch}.weights.h5")
    net.save(directory / "end.keras")
    return directory, lin


def test_a_directory_of_checkpoints_is_tracked_and_their_numbers_are_right(run):
    directory, lin = run
    found = hvp.track(lin, directory)
    assert [point.name for point in found.points] == ["epoch-1", "epoch-2", "epoch-10"]
    losses = [point.loss for point in found.points]
    assert losses[0] > losses[1] > losses[2]
    there = lin.at(directory / "epoch-2.weights.h5")
    H = there.hvp(np.eye(lin.size, dtype=lin.dtype))
    values = np.linalg.eigvalsh((H + H.T) / 2)
    row = found.rows()[1]
    assert [row["largest"], row["smallest"], row["trace"]] == pytest.approx(
        [values[-1], values[0], np.trace(H)], abs=1e-5
    )
    assert found.certificate.passed
    assert found.certificate.Hv.error is not None
    (whole,) = hvp.track(lin, [directory / "end.keras"]).rows()
    assert whole["largest"] == found.rows()[2]["largest"]


def test_a_file_that_is_no_point_is_named(run, tmp_path):
    _, lin = run
    network(5).save_weights(tmp_path / "wide.weights.h5")
    network(5).save(tmp_path / "wide.keras")
    net = network()
    net.set_weights([np.full_like(w, np.nan) for w in net.get_weights()])
    net.save_weights(tmp_path / "nan.weights.h5")
    (tmp_path / "text.weights.h5").write_text("text")
    for name in ("wide.weights.h5", "wide.keras", "nan.weights.h5", "text.weights.h5"):
        with pytest.raises(hvp.InputError, match=name) as error:
            hvp.track(lin, [tmp_path / name])
        assert str(error.value).count(name) == 1

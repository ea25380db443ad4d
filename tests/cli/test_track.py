"""``hvp track``: what it prints and writes, interruptions, and that bad input is one line."""

import json
import shlex

import matplotlib.image
import numpy as np
import pytest
from support.command_line import network, run

import hvp
import hvp.report.matplotlib_figure
from hvp.cli import options
from hvp.comparison import track as numbers
from hvp.comparison.track import Tracking

KINDS = ("json", "png", "svg")


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch):
    monkeypatch.setattr(hvp.report.matplotlib_figure, "DPI", 40)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, its data, a directory of checkpoints, and files that are none."""
    here = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((12, 4)).astype(np.float32), rng.integers(0, 3, 12)
    np.savez(here / "data.npz", x=x, y=y)
    net = network()
    net.save(here / "net.keras")
    (here / "run").mkdir()
    (here / "empty").mkdir()
    for epoch in (2, 10):
        net.fit(x, y, verbose=0)
        net.save_weights(here / f"run/epoch-{epoch}.weights.h5")
    net.save(here / "end.keras")
    network(6).save_weights(here / "wide.weights.h5")
    net.set_weights([np.full_like(w, np.nan) for w in net.get_weights()])
    net.save_weights(here / "nan.weights.h5")
    (here / "text.weights.h5").write_text("text")
    return here


@pytest.fixture
def here(files, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    return tmp_path


def track(out, *arguments):
    words = ["track", "--data", "data.npz", "--out", out, "--products", "4", *arguments]
    return run(*words)


MODEL = ("--model", "net.keras")


def document(out):
    return json.loads((out / "track.json").read_text())


def written(out):
    return sorted(path.name for path in out.iterdir()) if out.exists() else []


@pytest.mark.sweep
def test_a_directory_is_tracked_in_natural_order(here):
    out = here / "out"
    result = track(out, *MODEL, "--weights", "run", "--seed", 3)
    assert (result.exit_code, result.stderr) == (0, "")
    assert written(out) == [f"track.{kind}" for kind in KINDS]
    found = document(out)
    assert [point["point"] for point in found["points"]] == ["epoch-2", "epoch-10"]
    assert (found["title"], found["size"], found["seed"], found["unfinished"]) == ("net", 43, 3, [])
    words = shlex.split(found["command"])
    assert words[:2] + words[-4:] == ["hvp", "track", "--products", "4", "--seed", "3"]
    heading, *lines = result.stdout.splitlines()[:3]
    assert heading.split()[:3] == ["point", "loss", "accuracy"]
    for line, point in zip(lines, found["points"], strict=True):
        name, loss, accuracy, largest = line.split()[:4]
        assert name == point["point"]
        assert accuracy == f"{point['accuracy']:.2%}"
        assert float(loss) == pytest.approx(point["loss"], rel=1e-3)
        assert float(largest) == pytest.approx(point["largest"], rel=1e-3)
    assert matplotlib.image.imread(out / "track.png").std() > 0.01
    for kind in KINDS:
        assert f"wrote {out / f'track.{kind}'}" in result.stdout


def test_files_are_tracked_as_they_are_named_and_models_may_be_among_them(here):
    names = ("run/epoch-10.weights.h5", "end.keras", "run/epoch-2.weights.h5")
    result = track(here, "--weights", *names, "--matrix", "G", "--layers", "last", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    found = document(here)
    assert [point["point"] for point in found["points"]] == ["epoch-10", "end", "epoch-2"]
    assert (found["title"], found["matrix"], found["size"]) == ("end", "G", 18)
    tenth, end, _ = found["points"]
    assert tenth["largest"] == pytest.approx(end["largest"], rel=1e-6)


def test_values_of_the_option_may_follow_one_another_or_stand_alone():
    words = ["--weights=a", "b", "-q", "--weights", "c", "d", "--seed", "1", "e"]
    taken = options.repeated(words, "--weights")
    once = ["--weights=a", "--weights", "b", "-q", "--weights", "c", "--weights", "d"]
    assert taken == [*once, "--seed", "1", "e"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "expected --weights with checkpoints, as there is nothing to track without, got none"),
        (("--weights", "empty"), "NAME.weights.h5 or NAME.keras, got 'empty' without any"),
        (("--weights", "none.weights.h5"), "expected an HDF5 file, got no file 'none.weights.h5'"),
        (("--weights", "text.weights.h5"), "expected an HDF5 file, got a text file 'text.weight"),
        (("--weights", "data.npz"), "expected a .keras file, got an .npz file 'data.npz'"),
        (("--weights", "run", "wide.weights.h5"), "'wide.weights.h5'"),
        (("--weights", "run", "nan.weights.h5"), "got NaN or infinity in hidden/kernel at 'nan."),
        (("--weights", "run", "--matrix", "F"), "expected --matrix H or G or R, got 'F'"),
        (("--weights", "run", "--products", "0"), "expected --products of at least 1, got 0"),
        (("--weights", "run", "--examples", "0"), "expected --examples of at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_measured(here, arguments, text, monkeypatch):
    monkeypatch.setattr(Tracking, "add", lambda *a: pytest.fail("measured"))
    result = track(here / "out", *MODEL, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("hvp: expected ")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (here / "out").exists()


def test_weights_without_a_model_are_refused(here):
    result = track(here / "out", "--weights", "run")
    assert result.exit_code == 2
    assert "expected --model MODEL.keras, as weights alone are no model" in result.stderr


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (hvp.ConvergenceError("expected 1, got 2; ask"), 1, "expected 1, got 2 at epoch-10; give"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_is_finished_is_written(here, monkeypatch, error, code, line):
    trace, calls = numbers.trace, []

    def second_fails(*args, **options):
        calls.append(1)
        if len(calls) > 1:
            raise error
        return trace(*args, **options)

    monkeypatch.setattr(numbers, "trace", second_fails)
    result = track(here, *MODEL, "--weights", "run")
    assert result.exit_code == code
    assert result.stderr.startswith(f"hvp: {line}")
    found = document(here)
    assert [point["point"] for point in found["points"]] == ["epoch-2"]
    assert found["unfinished"] == ["epoch-10"]
    assert "Interrupted: without epoch-10." in result.stdout


def test_an_interruption_before_the_first_point_writes_no_results(here, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(numbers, "trace", interrupt)
    result = track(here / "out", *MODEL, "--weights", "run")
    assert (result.exit_code, result.stderr) == (130, "hvp: interrupted\n")
    assert [path.name for path in (here / "out").iterdir()] == ["track.journal"]


def test_wrong_derivatives_exit_with_1_and_keep_the_numbers(here, monkeypatch):
    hessian = hvp.Linearization.hvp
    monkeypatch.setattr(hvp.Linearization, "hvp", lambda lin, v: 1.5 * hessian(lin, v))
    result = track(here, *MODEL, "--weights", "run/epoch-2.weights.h5")
    assert result.exit_code == 1
    assert "hvp: net: The certificate failed: Hv by differences" in result.stderr
    assert document(here)["certificate"]["passed"] is False


def test_results_are_not_written_over_a_directory(here):
    (here / "track.json").mkdir()
    result = track(here, *MODEL, "--weights", "run")
    assert result.exit_code == 2
    assert "a directory to write to" in result.stderr

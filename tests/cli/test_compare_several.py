"""`hvp compare` on several models, and from an earlier comparison."""

import shlex
from pathlib import Path

import keras
import pytest
from support.command_line import (
    KINDS,
    assert_refused,
    compare,
    document,
    files,
    model,
    succeeded,
    without_times,
)

from hvp import ConvergenceError
from hvp.cli import comparing
from hvp.comparison.run import Run

layers = keras.layers

pytestmark = pytest.mark.usefixtures("less_work")


@pytest.fixture
def two_models(inputs):
    """Two models on the same data; of each, the last layer alone is compared."""
    Path("others").mkdir()
    model(kernel_initializer="ones").save("others/-wide.keras")
    options = ("--data", "data.npz", "--layers", "last", "-k", 1, "--out", "out")
    return ("net.keras", "./others/../others/-wide.keras", *options)


def test_several_models_get_a_directory_each_and_a_page_that_compares_them(two_models, here):
    result = compare(*two_models)
    succeeded(result)
    written = [f"{name}/compare.{kind}" for name in ("-wide", "net") for kind in KINDS]
    assert files(here / "out") == [*written[:5], "compare.html", *written[5:]]
    assert result.stdout.count("wrote out/") == 11
    page = (here / "out/compare.html").read_text()
    for name in ("net", "-wide"):
        found = document(here / "out" / name)
        assert (found["title"], found["size"], found["num_examples"]) == (name, 18, 12)
        assert f'<a href="{name}/compare.html">{name}</a>' in page
        assert (
            'One of 2 models: <a href="../compare.html">'
            in (here / "out" / name / "compare.html").read_text()
        )
        words = shlex.split(found["command"])
        assert words[:4] == ["hvp", "compare", "net.keras", "others/../others/-wide.keras"]


@pytest.mark.sweep
def test_one_model_by_its_name_is_as_by_the_option(inputs, here):
    options = (*inputs[2:], "--layers", "last", "-k", 1)
    succeeded(compare(inputs[1], *options, "--out", "first"))
    succeeded(compare(*inputs[:2], *options, "--out", "second"))
    assert files(here / "first") == [f"compare.{kind}" for kind in KINDS]
    first, second = (without_times(document(here / out)) for out in ("first", "second"))
    assert first.pop("command") == "hvp compare net.keras --data data.npz --layers last -k 1"
    second.pop("command")
    assert first == second
    assert "One of" not in (here / "first/compare.html").read_text()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("net.keras", "--model", "net.keras"), "models by their names or by --model, got both"),
        (
            ("net.keras", "others/NET.keras"),
            "models with different names, as results are named after them, got 'net.keras' and "
            "'others/NET.keras'; rename one",
        ),
        (("net.keras", "--activation", "relu"), "expected --model or --activation, got both"),
        (("net.keras", "none.keras"), "got no file 'none.keras'"),
    ],
)
def test_models_that_cannot_be_compared_are_one_line(inputs, here, words, text):
    assert_refused(compare(*words, *inputs[2:], "--out", "out"), text)
    assert not (here / "out").exists()


def test_a_model_that_cannot_take_the_data_is_refused_before_any_is_compared(inputs, here):
    keras.Sequential([keras.Input((9,)), layers.Dense(3)]).save("other.keras")
    options = ("--loss", "mse", "--out", "out")
    assert_refused(compare("net.keras", "other.keras", *inputs[2:], *options), "expected ")
    assert not (here / "out").exists()


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConvergenceError("expected errors up to 1e-9, got 1"), 1, "expected errors up to 1e-9"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_models_that_are_finished_are_written(two_models, here, monkeypatch, error, code, line):
    step = Run.step

    def of_the_first(run):
        if of_the_first.runs.setdefault(id(run), len(of_the_first.runs)) > 0:
            raise error
        kept.append(run)  # so that no other one gets its id
        return step(run)

    of_the_first.runs, kept = {}, []
    monkeypatch.setattr(Run, "step", of_the_first)
    result = compare(*two_models)
    assert result.exit_code == code
    assert result.stderr.startswith(f"hvp: {line}")
    kinds = sorted([*KINDS, "journal"])
    assert files(here / "out") == [f"net/compare.{kind}" for kind in kinds]
    assert document(here / "out/net")["unfinished"] == []


@pytest.mark.sweep
def test_a_comparison_starts_from_an_earlier_one(one_layer, here):
    effort = (*one_layer, "-k", 1, "--parts", "ends", "-q")
    succeeded(compare(*effort, "--out", "first"))
    succeeded(compare(*effort, "--out", "second", "--start-from", "first/compare.json"))
    first, second = document(here / "first"), document(here / "second")
    ends = [found["parts"]["selected layers"]["H"]["largest"] for found in (first, second)]
    assert ends[1]["values"] == pytest.approx(ends[0]["values"], abs=1e-5)
    assert second["command"] == f"{first['command']} --start-from first/compare.json"


@pytest.mark.sweep
def test_several_models_start_from_their_own_comparisons(inputs, here):
    starts = (("a", "b"), ("first/a", "first/b"))
    for name in starts[0]:
        model().save(f"{name}.keras")
    options = ("--data", "data.npz", "--layers", "last", "-k", 1, "--parts", "ends", "-q")
    succeeded(compare("a.keras", "b.keras", *options, "--out", "first"))
    for path in ("first", "first/compare.html"):
        found = comparing.starts(Path(path), starts[0])
        assert [each.vectors.keys() for each in found] == [
            comparing.starts(Path(name), ["x"])[0].vectors.keys() for name in starts[1]
        ]


@pytest.mark.sweep
def test_a_start_that_does_not_fit_is_refused(one_layer, inputs, here):
    effort = ("-k", 1, "--parts", "ends", "-q")
    assert_refused(
        compare(*inputs, *effort, "--start-from", "nowhere.json"),
        "expected a compare.json, got no file 'nowhere.json'; check the path",
    )
    succeeded(compare(*one_layer, *effort, "--out", "first"))
    assert_refused(
        compare(*inputs, *effort, "--start-from", "first"),
        "expected a --start-from with layer hidden of shapes (4, 5) (5,), got shapes none; "
        "leave --start-from out",
    )
    (here / "first/compare.npz").unlink()
    assert_refused(
        compare(*inputs, *effort, "--start-from", "first"),
        "expected a compare.npz beside the compare.json, got no 'first/compare.npz'; "
        "leave --start-from out",
    )

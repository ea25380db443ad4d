"""Checkpoints in order, their names, and what the names count."""

from pathlib import Path

import pytest

from hvp import InputError
from hvp.comparison.checkpoints import checkpoints, natural_order, numbers, short_names


def touch(directory, *names):
    directory.mkdir(exist_ok=True)
    for name in names:
        (directory / name).touch()


def test_a_directory_stands_for_its_checkpoints_in_natural_order(tmp_path):
    names = ["epoch-10", "epoch-2", "epoch-1", "Epoch-3"]
    touch(tmp_path, *(f"{name}.weights.h5" for name in names), ".x.weights.h5", "a.keras", "log")
    found = checkpoints([tmp_path, tmp_path / "a.keras"])
    order = ["epoch-1", "epoch-2", "Epoch-3", "epoch-10"]
    assert [p.name for p in found] == [*(f"{name}.weights.h5" for name in order), "a.keras"]


def test_models_are_taken_where_there_are_no_weights_alone(tmp_path):
    touch(tmp_path, "b2.keras", "b11.keras", "notes.txt")
    assert [p.name for p in checkpoints([tmp_path])] == ["b2.keras", "b11.keras"]


def test_files_keep_the_order_in_which_they_are_given():
    assert checkpoints(["b.keras", "a.keras"]) == [Path("b.keras"), Path("a.keras")]


def test_nothing_to_track_is_refused(tmp_path):
    touch(tmp_path / "empty", "x.h5")
    with pytest.raises(InputError, match=r"NAME\.weights\.h5 or NAME\.keras.*empty"):
        checkpoints([tmp_path / "empty"])
    with pytest.raises(
        InputError, match=r"a directory, or a file NAME\.weights\.h5 or NAME\.keras"
    ):
        checkpoints([tmp_path / "none"])
    with pytest.raises(InputError, match="at least one checkpoint"):
        checkpoints([])


def test_any_names_have_an_order():
    names = ["2", "a", "10", "1a", "", "a1b2", "a1b10", "02"]
    ordered = sorted(names, key=natural_order)
    assert ordered == ["", "1a", "02", "2", "10", "a", "a1b2", "a1b10"]


def test_names_are_different():
    paths = [Path("run/1.keras"), Path("run/1.keras")]
    assert len(set(short_names(paths))) == 2
    assert short_names([Path("x.y.h5")]) == ["x.y.h5"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["w1-5.h5", "w1-7.h5"], ("", [5.0, 7.0])),
        (["a_step=5", "a_step=70"], ("a_step", [5.0, 70.0])),
        (["epoch1-loss3", "epoch2-loss2"], None),
        (["a1", "b1"], None),
        (["a", "a1"], None),
        (["e2", "e1"], None),
    ],
)
def test_what_names_count(names, expected):
    assert numbers(names) == expected

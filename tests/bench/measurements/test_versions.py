"""Old against new."""

import shutil
from pathlib import Path

import pytest

import hvp
from bench.measurements import problems, versions
from hvp.benchmark import measure

DENSE = problems.TINY["tiny-dense"]


def test_a_directory_without_hvp_is_refused(tmp_path):
    with pytest.raises(hvp.InputError, match="expected a checkout of hvp"):
        versions.check_checkout(tmp_path)


@pytest.mark.slow
def test_a_copy_is_measured_in_turns_and_gives_the_same_products(tmp_path):
    shutil.copytree(Path(hvp.__file__).parent, tmp_path / "hvp")
    checkout = versions.check_checkout(tmp_path)
    rows = list(versions.compare([DENSE], checkout, measure.SMALLEST, lambda _: None))
    assert [row.measurement for row in rows] == [*measure.SMALLEST.figures, "first"]
    assert all(row.ratio > 0 for row in rows)
    assert {row.difference for row in rows[:-1]} == {0.0}

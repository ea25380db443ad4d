"""Old against new."""

import shutil

import pytest

import hvp
from bench.harness.process import ROOT
from bench.measurements import measure, problems, versions

DENSE = problems.TINY["tiny-dense"]


def test_a_directory_without_hvp_is_refused(tmp_path):
    with pytest.raises(hvp.InputError, match="expected a checkout of hvp"):
        versions.check_checkout(tmp_path)


@pytest.mark.slow
def test_a_copy_is_measured_in_turns_and_gives_the_same_products(tmp_path):
    shutil.copytree(ROOT / "hvp", tmp_path / "hvp")
    checkout = versions.check_checkout(tmp_path)
    rows = list(versions.compare([DENSE], checkout, measure.SMALLEST, lambda _: None))
    assert [row.measurement for row in rows] == [*measure.SMALLEST.figures, "first"]
    assert all(row.ratio > 0 for row in rows)
    assert {row.difference for row in rows[:-1]} == {0.0}

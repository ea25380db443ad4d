"""Which products count as right."""

import numpy as np
from support.bench_records import figure

from bench.results import report
from hvp.benchmark import measure
from hvp.benchmark.records import Result


def test_a_peer_that_differs_is_wrong_and_not_the_fastest():
    found = figure(a=Result("ok", seconds=2.0, ratio=0.5), b=Result("ok", seconds=0.1, ratio=10.0))
    ours = np.ones((4, 1), np.float32)
    measure.judge(found, "a", ours * (1 + 1e-6), ours)
    measure.judge(found, "b", ours * 1.1, ours)
    assert (found.results["a"].status, found.results["b"].status) == ("ok", "wrong")
    assert found.fastest == "a"
    assert found.confirmed_by == ["a"]
    assert "wrong 1e-1" in report.cell(found.results["b"])


def test_not_a_number_agrees_with_nothing():
    found = figure(a=Result("ok"))
    measure.judge(found, "a", np.array([[np.nan]]), np.array([[np.nan]]))
    assert found.results["a"].status == "wrong"

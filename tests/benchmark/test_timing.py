"""Turns, rounds and the ratios of neighbours."""

from hvp.benchmark import timing


def test_ratios_are_of_neighbours_and_medians_forgive_a_spike():
    ours = iter([1.0, 1.0, 2.0, 2.0, 90.0, 1.0])
    fast, slow = iter([0.5, 1.0, 0.5]), iter([4.0, 8.0, 4.0])
    others = {"fast": lambda: next(fast), "slow": lambda: next(slow)}
    timed = timing.interleave(lambda: next(ours), others, 3)
    assert timed.ratios == {"fast": 2.0, "slow": 0.25}
    assert timed.seconds == {"fast": 0.5, "slow": 4.0}
    assert timed.ours == 1.5
    assert (timed.ours_best, timed.best) == (1.0, {"fast": 0.5, "slow": 4.0})


def test_ours_goes_before_each_other():
    order = []
    others = {name: lambda name=name: order.append(name) or 1.0 for name in "bc"}
    timing.interleave(lambda: order.append("a") or 1.0, others, 2)
    assert "".join(order) == "abacabac"


def test_rounds_are_odd_and_at_least_three():
    assert [timing.rounds_in(60, seconds, 11) for seconds in (1, 8, 12, 100)] == [11, 7, 5, 3]
    assert timing.calls_in(0.05, 0.002) == 25
    assert timing.calls_in(0.05, 1.0) == 1

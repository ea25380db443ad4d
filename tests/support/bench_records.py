"""Records of benchmark runs, for the tests that judge them."""

from bench.backends.implementations import OURS, Entry
from bench.measurements import targets
from bench.results import record
from bench.results.record import (
    Measurement,
    Result,
    Run,
)

ABSENT = Entry(
    "pytorch",
    "PyTorch",
    "nowhere:Nothing",
    {"no_such_package": "no-such-dist"},
    has_density=True,
)


def figure(**results):
    return Measurement({OURS.name: Result("ok", seconds=1.0), **results})


def a_run(problem, name="wide"):
    return Run("2026-01-01", record.machine(), {}, {}, {}, problems={name: problem})


def verdict(run, **wanted):
    (found,) = (
        v
        for v in targets.verdicts(run)
        if all(getattr(v.target, key) == value for key, value in wanted.items())
    )
    return found

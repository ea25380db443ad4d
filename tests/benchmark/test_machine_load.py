"""The load of other programs."""

import os

import pytest

from hvp.benchmark import machine_load


def test_work_of_others_is_what_the_machine_did_and_we_did_not():
    before = machine_load.Usage(wall=0.0, machine=100.0, own=10.0)
    cores = len(os.sched_getaffinity(0))
    after = machine_load.Usage(wall=10.0, machine=100.0 + 6 * cores, own=10.0 + 4 * cores)
    assert machine_load.of_others(before, after) == pytest.approx(0.2)
    assert machine_load.of_others(None, after) is None

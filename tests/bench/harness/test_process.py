"""Errors of a worker process."""

import os
import signal

import pytest

from bench.harness.process import Worker, WorkerError
from bench.measurements import problems

DENSE = problems.TINY["tiny-dense"]


def test_a_worker_that_fails_or_dies_says_why_in_a_line():
    with Worker("hvp") as worker:
        worker.wait_until_ready()
        with pytest.raises(WorkerError, match="InputError: expected a problem among"):
            worker.ask("load", "nonsense")
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="ended with -9, killed"):
            worker.ask("load", DENSE.name)

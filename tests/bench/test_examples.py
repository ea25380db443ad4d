"""The example files for airspeed-velocity and pytest-benchmark run."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.examples import asv_products

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.sweep


def test_the_file_for_asv_runs_as_asv_runs_it():
    found = {}
    for arguments in itertools.product(*asv_products.Products.params):
        suite = asv_products.Products()
        suite.setup(*arguments)
        for name in sorted(vars(asv_products.Products)):
            if name.startswith(("time_", "peakmem_", "track_")):
                found[name, *arguments] = getattr(suite, name)(*arguments)
    size = asv_products.WIDTH * (asv_products.WIDTH + 1)
    for matrix, columns in itertools.product("HG", (1, 16)):
        # One product for the tangent of the outputs, one for the kernel and its bias.
        assert found["track_multiply_adds", matrix, columns] == 2 * size * asv_products.BATCH
        assert found["track_bytes", matrix, columns] > 2 * 4 * size
        assert found["time_product", matrix, columns] is None
    asv_products.FirstProduct().time_first_product()


def test_the_file_for_pytest_benchmark_runs(tmp_path):
    path = tmp_path / "benchmark.json"
    # Inside of a worker of pytest-xdist, pytest-benchmark would measure nothing.
    outside = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    ended = subprocess.run(
        (
            *(sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-p", "no:cacheprovider"),
            *("bench/examples/test_products.py", "--benchmark-max-time=0.01"),
            *("--benchmark-min-rounds=1", f"--benchmark-json={path}"),
        ),
        cwd=ROOT,
        env={**outside, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout
    benchmarks = json.loads(path.read_text())["benchmarks"]
    assert len(benchmarks) == 4
    assert all(one["extra_info"]["multiply_adds"] > 0 for one in benchmarks)

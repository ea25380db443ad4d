"""Linearizations that are used and let go leave no memory, in a process of its own."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from support.batched_products import GIVEN

import hvp

ROOT = Path(__file__).parents[2]
TURNS, EACH = 4, 10
KEPT = 4 << 20  # what each keeps, at the least


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def measure() -> dict[str, float]:
    x = np.random.default_rng(0).standard_normal((8192, 64))
    w = np.random.default_rng(1).standard_normal((64, 64)) / 8

    def use() -> int:
        lin = hvp.linearize_function(
            lambda w, batch: tf.reduce_mean(tf.sin(batch @ w)), w, x, **GIVEN
        )
        lin.hvp(np.ones(lin.size))
        return lin.memory.kept

    def many() -> int:
        kept = []
        for i in range(EACH):
            kept.append(use())
            # Traced programs hold themselves until then.
            if i % 5 == 4:
                gc.collect()
        return min(kept)

    # What is lost grows in every turn; an arena of the allocator grows in one.
    kept, after = [], []
    for _ in range(TURNS):
        kept.append(many())
        after.append(resident())
    return {"kept": min(kept), "grown": int(np.diff(after).min())}


@pytest.mark.sweep
def test_no_turn_of_ten_linearizations_leaves_their_memory():
    run = subprocess.run(
        [sys.executable, __file__],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))),
        },
        check=True,
    )
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["kept"] >= KEPT
    # All that ten of them keep is 40 MiB and more.
    assert found["grown"] < EACH * KEPT / 4


if __name__ == "__main__":
    print(json.dumps(measure()))

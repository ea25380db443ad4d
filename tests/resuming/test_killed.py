"""Work that is killed at random moments: nothing is lost but products in flight."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "killed_again_and_again.py"


@pytest.mark.parametrize(
    "kills", [12, pytest.param(200, marks=pytest.mark.slow)], ids=["a few", "many"]
)
def test_work_that_is_killed_at_any_moment_goes_on(kills, tmp_path):
    root = str(SCRIPT.parents[2])
    done = subprocess.run(
        (sys.executable, SCRIPT, tmp_path, str(kills)),
        env={**os.environ, "PYTHONPATH": root, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout)
    assert seen["kills"] == kills
    # More products than kills would mean that one was lost which was not in flight.
    assert seen == {**seen, "different": 0, "damaged": 0, "lost": min(seen["lost"], 0)}
    assert seen["needed"] > 50

"""Kill work on a journal at random moments: what is lost, and what comes out in the end.

``python tests/support/killed_again_and_again.py DIRECTORY KILLS`` prints what it saw as JSON. It is
a process of its own, without threads, so that it may fork.
"""

import json
import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

import hvp

SIZE, STAGES = 300, 3
# Waiting makes a product as long as its journalling, so that a kill meets both.
PRODUCT_SECONDS = 0.0005


class Logged(LinearOperator):
    """A symmetric matrix that writes a byte to a file for each product."""

    def __init__(self, log):
        super().__init__(np.float64, (SIZE, SIZE))
        rng = np.random.default_rng(0)
        matrix = rng.standard_normal((SIZE, SIZE))
        self.matrix, self.log = matrix + matrix.T, log

    def _matvec(self, v):
        time.sleep(PRODUCT_SECONDS)
        product = self.matrix @ v
        os.write(self.log, b".")
        return product


def work(path):
    """Eigenpairs in stages, as numbers."""
    log = os.open(f"{path}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with hvp.resumable(Logged(log), f"{path}.journal", key="A") as A:
        found = [
            A.stage(f"stage {k}", lambda k=k: eigsh(A, k + 1, v0=np.ones(SIZE), tol=1e-2))
            for k in range(STAGES)
        ]
        os.close(log)
        return [[array.tolist() for array in pairs] for pairs in found]


def killed(path, seconds):
    """Whether the work was killed after so many seconds, rather than done before."""
    child = os.fork()
    if not child:
        work(path)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def checked(path):
    """What SQLite says of the file."""
    journal = Path(f"{path}.journal")
    if not journal.exists() or not journal.stat().st_size:
        return "ok"
    connection = sqlite3.connect(journal)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        connection.close()


def main(directory, kills):
    rng = random.Random(0)
    begun = time.perf_counter()
    expected = work(directory / "whole")
    seconds = time.perf_counter() - begun
    needed = (directory / "whole.log").stat().st_size
    seen = {"kills": 0, "works": 0, "different": 0, "lost": 0, "damaged": 0, "needed": needed}
    while seen["kills"] < kills:
        path, of_work, is_done = directory / str(seen["works"]), 0, False
        while not is_done and seen["kills"] < kills:
            if killed(path, rng.uniform(0, seconds / 3)):
                of_work += 1
                seen["kills"] += 1
                seen["damaged"] += checked(path) != "ok"
            else:
                is_done = True
        seen["different"] += work(path) != expected
        lost = Path(f"{path}.log").stat().st_size - needed
        seen["lost"] = max(seen["lost"], lost - of_work)
        seen["works"] += 1
    return seen


if __name__ == "__main__":
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))

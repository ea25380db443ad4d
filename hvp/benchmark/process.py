"""The worker processes, from the side of the parent: start, ask, end."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "JAX_PLATFORMS": "cpu",
    # By default idle threads of NumPy's BLAS spin for 0.1 s, which disturbs the next turn.
    "OPENBLAS_THREAD_TIMEOUT": "10",
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
# The worker imports what its parent would. With another checkout, `hvp` alone is that one's, but
# for the harness itself.
START = """
import importlib.util, json, sys
sys.path[:] = json.loads(sys.argv[3])
if sys.argv[4]:
    import hvp
    del sys.path[0]
    spec = importlib.util.spec_from_file_location(
        "hvp.benchmark", sys.argv[4] + "/__init__.py", submodule_search_locations=[sys.argv[4]])
    module = sys.modules["hvp.benchmark"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hvp.benchmark = module
from hvp.benchmark.worker import main
main()
"""
HARNESS = Path(__file__).parent


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


class WorkerError(RuntimeError):
    """An error in a worker, in one line."""


class Worker:
    """A process of one implementation; a context manager that ends it.

    Requests may be sent before the first answer is read, so that several workers can import at the
    same time.

    Args:
        server: what answers the requests, ``module:Class``.
        name: what the server is made with.
        checkout: another directory whose `hvp` the process imports, with this harness.
        threads: the number of cores that the process uses, None for all.
    """

    def __init__(
        self, server: str, name: str, *, checkout: Path | None = None, threads: int | None = None
    ):
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        own = [] if checkout is None else [str(checkout)]
        paths = json.dumps([*own, *(str(Path(path).resolve()) for path in sys.path)])
        harness = "" if checkout is None else str(HARNESS)
        allowed = sorted(os.sched_getaffinity(0))[:threads]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, server, name, paths, harness],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **ENVIRONMENT, **dict.fromkeys(THREADS, str(len(allowed)))},
        )
        # Libraries that take as many threads as there are cores find so many.
        os.sched_setaffinity(self._process.pid, allowed)
        self.send("")

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # a request that no one reads any more
                    stream.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Read the answer to the first request, after the imports."""
        self.receive()

    def ask(self, method: str, *arguments: Any) -> Any:
        """The answer of the `server.Server` to a request; WorkerError if it fails or dies."""
        self.send(method, *arguments)
        return self.receive()

    def send(self, method: str, *arguments: Any) -> None:
        """Send a request without reading the answer."""
        assert self._process.stdin is not None
        try:
            pickle.dump((method, arguments), self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._ending()) from None

    def receive(self) -> Any:
        """Read the answer to the oldest request. Raises WorkerError if it failed."""
        assert self._process.stdout is not None
        try:
            succeeded, answer = pickle.load(self._process.stdout)
        except EOFError:
            raise WorkerError(self._ending()) from None
        if not succeeded:
            raise WorkerError(answer)
        return answer

    def _ending(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        last_line = f": {lines[-1]}" if lines else ""
        killed = ", killed, perhaps because memory ran out" if code == -9 else ""
        return f"the process ended with {code}{killed}{last_line}"

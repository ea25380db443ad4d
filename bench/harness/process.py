"""The worker processes, from the side of the parent: start, ask, end."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "JAX_PLATFORMS": "cpu",
    # By default idle threads of NumPy's BLAS spin for 0.1 s, which disturbs the next turn.
    "OPENBLAS_THREAD_TIMEOUT": "10",
}


# Import `bench` from the working directory, then put the other checkout first on the path.
START = (
    "import sys, bench; sys.path.insert(0, sys.argv[2]); "
    "from bench.harness.worker import main; main()"
)


class WorkerError(RuntimeError):
    """An error in a worker, in one line."""


class Worker:
    """A process of one implementation; a context manager that ends it.

    Requests may be sent before the first answer is read, so that several workers can import at the
    same time.

    Args:
        name: the name of the implementation.
        checkout: the directory whose `hvp` the process imports; `bench` is always this one.
    """

    def __init__(self, name: str, checkout: Path = ROOT):
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, name, str(checkout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
        )
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

"""The worker process of one implementation: it reads requests from its input and answers them."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import Any, BinaryIO

from bench.harness.server import Server, line_of


def serve(name: str, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer each (method, arguments) with (succeeded, result or reason), until the input ends."""
    server: Server | None = None
    while True:
        try:
            method, arguments = pickle.load(requests)
        except EOFError:
            return
        answer: tuple[bool, Any]
        try:
            server = server or Server(name)
            answer = True, getattr(server, method)(*arguments) if method else None
        except Exception as error:
            answer = False, line_of(error)
        pickle.dump(answer, answers, protocol=5)
        answers.flush()


def main() -> None:
    """Serve over standard input and output; what libraries print goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers itself
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.argv[1], sys.stdin.buffer, answers)

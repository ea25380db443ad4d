"""The worker process of one implementation: it reads requests from its input and answers them."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
from typing import Any, BinaryIO

from hvp.benchmark.server import line_of


def serve(server_class: str, name: str, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer each (method, arguments) with (succeeded, result or reason), until the input ends.

    The methods are those of a server, ``module:Class``, that is made with the name.
    """
    server: Any = None
    while True:
        try:
            method, arguments = pickle.load(requests)
        except EOFError:
            return
        answer: tuple[bool, Any]
        try:
            if server is None:
                module, _, kind = server_class.partition(":")
                server = getattr(importlib.import_module(module), kind)(name)
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
    serve(sys.argv[1], sys.argv[2], sys.stdin.buffer, answers)

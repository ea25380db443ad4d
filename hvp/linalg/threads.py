"""Threads of an algorithm's own work on vectors, between products that want the cores too."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import threadpoolctl

# Entries of a vector. On shorter ones a second thread gains nothing (the memory of two columns at
# once is as slow), and waits, spinning, where products want the core.
WIDE = 1 << 20


def few_threads(size: int) -> AbstractContextManager[Any]:
    """The context of work on vectors of that size: a single thread of BLAS where they are short."""
    return nullcontext() if size >= WIDE else _blas().limit(limits=1)


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController().select(user_api="blas")

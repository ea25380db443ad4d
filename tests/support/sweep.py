"""Long tables of cases: a few of them always run, the rest with `-m sweep`."""

from collections.abc import Callable, Container, Iterable
from typing import Any

import pytest


def sweep(
    cases: Iterable[Any], always: Container[str], name: Callable[[Any], str] = str
) -> list[Any]:
    """The cases for `parametrize`; all but those whose names are in `always` are marked `sweep`."""
    return [
        pytest.param(case, id=name(case), marks=[] if name(case) in always else pytest.mark.sweep)
        for case in cases
    ]

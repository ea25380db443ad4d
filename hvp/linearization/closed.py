"""What takes the place of a point when its memory is freed."""

from __future__ import annotations

from typing import Any

from hvp.errors import InputError


class Closed:
    """Stands for what a closed linearization has given up."""

    def __getattr__(self, name: str) -> Any:
        raise InputError("an open linearization", "one that was closed", "make another")

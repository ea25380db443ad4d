"""The shapes that arrays of examples must have together."""

from __future__ import annotations

from collections.abc import Sequence

from hvp.errors import InputError


def check_shapes(shapes: Sequence[tuple[int, ...]]) -> int:
    """The number of examples, which is the length of every first axis.

    Raises InputError where there is none, or where lengths differ.
    """
    if () in shapes:
        raise InputError("arrays with a first axis of examples", "a scalar", "give one row each")
    lengths = {shape[0] for shape in shapes}
    if len(lengths) > 1:
        raise InputError(
            "arrays of one length", f"lengths {sorted(lengths)}", "cut them to the same examples"
        )
    if lengths == {0}:
        raise InputError("at least one example", "an empty data set", "check where it comes from")
    return lengths.pop()

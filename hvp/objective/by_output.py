"""What belongs to each output of a model: its loss, its targets and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from hvp.errors import InputError


def entry(given: Any, name: Any, names: Sequence[Any], what: str, *, shared: bool = False) -> Any:
    """The entry of `given` for an output: by its name, by its position, or one for all."""
    if isinstance(given, Mapping) and set(given) <= set(names):
        return given.get(name)
    if isinstance(given, list | tuple) and len(given) == len(names):
        return given[names.index(name)]
    if given is None or (not tf.nest.is_nested(given) and (shared or len(names) == 1)):
        return given
    if what == "losses" and isinstance(given, list | tuple) and len(names) == 1:
        raise InputError(
            f"one loss for the output {name}",
            f"{len(given)} of them, of which fit takes the first alone",
            "pass that loss by itself, or a function that adds them",
        )
    got = f"{len(given)} of them" if tf.nest.is_nested(given) else "one for all"
    raise InputError(
        f"{what} for the outputs {', '.join(map(str, names))}",
        f"{sorted(given)}" if isinstance(given, Mapping) else got,
        "give one per output, in a list or by name",
    )


def require_loss_weight(weights: Any, name: Any) -> None:
    """Raise InputError for an output that has a loss but, as the only ones, no loss weight."""
    if isinstance(weights, Mapping) and weights.get(name) is None:
        raise InputError(
            "a loss weight for each output with a loss, as fit does",
            f"none for {name!r}",
            "give it the weight 1",
        )

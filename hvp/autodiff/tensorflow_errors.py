"""What TensorFlow and Keras raise, and the line of it that says why."""

from __future__ import annotations

import re
import traceback

import tensorflow as tf

from hvp.errors import InputError

# What TensorFlow raises where it cannot trace, differentiate, compile or run a function.
REFUSALS = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    NotImplementedError,
    tf.errors.OpError,
)
UNTELLING = (
    "Exception encountered",
    "Graph execution error",
    "Detected at node",
    "<stack traces",
    "File ",
)


def reason(error: Exception) -> str:
    """The line of an error that says why; Keras and TensorFlow put others before it."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(UNTELLING)), plain)


def raise_own(error: Exception) -> None:
    """Raise again what this package did wrong itself: a defect is not told as a refusal.

    What it refuses it raises as an InputError or a NotImplementedError.
    """
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    is_own = frame.f_globals.get("__name__", "").startswith("hvp.")
    if is_own and not isinstance(error, InputError | NotImplementedError):
        raise error

"""The errors that TensorFlow and Keras raise, and the line of each that states the cause."""

from __future__ import annotations

import re
import traceback

import tensorflow as tf

from hvp.errors import InputError

# Raised by TensorFlow where it cannot trace, differentiate, compile or run a function.
REFUSALS = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    NotImplementedError,
    tf.errors.OpError,
)
# The beginnings of lines that only say where an error was raised.
LOCATION_LINES = (
    "Exception encountered",
    "Graph execution error",
    "Detected at node",
    "<stack traces",
    "File ",
)
# In the errors that TensorFlow and Python raise where Python has to decide by a tensor.
CONTROL_FLOW = (
    "as a Python `bool`",
    "Iterating over a symbolic",
    "cannot be interpreted as an integer",
)

# In the error of XLA for a list of tensors, in which a loop or a branch keeps what its derivative
# needs.
XLA_CONTROL_FLOW = "DataTypeToPrimitiveType: 'variant'"


def is_xla_control_flow(error: Exception) -> bool:
    """Whether it comes from XLA, which cannot compile the derivatives of loops and branches."""
    return XLA_CONTROL_FLOW in str(error)


def is_python_control_flow(error: Exception) -> bool:
    """Whether it comes from a Python `if`, `for` or `while` over a tensor that has no value yet."""
    return any(text in str(error) for text in CONTROL_FLOW)


def reason(error: Exception) -> str:
    """The first line of an error that states the cause, without the lines that Keras adds."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(LOCATION_LINES)), plain)


def raise_own(error: Exception) -> None:
    """Raise the error again if it is a defect of this package and not a refusal by TensorFlow.

    A refusal by this package is an InputError or a NotImplementedError and is not raised again.
    """
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    is_own = frame.f_globals.get("__name__", "").startswith("hvp.")
    if is_own and not isinstance(error, InputError | NotImplementedError):
        raise error

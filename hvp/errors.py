"""What goes wrong: one line that says what was expected, what came, and what to do."""

import re
import traceback

UNTELLING = (
    "Exception encountered",
    "Graph execution error",
    "Detected at node",
    "<stack traces",
    "File ",
)


class InputError(ValueError):
    """Input that cannot be used: ``expected …, got …; do …``.

    The command line prints the line and exits with 2; a program catches it as a ValueError.

    >>> raise InputError("a vector of shape (3,)", "(4,)", "pass one entry a parameter")
    Traceback (most recent call last):
        ...
    hvp.errors.InputError: expected a vector of shape (3,), got (4,); pass one entry a parameter
    """

    def __init__(self, expected: str, got: object, remedy: str):
        super().__init__(f"expected {expected}, got {got}; {remedy}")


class ConvergenceError(RuntimeError):
    """An iteration that did not reach its tolerance: says how far it came and what to change.

    >>> import numpy as np, hvp
    >>> A = np.diag(np.linspace(0.0, 1.0, 600))
    >>> try:
    ...     hvp.eigsh(A, 3, tol=1e-12, max_products=1)
    ... except hvp.ConvergenceError as error:
    ...     print(str(error).partition(",")[0])
    expected 3 pairs at LA within 1.0e-12
    """


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

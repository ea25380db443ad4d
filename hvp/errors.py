"""What goes wrong, as errors, and what a user should know, as findings."""

from dataclasses import dataclass


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


@dataclass(frozen=True)
class Finding:
    """What the audit saw, where, and what can be done about it.

    What it refuses is raised as an InputError instead.

    Attributes:
        severity: "note" (nothing to do) or "different" (from what one may expect: worth a look).
        layer: the layer, parameter or product that it is about.
        message: what was seen and what it means.
        op: the type of the operation, empty where it is not about one.
        remedy: what to do for another outcome, empty where nothing is to be done.
    """

    severity: str
    layer: str
    message: str
    op: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.severity}: {self.layer}: {self.message}{remedy}"

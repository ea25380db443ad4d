"""The errors that hvp raises, and the findings of its audit."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

# The most characters that an error shows of what it was given.
MAX_SHOWN = 80


class InputError(ValueError):
    """Input that cannot be used, with the message ``expected …, got …; do …``.

    `got` is a text, or the value itself, which is then `shown` in at most 80 characters. The
    command line prints the message and exits with status 2. Programs may catch a ValueError.

    >>> raise InputError("a vector of shape (3,)", "(4,)", "pass one entry a parameter")
    Traceback (most recent call last):
        ...
    hvp.errors.InputError: expected a vector of shape (3,), got (4,); pass one entry a parameter
    """

    def __init__(self, expected: str, got: object, remedy: str):
        text = got if isinstance(got, str) else shown(got)
        super().__init__(f"expected {expected}, got {text}; {remedy}")
        self.expected, self.got, self.remedy = expected, got, remedy


def shown(value: object) -> str:
    """A value in one line of at most 80 characters: an array by its shape, a text in quotes.

    >>> import numpy as np
    >>> shown(np.ones((3, 2))), shown("relu"), shown(1.5), len(shown([0] * 1000))
    ('ndarray of shape (3, 2)', "'relu'", '1.5', 80)
    """
    shape = "" if isinstance(value, type) else str(getattr(value, "shape", ""))
    if shape not in ("", "()"):
        text = f"{type(value).__name__} of shape {shape}"
    else:
        text = repr(value) if isinstance(value, str) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


@contextlib.contextmanager
def report_packages() -> Iterator[None]:
    """A block that imports what draws and writes reports.

    Raises InputError where a package of the extra "report" is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_report_package(error) from error


def missing_report_package(error: ModuleNotFoundError) -> InputError:
    """The error for a user who has not installed the packages that draw and write reports."""
    return InputError(
        "the packages of the extra 'report'",
        f"no module {str(error.name).split('.')[0]}",
        "pip install 'hvp[report]'",
    )


class WorkerError(RuntimeError):
    """A worker of a cluster that died too often: the message names its share and its machine."""


class NotFiniteError(InputError):
    """A product with NaN or infinity; the line names the operation, its layer and the batch."""


class DataError(InputError):
    """Data that the model or its loss cannot take, such as those of another model."""


class MixedExamplesError(InputError):
    """A loss that is no sum over examples, so that it is another function of several batches."""


class ConvergenceError(RuntimeError):
    """An iteration that did not reach its tolerance: the message says how far it came.

    >>> import numpy as np, hvp
    >>> A = np.diag(np.linspace(0.0, 1.0, 600))
    >>> try:
    ...     hvp.eigsh(A, 3, tol=1e-12, max_products=1)
    ... except hvp.ConvergenceError as error:
    ...     print(str(error).partition(",")[0])
    expected 3 pairs at LA within 1.0e-12 of ‖A‖
    """


@dataclass(frozen=True)
class Finding:
    """A fact about the model or the loss that the audit found and that the user should know.

    What the audit refuses is raised as an InputError instead.

    Attributes:
        severity: "note" (nothing to do) or "different" (products may differ from what the user
            expects).
        layer: the layer, parameter or product that it is about.
        message: what was found and what it means.
        op: the type of the operation, empty if it is not about one.
        remedy: what to do for another result, empty if there is nothing to do.
    """

    severity: str
    layer: str
    message: str
    op: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.severity}: {self.layer}: {self.message}{remedy}"

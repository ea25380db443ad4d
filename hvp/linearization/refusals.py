"""What TensorFlow refuses to differentiate or to run, as an InputError."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from hvp.autodiff.tensorflow_errors import (
    REFUSALS,
    is_xla_control_flow,
    raise_own,
    reason,
)
from hvp.errors import InputError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def refusals_as_input_errors(
    function: Callable[Arguments, Result],
) -> Callable[Arguments, Result]:
    """The function, with what TensorFlow refuses inside of it as an InputError."""

    @functools.wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except InputError:
            raise
        except REFUSALS as error:
            raise_own(error)
            if is_xla_control_flow(error):
                raise InputError(
                    "no loops and branches that depend on the parameters, with jit=True",
                    "one, whose derivatives XLA cannot compile",
                    "leave jit out, or set it to False",
                ) from error
            raise InputError(
                "operations that TensorFlow differentiates and runs on this machine",
                repr(reason(error)),
                'try ad="reverse-over-reverse", the other jit= or float32, or another operation',
            ) from error

    return wrapped

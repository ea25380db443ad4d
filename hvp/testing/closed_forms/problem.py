"""A problem whose curvature is known, as the functions of this package return it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np

from hvp.linearization.linearization import Linearization
from hvp.linearization.linearize import linearize_function


@dataclass(frozen=True, eq=False, repr=False)
class ClosedForm:
    """A problem and its solution in float64.

    Attributes:
        lin: the linearization.
        H, G: its dense matrices (P, P).
        gradient: ∇L (P,).
        loss, outputs, params, data: what `hvp.linearize_function` was called with, for other
            programs: L = loss(outputs(params, data), data), without `data` where it is None.
        model: the Keras model, where the loss is that of one.

    >>> from hvp.testing import linear_regression
    >>> problem = linear_regression()
    >>> bool(np.allclose(problem.lin.hvp(np.eye(problem.lin.size)), problem.H))
    True
    """

    lin: Linearization
    H: np.ndarray
    G: np.ndarray
    gradient: np.ndarray
    loss: Callable[..., Any] | None = None
    outputs: Callable[..., Any] | None = None
    params: Any = None
    data: Any = None
    model: Any = None

    def __repr__(self) -> str:
        """One line: the linearization, and the numbers that are known, without the matrices."""
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = [f"{name}={value!r}" for name, value in known.items() if np.isscalar(value)]
        return f"{type(self).__name__}({', '.join([repr(self.lin), *shown])})"

    @property
    def R(self) -> np.ndarray:
        """H - G, (P, P)."""
        return self.H - self.G


Problem = TypeVar("Problem", bound=ClosedForm)


def of_function(
    kind: type[Problem],
    loss: Callable[..., Any],
    outputs: Callable[..., Any],
    params: Any,
    data: Any = None,
    *,
    H: np.ndarray,
    G: np.ndarray,
    gradient: np.ndarray,
    **known: Any,
) -> Problem:
    """The problem of a loss that is a mean over examples, or that has no data."""
    reduction = None if data is None else "mean"
    lin = linearize_function(loss, params, data, outputs=outputs, reduction=reduction)
    return kind(lin, H, G, gradient, loss, outputs, params, data, **known)

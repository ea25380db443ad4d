"""A test of Hv by differences of the gradient, of the gradient by those of the loss, and of G.

It shares no derivative with what it tests: values of the loss at points on a line give the slope of
the gradient along it, and gradients at such points give Hv. Differences of the outputs give u = Jv,
and those of the gradient of the loss in the outputs give Λu: vᵀGv = uᵀΛu.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from hvp.certificate.checks import (
    GRADIENT_CHECK,
    HV_CHECK,
    MAX_DIFFERENCE_ERROR,
    Check,
    CurvatureElsewhere,
    OutputsElsewhere,
    check_derivatives,
    check_gauss_newton,
    not_measured,
    random_direction,
)
from hvp.errors import InputError
from hvp.operators import Curvature

# Directions of a certificate, and the most steps along all of them together.
NUM_DIRECTIONS, MAX_STEPS = 2, 4


@dataclass(frozen=True)
class Certificate:
    """What differences say about the products and the gradient of a loss at one point.

    Attributes:
        Hv: Hv against central differences of the gradient.
        gradient: the slope vᵀ∇L against central differences of the loss.
        dtype: the precision in which all were measured.
        num_directions: the number of directions v.
        G: vᵀGv for the first direction against differences; None where there is no G.

    >>> import hvp
    >>> from hvp.certificate import certify
    >>> lin = hvp.linearize_function(lambda w: (w[0] * w[1]) ** 2, np.array([1.0, 2.0]))
    >>> certificate = certify(lin)
    >>> certificate.passed, certificate.dtype
    (True, 'float64')
    """

    Hv: Check
    gradient: Check
    dtype: str
    num_directions: int
    G: Check | None = None

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks that were made, or that could not be measured."""
        return (self.Hv, self.gradient) if self.G is None else (self.Hv, self.gradient, self.G)

    @property
    def passed(self) -> bool:
        """Whether no check failed. One that could not be measured has not failed."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        return "\n".join(" ".join(check.row) for check in self.checks)


def certify(lin: Curvature, *, exact: Curvature | None = None, seed: int = 0) -> Certificate:
    """Test Hv by differences of the gradient, the gradient by those of the loss, and vᵀGv.

    In float64 where every operation of the model has it, else in the precision of the model, where
    the bounds are wider. Where the gradient follows a stop_gradient, so that it is not the
    derivative of the loss by intention, differences measure nothing.

    It makes two products with H and five evaluations of the gradient: at the point, and at two
    points near it for each of two directions. Where kinks are near, or rounding is large, it takes
    smaller steps: nine evaluations at most. For G it makes one product, and evaluates the network
    at four to eight points, without derivatives.

    Args:
        lin: a `Linearization`, or another backend.
        exact: ``lin.in_float64()`` if it is at hand.
        seed: of the two directions.
    """
    if not hasattr(lin, "loss_and_gradient"):
        note = f"{type(lin).__name__} has no loss_and_gradient at other parameters"
        Hv, gradient = (
            Check(name, None, MAX_DIFFERENCE_ERROR, note) for name in (HV_CHECK, GRADIENT_CHECK)
        )
        return Certificate(Hv, gradient, str(lin.dtype), 0)
    if exact is None:
        exact = in_float64(lin)
    rng = np.random.default_rng(seed)
    directions = [random_direction(rng, lin.size) for _ in range(NUM_DIRECTIONS)]
    gradient, Hv = check_derivatives(cast(CurvatureElsewhere, exact), directions, MAX_STEPS)
    G, with_outputs = None, cast(OutputsElsewhere, exact)
    if hasattr(exact, "loss_gradients") and with_outputs.has_outputs:
        G = check_gauss_newton(with_outputs, directions[0], MAX_STEPS)
        G = not_measured(G) if G.note else G
    if not gradient.passed and gradient.note:
        Hv, gradient = not_measured(Hv), not_measured(gradient)
    return Certificate(Hv, gradient, str(exact.dtype), NUM_DIRECTIONS, G)


def in_float64(lin: Curvature) -> Curvature:
    """The linearization in float64, or as it is where an operation has no float64."""
    if lin.dtype == np.float64:
        return lin
    try:
        exact = lin.in_float64()
        exact.hvp(np.ones(lin.size))  # refuses an operation without a kernel for float64
    except InputError:
        return lin
    return exact

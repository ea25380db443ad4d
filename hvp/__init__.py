"""hvp: matrix-free curvature of TensorFlow and Keras models.

H = ∇²L = G + R, with G = JᵀΛJ the Gauss-Newton matrix and R the network's second derivatives:
products with all three, exactly, and their spectra by SciPy.

Names are imported when first used, so that ``hvp --help`` need not wait for TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hvp.comparison import Comparison, compare
    from hvp.doors import linearize, linearize_function
    from hvp.eigenpairs import Eigenpairs, eigsh
    from hvp.errors import ConvergenceError, InputError
    from hvp.forms import chain_rule
    from hvp.linearization import Linearization
    from hvp.noise import Noise, noise_floor
    from hvp.operators import EmpiricalFisher, Fisher, GaussNewton, Hessian, Jacobian, Residual
    from hvp.quadrature import Density, density

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "comparison",
    "ConvergenceError": "errors",
    "Density": "quadrature",
    "Eigenpairs": "eigenpairs",
    "EmpiricalFisher": "operators",
    "Fisher": "operators",
    "GaussNewton": "operators",
    "Hessian": "operators",
    "InputError": "errors",
    "Jacobian": "operators",
    "Linearization": "linearization",
    "Noise": "noise",
    "Residual": "operators",
    "chain_rule": "forms",
    "compare": "comparison",
    "density": "quadrature",
    "eigsh": "eigenpairs",
    "linearize": "doors",
    "linearize_function": "doors",
    "noise_floor": "noise",
}

__all__ = [
    "Comparison",
    "ConvergenceError",
    "Density",
    "Eigenpairs",
    "EmpiricalFisher",
    "Fisher",
    "GaussNewton",
    "Hessian",
    "InputError",
    "Jacobian",
    "Linearization",
    "Noise",
    "Residual",
    "chain_rule",
    "compare",
    "density",
    "eigsh",
    "linearize",
    "linearize_function",
    "noise_floor",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hvp' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"hvp.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

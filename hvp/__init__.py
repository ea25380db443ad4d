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
    from hvp.densities import Density
    from hvp.doors import linearize, linearize_function
    from hvp.eigenpairs import Eigenpairs, eigsh
    from hvp.errors import ConvergenceError, InputError
    from hvp.estimate import Estimate
    from hvp.forms import chain_rule
    from hvp.functionals import effective_dimension, log_determinant
    from hvp.layerwise import layer_shares, layer_traces
    from hvp.linearization import Linearization
    from hvp.noise import Noise, noise_floor
    from hvp.operators import EmpiricalFisher, Fisher, GaussNewton, Hessian, Jacobian, Residual
    from hvp.quadrature import density
    from hvp.traces import diagonal, frobenius_norm, squared_frobenius_norm, trace

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "comparison",
    "ConvergenceError": "errors",
    "Density": "densities",
    "Eigenpairs": "eigenpairs",
    "EmpiricalFisher": "operators",
    "Estimate": "estimate",
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
    "diagonal": "traces",
    "effective_dimension": "functionals",
    "eigsh": "eigenpairs",
    "frobenius_norm": "traces",
    "layer_shares": "layerwise",
    "layer_traces": "layerwise",
    "linearize": "doors",
    "linearize_function": "doors",
    "log_determinant": "functionals",
    "noise_floor": "noise",
    "squared_frobenius_norm": "traces",
    "trace": "traces",
}

__all__ = [
    "Comparison",
    "ConvergenceError",
    "Density",
    "Eigenpairs",
    "EmpiricalFisher",
    "Estimate",
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
    "diagonal",
    "effective_dimension",
    "eigsh",
    "frobenius_norm",
    "layer_shares",
    "layer_traces",
    "linearize",
    "linearize_function",
    "log_determinant",
    "noise_floor",
    "squared_frobenius_norm",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hvp' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"hvp.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

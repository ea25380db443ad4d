"""Public checks: the laws of any operator, a user's own model, and problems with known answers.

- `check` holds a linearization against central differences and the laws of its products;
- `dot_test`, `symmetry`, `linearity` and `repeatability` hold any SciPy operator against its laws;
- `quadratic`, `linear_regression`, `softmax_regression` and `deep_linear` have known H and G.
"""

from hvp.checking import Check, Report, check
from hvp.closed_forms import (
    ClosedForm,
    deep_linear,
    linear_regression,
    quadratic,
    softmax_regression,
)
from hvp.laws import dot_test, linearity, repeatability, symmetry

__all__ = [
    "Check",
    "ClosedForm",
    "Report",
    "check",
    "deep_linear",
    "dot_test",
    "linear_regression",
    "linearity",
    "quadratic",
    "repeatability",
    "softmax_regression",
    "symmetry",
]

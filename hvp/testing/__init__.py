"""For test suites: assertions, laws of operators, golden files, and problems with known H and G.

- `check` compares a linearization with central differences and checks laws of its products;
- `dot_test`, `symmetry`, `linearity` and `repeatability` check any SciPy operator;
- `assert_quadratic_form`, `assert_operator`, `assert_symmetric`, `assert_psd`, `assert_spectrum`
  and `assert_decomposes` compare any operator with what is expected;
- `check_operator` checks all laws of any operator and returns a report;
- `record` writes the curvature of a loss to a golden file, and `compare_to` holds it against later;
- `hvp.testing.closed_forms` has problems with known H, G and R, such as `linear_regression`.

The problems are imported when first used, since they need TensorFlow.
"""

import importlib
from typing import Any

from hvp.certificate.checks import Check
from hvp.testing.assertions import (
    assert_decomposes,
    assert_operator,
    assert_psd,
    assert_quadratic_form,
    assert_spectrum,
    assert_symmetric,
)
from hvp.testing.finite_differences import Report, check
from hvp.testing.golden_files import GoldenReport, compare_to, golden_report, record
from hvp.testing.operator_checks import check_operator
from hvp.testing.operator_laws import dot_test, linearity, repeatability, symmetry

_CLOSED_FORMS = (
    "ClosedForm",
    "deep_linear",
    "deep_linear_network",
    "depth_gap",
    "equal_residuals",
    "gather_with_repeats",
    "gaussian_process",
    "linear_regression",
    "poisson_regression",
    "products_at_zero",
    "quadratic",
    "random_linear",
    "softmax_at_zero",
    "softmax_regression",
)

__all__ = ["Check", "Report", "check", "dot_test", "linearity", "repeatability", "symmetry"]
__all__ += ["assert_decomposes", "assert_operator", "assert_psd", "assert_quadratic_form"]
__all__ += ["assert_spectrum", "assert_symmetric", "check_operator"]
__all__ += ["GoldenReport", "compare_to", "golden_report", "record"]
__all__ += [*_CLOSED_FORMS]


def __getattr__(name: str) -> Any:
    if name not in ("closed_forms", *_CLOSED_FORMS):
        raise AttributeError(f"module 'hvp.testing' has no attribute {name!r}")
    module = importlib.import_module("hvp.testing.closed_forms")
    return module if name == "closed_forms" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(("closed_forms", *__all__))

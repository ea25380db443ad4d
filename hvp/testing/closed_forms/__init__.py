"""Problems whose curvature is known in closed form, for test suites.

Each function returns a `ClosedForm`: the linearization, H, G, R and the gradient as dense arrays,
and the functions and data that they belong to, for other programs.

| function | what is known |
|---|---|
| `quadratic`, `linear_regression`, `softmax_regression`, `poisson_regression` | H = G |
| `softmax_at_zero` | the blocks of two classes are 1/(C - 1) of those of one |
| `random_linear` | the edges of the spectrum (Marchenko and Pastur) |
| `equal_residuals` | the empirical Fisher matrix is a multiple of the Fisher matrix |
| `gaussian_process` | H⁻¹ is the posterior covariance |
| `deep_linear`, `deep_linear_network` | H, G and R, and their ranks |
| `depth_gap` | all eigenvalues: the depth, 1 and 0 |
| `products_at_zero`, `gather_with_repeats` | H, G and R where formulas often fail |
"""

from hvp.testing.closed_forms.indexing import gather_with_repeats, products_at_zero
from hvp.testing.closed_forms.likelihoods import (
    GaussianPosterior,
    gaussian_process,
    poisson_regression,
)
from hvp.testing.closed_forms.linear_networks import (
    DeepLinear,
    DepthGap,
    deep_linear,
    deep_linear_network,
    depth_gap,
)
from hvp.testing.closed_forms.problem import ClosedForm
from hvp.testing.closed_forms.regressions import (
    ClassBlocks,
    EqualResiduals,
    RandomLinear,
    equal_residuals,
    linear_regression,
    quadratic,
    random_linear,
    softmax_at_zero,
    softmax_regression,
)

__all__ = [
    "ClassBlocks", "ClosedForm", "DeepLinear", "DepthGap", "EqualResiduals", "GaussianPosterior",
    "RandomLinear", "deep_linear", "deep_linear_network", "depth_gap", "equal_residuals",
    "gather_with_repeats", "gaussian_process", "linear_regression", "poisson_regression",
    "products_at_zero", "quadratic", "random_linear", "softmax_at_zero", "softmax_regression",
]  # fmt: skip

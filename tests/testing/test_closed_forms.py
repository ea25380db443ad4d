"""Every closed form against hvp, and what is known of it against the dense matrices."""

import numpy as np
import pytest
from support.oracles import relative

import hvp
from hvp import InputError, testing
from hvp.testing import closed_forms

PROBLEMS = [
    closed_forms.poisson_regression,
    closed_forms.softmax_at_zero,
    closed_forms.equal_residuals,
    closed_forms.gaussian_process,
    closed_forms.deep_linear_network,
    closed_forms.depth_gap,
    closed_forms.products_at_zero,
    closed_forms.gather_with_repeats,
]


@pytest.fixture(scope="module", params=PROBLEMS, ids=lambda function: function.__name__)
def problem(request):
    return request.param(seed=1)


def test_the_products_are_those_of_the_closed_form(problem):
    lin = problem.lin
    HV, GV, RV = lin.products(np.eye(lin.size))
    scale = np.linalg.norm(problem.H) + np.linalg.norm(problem.G)
    for found, expected in ((HV, problem.H), (GV, problem.G), (RV, problem.R)):
        assert np.linalg.norm(found - expected) < 1e-13 * scale
    assert np.linalg.norm(lin.gradient() - problem.gradient) < 1e-12 * max(scale, 1)
    testing.assert_operator(hvp.Hessian(lin), problem.H)
    testing.assert_decomposes(hvp.Hessian(lin), hvp.GaussNewton(lin), hvp.Residual(lin))


def test_it_is_shown_without_its_matrices(problem):
    assert "array" not in repr(problem)
    assert "\n" not in repr(problem)
    assert repr(problem.lin) in repr(problem)


def test_numbers_that_are_known_are_shown():
    assert "rank_H=33, rank_G=18, rank_R=24" in repr(closed_forms.deep_linear_network())


def test_the_functions_given_with_it_are_those_of_the_loss(problem):
    if problem.model is not None:
        x, y = problem.data
        found = np.mean((np.asarray(problem.model(x)) - y) ** 2)
    elif problem.data is None:
        found = problem.loss(problem.outputs(problem.params))
    else:
        found = problem.loss(problem.outputs(problem.params, problem.data), problem.data)
    assert float(found) == pytest.approx(problem.lin.loss(), rel=1e-12, abs=1e-25)


def num_nonzero(matrix):
    values = np.abs(np.linalg.eigvalsh(matrix))
    return int((values > 1e-9 * values.max()).sum())


@pytest.mark.parametrize(
    ("sizes", "ranks"),
    [
        ((6, 4, 3), (33, 18, 24)),
        ((6, 4, 5, 3), (54, 18, 45)),
        ((5, 5, 4, 4), (60, 20, 56)),
        ((3, 4, 4, 5, 6), None),
    ],
)
def test_the_ranks_of_deep_linear_networks_are_those_of_the_paper(sizes, ranks):
    problem = closed_forms.deep_linear_network(sizes)
    stated = problem.rank_H, problem.rank_G, problem.rank_R
    assert ranks is None or stated == ranks
    found = problem.lin.products(np.eye(problem.lin.size))
    assert tuple(num_nonzero((A + A.T) / 2) for A in found) == stated


@pytest.mark.parametrize(("depth", "size", "rank"), [(2, 3, 1), (3, 4, 2), (4, 3, 3)])
def test_balanced_networks_have_the_eigenvalues_depth_one_and_zero(depth, size, rank):
    problem = closed_forms.depth_gap(depth, size, rank)
    H = problem.lin.hvp(np.eye(problem.lin.size))
    assert np.allclose(np.linalg.eigvalsh((H + H.T) / 2), problem.eigenvalues, atol=1e-12)
    assert np.unique(problem.eigenvalues)[-1] == depth
    assert problem.lin.loss() < 1e-25
    testing.assert_spectrum(hvp.Hessian(problem.lin), problem.eigenvalues, atol=1e-12)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_blocks_of_two_classes_are_in_the_exact_ratio(num_classes):
    problem = closed_forms.softmax_at_zero(num_classes=num_classes)
    H = problem.lin.hvp(np.eye(problem.lin.size)).reshape(num_classes, 4, num_classes, 4)
    for c in range(num_classes):
        for d in range(num_classes):
            share = np.linalg.norm(H[c, :, d]) / np.linalg.norm(H[c, :, c])
            assert share == pytest.approx(1.0 if c == d else 1 / (num_classes - 1), rel=1e-12)
    assert problem.ratio == 1 / (num_classes - 1)


def test_the_ends_of_a_random_linear_model_are_near_the_edges():
    """λmax has the Tracy-Widom scale (1 + √γ)(1 + 1/√γ)^⅓ N^(-⅔) around the edge: 0.04 here."""
    problem = closed_forms.random_linear()
    H = hvp.Hessian(problem.lin)
    lower, upper = problem.edges
    assert hvp.eigsh(H, 1, which="SA").values[0] == pytest.approx(lower, abs=0.05)
    assert hvp.eigsh(H, 1).values[0] == pytest.approx(upper, abs=0.12)
    testing.assert_quadratic_form(H, problem.H)


def test_the_empirical_fisher_matrix_is_in_the_exact_ratio():
    problem = closed_forms.equal_residuals(sigma=0.7)
    V = np.eye(problem.lin.size)
    F, E = hvp.Fisher(problem.lin) @ V, hvp.EmpiricalFisher(problem.lin) @ V
    assert relative(F, problem.F) < 1e-13
    assert relative(E, problem.E) < 1e-13
    assert relative(E, problem.ratio * F) < 1e-13
    assert problem.ratio == pytest.approx(2 * 0.7**2)


def test_the_covariance_of_a_gaussian_process_is_the_inverse_hessian():
    problem = closed_forms.gaussian_process()
    lin, size = problem.lin, problem.lin.size
    assert relative(np.linalg.inv(lin.hvp(np.eye(size))), problem.covariance) < 1e-11
    assert np.linalg.norm(lin.gradient(problem.mean)) < 1e-11


def test_products_with_two_zeros_have_only_a_residual():
    problem = closed_forms.products_at_zero(3)
    lin = problem.lin
    assert [int((row == 0).sum()) for row in problem.params] == [0, 1, 2, 3]
    two, three = slice(6, 9), slice(9, 12)
    HV, GV, RV = (A[two, two] for A in lin.products(np.eye(lin.size)))
    assert not GV.any()
    assert np.array_equal(HV, RV)
    assert np.linalg.eigvalsh(HV)[0] < 0 < np.linalg.eigvalsh(HV)[-1]
    assert not lin.hvp(np.eye(lin.size))[three, three].any()


def test_a_parameter_that_no_row_reads_has_no_curvature():
    problem = closed_forms.gather_with_repeats()
    assert not problem.lin.hvp(np.eye(5))[4].any()
    assert problem.lin.hvp(np.eye(5))[:4].any(axis=1).all()


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: closed_forms.deep_linear_network((6, 2, 3)), "got 6-2-3 with 40 examples"),
        (lambda: closed_forms.deep_linear_network((6, 3)), "a hidden layer or more"),
        (lambda: closed_forms.deep_linear_network((6, 4, 3), 5), "with 5 examples"),
        (lambda: closed_forms.depth_gap(1), "got depth 1"),
        (lambda: closed_forms.depth_gap(rank=5), "rank 5, size 4"),
    ],
)
def test_what_has_no_closed_form_is_refused(build, expected):
    with pytest.raises(InputError, match=expected):
        build()


def test_they_are_names_of_the_package_too():
    for name in closed_forms.__all__:
        if name[0].islower():
            assert getattr(testing, name) is getattr(closed_forms, name)

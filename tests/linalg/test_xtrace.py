"""XTrace against its definition, with every basis computed anew."""

import itertools

import numpy as np
import pytest
from support.estimators import (
    MATRICES,
    SEEDS,
    assert_unbiased,
)

import hvp
from hvp.linalg import xtrace
from hvp.linalg.counted_operator import CountedOperator
from hvp.linalg.estimate import student_factor


def test_xtrace_with_four_products_has_a_standard_error():
    A = MATRICES["flat"]
    estimates = [hvp.trace(A, num_products=4, seed=seed) for seed in SEEDS]
    assert {e.method for e in estimates} == {"XTrace"}
    assert_unbiased(estimates, np.trace(A), once=(0.62, 1.0))


def sketched(A, s, squared, seed=0):
    """A sketch of A by s Gaussian probes, the form whose trace is wanted, and the probes."""
    probes = np.random.default_rng(seed).standard_normal((len(A), s))
    basis = xtrace.sketch(CountedOperator(A), probes)
    AQ, AV = A @ basis.Q, A @ probes
    if squared:
        inner, images, own = AQ.T @ AQ, AQ.T @ AV, np.sum(AV**2, axis=0)
    else:
        inner, images, own = basis.Q.T @ AQ, basis.Q.T @ AV, np.sum(probes * AV, axis=0)
    lengths = np.sum(probes**2, axis=0)
    return basis, xtrace.SketchedMatrix(inner, images, own, lengths), probes


def sample_of_new_basis(A, B, probes, i, left_out):
    """The sample of tr B by the i-th probe, on the range of A times those that are not left out."""
    others = [j for j in range(probes.shape[1]) if j not in left_out]
    U, sizes, _ = np.linalg.svd(A @ probes[:, others], full_matrices=False)
    Q = U[:, sizes > 1e-10 * sizes.max()]
    u = probes[:, i] - Q @ (Q.T @ probes[:, i])
    return np.trace(Q.T @ B @ Q) + (len(A) - Q.shape[1]) * (u @ B @ u) / (u @ u)


@pytest.mark.parametrize("squared", [False, True], ids=["A", "A²"])
@pytest.mark.parametrize("name", ["flat", "spiked", "indefinite"])
def test_samples_without_one_or_two_probes_equal_those_of_a_new_basis(name, squared):
    A = MATRICES[name]
    B = A @ A if squared else A
    basis, form, probes = sketched(A, 6, squared)
    one = [sample_of_new_basis(A, B, probes, i, {i}) for i in range(6)]
    np.testing.assert_allclose(xtrace.leave_one_out(basis, form), one, rtol=1e-10)
    found = xtrace.leave_two_out(basis, form)
    for i, j in itertools.permutations(range(6), 2):
        assert found[i, j] == pytest.approx(sample_of_new_basis(A, B, probes, i, {i, j}), rel=1e-10)


def test_the_rank_drops_without_the_only_probe_of_a_direction():
    A = np.diag(np.r_[4.0, 3.0, 2.0, np.zeros(5)])
    probes = np.eye(8)[:, [0, 1, 2, 1]] + np.eye(8)[:, [4, 5, 6, 7]]
    basis = xtrace.sketch(CountedOperator(A), probes)
    assert basis.Q.shape == (8, 3)
    assert basis.ranks.tolist() == [2, 3, 2, 3]


def test_independent_samples_have_the_error_of_a_mean():
    samples = np.random.default_rng(0).standard_normal(9)
    pairs = np.repeat(samples[:, None], 9, axis=1)
    expected = xtrace.DEPENDENCE_FACTOR * student_factor(8) * samples.std(ddof=1) / 3
    assert xtrace.standard_error(samples, pairs) == pytest.approx(expected)


def test_dependent_samples_raise_the_standard_error():
    A = MATRICES["slowly decaying"]
    estimates, plain = [], []
    for seed in SEEDS:
        basis, form, _ = sketched(A, 20, False, seed)
        samples = xtrace.leave_one_out(basis, form)
        estimates.append(samples.mean())
        plain.append(samples.var(ddof=1) / 20)
    right = np.mean((np.array(estimates) - np.trace(A)) ** 2)
    raised = [hvp.trace(A, num_products=40, seed=seed).stderr ** 2 for seed in SEEDS]
    assert np.mean(plain) < 0.75 * right
    widening = (xtrace.DEPENDENCE_FACTOR * student_factor(19)) ** 2
    assert 0.8 < np.mean(raised) / right / widening < 1.4

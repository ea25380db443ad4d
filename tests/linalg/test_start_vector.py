"""Eigenvalues from an earlier start: the same numbers, from fewer products."""

import re

import numpy as np
import pytest
import scipy.sparse
from support.spectra import Counting

from hvp import Eigenpairs, InputError, eigsh
from hvp.linalg import start_vector

P = 700
RNG = np.random.default_rng(0)
VALUES = np.r_[np.linspace(-1.0, 1.0, P - 8), -4.0, -3.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]


def sparse(scale=0.02, seed=1):
    """A diagonal matrix and a small symmetric rest."""
    S = scipy.sparse.random_array((P, P), density=0.02, rng=np.random.default_rng(seed))
    return (scipy.sparse.diags_array(VALUES) + scale * (S + S.T)).tocsr()


@pytest.fixture(scope="module")
def before():
    return sparse()


@pytest.fixture(scope="module")
def now():
    return (sparse() + sparse(0.01, seed=2) - scipy.sparse.diags_array(VALUES)).tocsr()


@pytest.mark.parametrize(("which", "k"), [("LA", 1), ("LA", 3), ("SA", 2), ("BE", 4), ("LM", 3)])
def test_a_neighbour_takes_fewer_products_for_the_same_values(before, now, which, k):
    start = eigsh(before, k, which=which, tol=1e-4)
    operator = Counting(now.toarray())
    cold, warm = eigsh(now, k, which=which, tol=1e-4), eigsh(
        operator, k, which=which, tol=1e-4, start=start
    )  # fmt: skip
    assert warm.num_products == operator.count
    assert warm.num_products <= 0.8 * cold.num_products
    values = np.linalg.eigvalsh(now.toarray())
    for each in warm.values:
        assert np.abs(values - each).min() < 2e-3
    np.testing.assert_allclose(warm.values, cold.values, atol=2e-3)
    assert warm.errors.max() < 2e-3
    assert warm.ranks.tolist() == cold.ranks.tolist()
    assert warm.scale == pytest.approx(cold.scale, rel=0.3)


def test_an_eigenvalue_that_the_start_lacks_is_found(before):
    """A new largest eigenvalue, along a direction at right angles to all earlier vectors."""
    start = eigsh(before, 2)
    w = RNG.standard_normal(P)
    w -= start.vectors @ (start.vectors.T @ w)
    w /= np.linalg.norm(w)
    A = before.toarray() + 14.0 * np.outer(w, w)
    found = eigsh(A, 1, start=start)
    assert found.values == pytest.approx(np.linalg.eigvalsh(A)[-1:], abs=1e-5)


def test_earlier_pairs_of_other_numbers_are_a_start_too(before):
    """More, fewer, dependent and zero vectors, and a basis that cannot hold them all."""
    values, start = np.linalg.eigvalsh(before.toarray()), eigsh(before, 4, which="LM")
    twice = np.concatenate([start.vectors, start.vectors[:, :2], np.zeros((P, 1))], axis=1)
    for vectors in (start.vectors[:, :1], twice):
        given = Eigenpairs(np.ones(vectors.shape[1]), vectors, np.zeros(vectors.shape[1]), 0)
        for options in ({}, {"ncv": 4}, {"block": 2}):
            found = eigsh(before, 3, start=given, **options)
            assert found.values == pytest.approx(values[-3:], abs=1e-6)


@pytest.mark.parametrize("factor", [1e-6, 1e6, -1.0])
def test_a_start_from_a_matrix_far_away_changes_no_accuracy(before, factor):
    start = eigsh(before, 2, tol=1e-3)
    A = factor * before
    found = eigsh(A, 2, tol=1e-6, start=start)
    values = np.linalg.eigvalsh(A.toarray())
    assert found.values == pytest.approx(values[-2:], rel=1e-5)
    assert found.errors.max() < 1e-5 * np.abs(values).max()


def test_the_earlier_vectors_themselves_are_a_start(before):
    start = eigsh(before, 3, tol=1e-10)
    again = eigsh(before, 3, tol=1e-10, start=start)
    np.testing.assert_allclose(again.values, start.values, atol=1e-8)
    one = eigsh(before, 1, v0=start.vectors[:, -1])
    assert one.values == pytest.approx(start.values[-1:])


def test_a_start_vector_decides_the_bits(before):
    v0 = np.ones(P)
    first, again = eigsh(before, 2, v0=v0, seed=1), eigsh(before, 2, v0=2 * v0, seed=1)
    assert (first.vectors == again.vectors).all()
    assert (first.vectors != eigsh(before, 2, seed=1).vectors).any()


def test_the_sum_has_every_earlier_vector_and_a_random_part():
    Q = np.linalg.qr(RNG.standard_normal((P, 3)))[0]
    v = start_vector.combined(Q, P, np.dtype(np.float32), seed=0)
    assert v.dtype == np.float32
    assert np.linalg.norm(v) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(Q.T @ v, 3**-0.5, rtol=0.02)
    rest = v - Q @ (Q.T @ v)
    assert np.linalg.norm(rest) == pytest.approx(start_vector.RANDOM_SHARE, rel=0.1)
    assert (np.abs(rest) > 0).all()
    zero = start_vector.combined(np.zeros((P, 2)), P, np.dtype(np.float64), seed=0)
    assert np.linalg.norm(zero) == pytest.approx(1.0)


PAIRS = Eigenpairs(np.ones(1), np.ones((3, 1)), np.zeros(1), 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"v0": np.ones(3)}, "a v0 of real numbers of shape (700,), got float64 of shape (3,)"),
        ({"v0": np.zeros(P)}, "a finite v0 that is not zero, got ‖v0‖ = 0.0"),
        ({"v0": np.full(P, np.nan)}, "a finite v0 that is not zero, got ‖v0‖ = nan"),
        ({"v0": np.ones(P, complex)}, "a v0 of real numbers"),
        ({"start": PAIRS}, "a start with finite vectors of shape (700, k), got vectors of shape"),
        ({"start": np.ones(P)}, "a start of Eigenpairs, got ndarray; pass what eigsh returned"),
        ({"start": PAIRS, "v0": np.ones(P)}, "expected v0 or start, got both; leave one out"),
        ({"block": 0}, "expected a block of 1 to 699 vectors, got 0; leave it out"),
        ({"block": 2.0}, "expected a block of 1 to 699 vectors, got 2.0"),
    ],
)
def test_what_cannot_start_is_refused(before, options, words):
    with pytest.raises(InputError, match=re.escape(words)):
        eigsh(before, 1, **options)

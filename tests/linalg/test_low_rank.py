"""Nyström approximations against dense algebra."""

import numpy as np
import pytest
import scipy.linalg
from scipy.sparse.linalg import aslinearoperator

import hvp
from hvp.errors import InputError

SIZE = 150


def matrix(values, seed=0):
    Q = scipy.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return (Q * values) @ Q.T


SPECTRA = {
    "power law": 1.0 / np.arange(1, SIZE + 1) ** 2,
    "geometric": np.logspace(0, -8, SIZE),
    "low rank": np.r_[np.arange(1.0, 11.0), np.zeros(SIZE - 10)],
    "identity and spikes": np.r_[np.ones(SIZE - 3), 10.0, 20.0, 30.0],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SPECTRA)
def test_what_is_left_is_positive_semidefinite_and_below_the_bound(name, dtype):
    A = matrix(SPECTRA[name]).astype(dtype)
    found = hvp.low_rank(A, 20)
    U, values = found.vectors.astype("float64"), found.values
    left = np.linalg.eigvalsh(A.astype("float64") - (U * values) @ U.T)
    rounding = 30 * np.finfo(dtype).eps * values.max()
    assert left[0] > -rounding
    assert left[-1] <= found.error_bound + rounding
    assert found.error_bound <= 3 * left[-1] + rounding
    assert np.allclose(U.T @ U, np.eye(20), atol=100 * np.finfo(dtype).eps)
    assert (np.diff(values) <= 0).all()


@pytest.mark.sweep
@pytest.mark.parametrize("name", SPECTRA)
def test_the_bound_holds_for_two_hundred_seeds(name):
    A = matrix(SPECTRA[name])
    for seed in range(200):
        found = hvp.low_rank(A, 12, seed=seed)
        U = found.vectors
        left = np.linalg.norm(A - (U * found.values) @ U.T, 2)
        assert left <= found.error_bound + 1e-13


def test_a_matrix_of_that_rank_is_found_exactly():
    A = matrix(SPECTRA["low rank"])
    found = hvp.low_rank(A, 15)
    assert np.allclose(found @ np.eye(SIZE), A, atol=1e-12)
    assert np.allclose(found.values[:10], np.arange(10, 0, -1))


def test_it_is_a_scipy_operator():
    found = hvp.low_rank(matrix(SPECTRA["power law"]), 10)
    V = np.random.default_rng(0).normal(size=(SIZE, 3))
    dense = (found.vectors * found.values) @ found.vectors.T
    assert np.allclose(found @ V, dense @ V)
    assert np.allclose(found @ V[:, 0], dense @ V[:, 0])
    assert np.allclose(found.T @ V[:, 0], dense @ V[:, 0])
    assert np.allclose((aslinearoperator(np.eye(SIZE)) + found) @ V, V + dense @ V)
    assert "rank=10" in repr(found)


def test_the_preconditioner_inverts_the_approximation():
    damping, found = 1e-2, hvp.low_rank(matrix(SPECTRA["low rank"]), 10)
    P = found.preconditioner(damping) @ np.eye(SIZE)
    dense = (found.vectors * found.values) @ found.vectors.T + damping * np.eye(SIZE)
    expected = (found.values[-1] + damping) * np.linalg.inv(dense)
    along = found.vectors
    assert np.allclose(along.T @ P @ along, along.T @ expected @ along)
    outside = scipy.linalg.null_space(along.T)
    assert np.allclose(outside.T @ P @ outside, np.eye(SIZE - 10))
    with pytest.raises(InputError, match="a positive damping"):
        found.preconditioner(0.0)


def test_zero_has_no_vectors():
    found = hvp.low_rank(np.zeros((5, 5)), 2)
    assert found.values.shape == (0,)
    assert found.error_bound == 0
    assert not (found @ np.ones(5)).any()
    assert np.array_equal(found.preconditioner(1.0) @ np.ones(5), np.ones(5))


def test_negative_curvature_and_wrong_ranks_are_refused():
    with pytest.raises(InputError, match="positive semidefinite"):
        hvp.low_rank(-np.eye(10), 3)
    with pytest.raises(InputError, match="positive semidefinite"):
        hvp.low_rank(matrix(np.r_[-5.0, np.ones(20)]), 20)
    for rank in (0, 11, 1.5):
        with pytest.raises(InputError, match="a rank from 1 to 10"):
            hvp.low_rank(np.eye(10), rank)

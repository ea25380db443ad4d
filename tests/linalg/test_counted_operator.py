"""What every algorithm takes for an operator."""

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from hvp.errors import InputError
from hvp.linalg.counted_operator import CountedOperator


def test_columns_of_a_block_are_counted_and_reported():
    reported = []
    A = CountedOperator(np.diag([1.0, 2.0]), reported.append)
    assert (A @ np.ones(2)).tolist() == [1.0, 2.0]
    assert (A @ np.eye(2)).tolist() == [[1.0, 0.0], [0.0, 2.0]]
    assert A.count == 3
    assert reported == [1, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("v", [np.ones(2), np.ones((2, 3))], ids=["vector", "block"])
def test_what_is_not_finite_is_refused(bad, v):
    with pytest.raises(InputError, match="finite products, got NaN or infinity in product"):
        CountedOperator(np.diag([1.0, bad])) @ v


def test_a_square_that_overflows_is_finite():
    assert (CountedOperator(np.diag([1e200, 1.0])) @ np.ones(2))[0] == 1e200


@pytest.mark.parametrize(
    ("A", "words"),
    [
        (np.ones((2, 3)), "a square operator"),
        (np.ones((2, 2), int), "float32 or float64"),
        ("no operator", "a SciPy LinearOperator or a matrix"),
        (LinearOperator((2, 2), matvec=lambda v: v, dtype=complex), "float32 or float64"),
    ],
    ids=["not square", "integers", "a string", "complex"],
)
def test_what_is_no_operator_is_refused(A, words):
    with pytest.raises(InputError, match=words):
        CountedOperator(A)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_asymmetric_operator_is_refused_with_its_asymmetry(dtype):
    rng = np.random.default_rng(0)
    A = rng.standard_normal((50, 50)).astype(dtype)
    V = rng.standard_normal((50, 3)).astype(dtype)
    symmetric = A + A.T
    counted = CountedOperator(symmetric)
    counted.check_symmetry(V, symmetric @ V)
    counted.check_symmetry(V, 0 * V)
    with pytest.raises(InputError, match=r"a relative difference of \d.\de-0[1-4]"):
        counted.check_symmetry(V, (symmetric + 0.1 * A) @ V)


def test_rounding_of_a_large_operator_is_no_asymmetry_of_a_small_difference():
    rng = np.random.default_rng(0)
    V = rng.standard_normal((50, 3))
    noise = 1e-12 * rng.standard_normal((50, 50))
    with pytest.raises(InputError, match="a symmetric operator"):
        CountedOperator(noise).check_symmetry(V, noise @ V)
    CountedOperator(noise, scale=1.0).check_symmetry(V, noise @ V)


def test_the_adjoint_is_the_operator():
    A = CountedOperator(aslinearoperator(np.diag([1.0, 2.0])))
    assert A.H is A

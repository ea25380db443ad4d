"""The public checks: they pass what keeps the laws, and name the law that is broken."""

import re

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from hvp import testing

SQUARE_CHECKS = (testing.symmetry, testing.linearity, testing.repeatability, testing.dot_test)
ALL_CHECKS = [pytest.param(check, id=check.__name__) for check in SQUARE_CHECKS]


def symmetric(size=6, dtype=np.float64):
    matrix = np.random.default_rng(0).standard_normal((size, size))
    return (matrix + matrix.T).astype(dtype)


class Operator(LinearOperator):
    """An operator of given products, block products and adjoint."""

    def __init__(self, shape, matvec, rmatvec=None, matmat=None, dtype=np.float64):
        super().__init__(dtype, shape)
        self._product, self._adjoint_product, self._block = matvec, rmatvec, matmat

    def _matvec(self, v):
        return self._product(v.reshape(-1))

    def _rmatvec(self, u):
        return self._adjoint_product(u.reshape(-1))

    def _matmat(self, V):
        return self._block(V) if self._block else super()._matmat(V)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("check", ALL_CHECKS)
def test_a_symmetric_matrix_passes_every_check(check, dtype):
    error = check(aslinearoperator(symmetric(dtype=dtype)))
    assert isinstance(error, float)
    assert 0 <= error < 10 * np.finfo(dtype).eps


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 4), (4, 1)])
def test_rectangular_operators_pass_what_makes_sense_for_them(shape):
    A = aslinearoperator(np.random.default_rng(1).standard_normal(shape))
    for check in (testing.dot_test, testing.linearity, testing.repeatability):
        assert check(A) < 1e-14


@pytest.mark.parametrize("check", ALL_CHECKS)
def test_a_zero_operator_has_error_zero(check):
    assert check(aslinearoperator(np.zeros((4, 4)))) == 0.0


def test_a_wrong_adjoint_fails_the_dot_test():
    matrix = np.random.default_rng(2).standard_normal((4, 3))
    right = Operator((4, 3), lambda v: matrix @ v, lambda u: matrix.T @ u)
    wrong = Operator((4, 3), lambda v: matrix @ v, lambda u: matrix.T @ u * (1 + 1e-9))
    assert testing.dot_test(right) < 1e-14
    with pytest.raises(AssertionError, match=r"dot test: relative error .*, expected at most"):
        testing.dot_test(wrong)


def test_a_small_asymmetry_fails_symmetry():
    matrix = symmetric()
    matrix[0, 1] += 1e-6
    with pytest.raises(AssertionError, match="symmetry: relative error"):
        testing.symmetry(aslinearoperator(matrix))


@pytest.mark.parametrize(
    "product",
    [
        pytest.param(lambda v: v + 1e-6, id="affine"),
        pytest.param(np.abs, id="absolute"),
        pytest.param(lambda v: v + 1e-6 * v**2, id="quadratic"),
    ],
)
def test_what_is_not_linear_fails_linearity(product):
    with pytest.raises(AssertionError, match="linearity: relative error"):
        testing.linearity(Operator((5, 5), product))


def test_a_block_product_that_differs_from_its_columns_fails_linearity():
    A = Operator((5, 5), lambda v: 2 * v, matmat=lambda V: 2 * V[:, ::-1])
    with pytest.raises(AssertionError, match="linearity"):
        testing.linearity(A)


def test_a_product_that_changes_from_call_to_call_fails_repeatability():
    rng = np.random.default_rng(3)
    A = Operator((5, 5), lambda v: v + 1e-9 * rng.standard_normal(5))
    with pytest.raises(AssertionError, match="repeatability"):
        testing.repeatability(A)


@pytest.mark.parametrize("check", ALL_CHECKS)
def test_nan_fails_every_check(check):
    A = Operator((4, 4), lambda v: v * np.nan, lambda u: u * np.nan)
    with pytest.raises(AssertionError, match="relative error nan"):
        check(A)


@pytest.mark.parametrize("check", ALL_CHECKS)
def test_a_bound_given_replaces_the_default(check):
    rng = np.random.default_rng(4)
    noisy = symmetric()

    def product(v):
        return noisy @ v + 1e-5 * rng.standard_normal(6)

    A = Operator((6, 6), product, product)
    assert check(A, bound=1e-2) > 1e-9
    with pytest.raises(AssertionError, match=re.escape("expected at most 1.0e-09")):
        check(A, bound=1e-9)


def test_the_seed_draws_the_vectors_and_they_have_a_mean():
    seen = []

    def product(v):
        seen.append(v)
        return v

    A = Operator((2000, 2000), product)
    testing.repeatability(A, seed=1)
    testing.repeatability(A, seed=1)
    testing.repeatability(A, seed=2)
    assert np.array_equal(seen[0], seen[2])
    assert not np.array_equal(seen[0], seen[4])
    assert all(abs(v.mean()) > 0.3 for v in seen)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors_have_the_operators_precision(dtype):
    seen = set()

    def product(v):
        seen.add(v.dtype)
        return v

    A = Operator((4, 4), product, product, dtype=dtype)
    for check in SQUARE_CHECKS:
        check(A)
    assert seen == {np.dtype(dtype)}

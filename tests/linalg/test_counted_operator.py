"""What every algorithm takes for an operator."""

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from support.spectra import with_spectrum

import hvp
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


# --- operators that share their memory ---

MATRIX = with_spectrum(np.linspace(-3.0, 2.0, 60))
ALGORITHMS = [
    lambda A: hvp.eigsh(A, 2, which="SA").values,
    lambda A: hvp.eigsh(A, 2, which="SA", ncv=30).values,
    lambda A: hvp.trace(A, num_products=20).value,
    lambda A: hvp.trace(A, num_products=3).value,
    lambda A: hvp.squared_frobenius_norm(A, num_products=20).value,
    lambda A: hvp.diagonal(A, num_products=20).value,
    lambda A: hvp.density(A, num_probes=4, num_steps=20).nodes,
    lambda A: hvp.density(A, num_probes=1, num_steps=20).nodes,
    lambda A: hvp.noise_floor(A).asymmetry,
]
algorithms = pytest.mark.parametrize(
    "algorithm",
    ALGORITHMS,
    ids=["dense", "ARPACK", "trace", "three", "norm", "diagonal", "density", "one probe", "noise"],
)


def in_place(v):
    v = v.reshape(-1)
    v[:] = MATRIX @ v
    return v


def with_own_buffer(has_blocks):
    vector, blocks = np.empty(60), {}

    def matvec(v):
        vector[:] = MATRIX @ v.reshape(-1)
        return vector

    def matmat(V):
        block = blocks.setdefault(V.shape[1], np.empty(V.shape))
        block[:] = MATRIX @ V
        return block

    return LinearOperator(
        MATRIX.shape, matvec=matvec, matmat=matmat if has_blocks else None, dtype=float
    )


@algorithms
def test_an_operator_that_writes_into_its_argument_is_refused(algorithm):
    A = LinearOperator(MATRIX.shape, matvec=in_place, dtype=float)
    with pytest.raises(InputError, match="writes into its argument; copy it first"):
        algorithm(A)


@algorithms
@pytest.mark.parametrize("has_blocks", [True, False], ids=["blocks", "vectors"])
def test_an_operator_that_returns_its_own_buffer_gives_the_same_results(algorithm, has_blocks):
    expected = algorithm(MATRIX)
    np.testing.assert_allclose(algorithm(with_own_buffer(has_blocks)), expected, atol=1e-12)


def test_two_products_of_one_buffer_are_two_arrays():
    A = CountedOperator(with_own_buffer(True))
    first, second = (A @ v for v in np.eye(60)[:2])
    np.testing.assert_allclose(first, MATRIX[0])
    np.testing.assert_allclose(second, MATRIX[1])


def test_an_operator_that_returns_its_argument_gets_a_copy_back():
    A, v = CountedOperator(LinearOperator((3, 3), matvec=lambda v: v, dtype=float)), np.ones(3)
    for _ in range(2):
        product = A @ v
        product[0] = 7.0
        assert v.tolist() == [1.0, 1.0, 1.0]


def test_an_operator_that_only_needs_a_writable_vector_gets_one():
    def matvec(v):
        if not v.flags.writeable:
            raise ValueError("buffer source array is read-only")
        return MATRIX @ v

    A = CountedOperator(LinearOperator(MATRIX.shape, matvec=matvec, dtype=float))
    for v in np.eye(60)[:2]:
        np.testing.assert_allclose(A @ v, MATRIX @ v)
    assert A.count == 2


def test_other_errors_of_an_operator_are_its_own():
    def matvec(v):
        raise ValueError("another")

    with pytest.raises(ValueError, match="another"):
        CountedOperator(LinearOperator((3, 3), matvec=matvec, dtype=float)) @ np.ones(3)


def test_equal_columns_of_an_operator_of_rank_one_are_products():
    A = CountedOperator(np.diag([1.0, 0.0]))
    assert (A @ np.array([[1.0, 1.0], [1.0, -1.0]])).tolist() == [[1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    "algorithm",
    [
        lambda A: hvp.eigsh(A, 1),
        hvp.trace,
        hvp.squared_frobenius_norm,
        hvp.diagonal,
        hvp.density,
        hvp.noise_floor,
    ],
)
def test_an_operator_without_rows_is_refused(algorithm):
    with pytest.raises(InputError, match="an operator of at least one row") as caught:
        algorithm(np.zeros((0, 0)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("norm", [1e-200, 1e200])
@pytest.mark.parametrize(
    "algorithm",
    [
        hvp.density,
        hvp.diagonal,
        lambda A: hvp.trace(A, num_products=20),
        lambda A: hvp.squared_frobenius_norm(A, num_products=3),
    ],
)
def test_sums_of_squares_out_of_range_are_refused(algorithm, norm):
    with pytest.raises(InputError, match=r"products of size 1e-140 to 1e\+140, got .*; divide"):
        algorithm(norm * with_spectrum(np.linspace(1.0, 2.0, 200)))

"""Traces, norms and diagonals on matrices with chosen eigenvalues, against dense algebra.

Every estimate is made with 200 seeds: its mean must be the truth, and the truth must lie within one
and within two standard errors as often as their number of samples lets expect.
"""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator
from support.estimators import FUNCTIONS, MATRICES, SEEDS, P, assert_unbiased, functions, one_layer
from support.spectra import with_spectrum

import hvp
from hvp import InputError
from hvp.linalg import blocks


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("function", [hvp.trace, hvp.squared_frobenius_norm])
def test_estimates_and_their_errors_are_unbiased(function, name):
    A = MATRICES[name]
    assert_unbiased(
        [function(A, num_products=40, seed=seed) for seed in SEEDS], FUNCTIONS[function](A)
    )


@pytest.mark.parametrize("name", ["flat", "spiked"])
def test_the_norm_is_the_root_of_its_square(name):
    A = MATRICES[name]
    square = hvp.squared_frobenius_norm(A, num_products=30)
    norm = hvp.frobenius_norm(A, num_products=30)
    assert norm.value == pytest.approx(square.value**0.5)
    low = np.sqrt(square.value - square.stderr)
    assert norm.stderr == pytest.approx(norm.value - low)
    assert norm.num_products == square.num_products == 30
    assert_unbiased(
        [hvp.frobenius_norm(A, num_products=30, seed=seed) for seed in SEEDS], np.linalg.norm(A)
    )


@functions
@pytest.mark.parametrize("rank", [1, 5, 12])
def test_low_rank_is_exact_and_says_so(function, rank):
    values = np.r_[np.linspace(-1.0, 3.0, rank), np.zeros(P - rank)]
    A = with_spectrum(values, seed=3)
    found = function(A, num_products=40)
    scale = np.linalg.norm(A, 2)
    np.testing.assert_allclose(found.value, FUNCTIONS[function](A), atol=1e-13 * scale)
    assert np.max(found.stderr) <= 1e-14 * scale


def test_decay_makes_the_error_smaller_than_hutchinsons():
    A = MATRICES["fast decaying"]
    plain = np.mean(
        [(v @ A @ v - 5.0) ** 2 for v in np.random.default_rng(0).choice([-1, 1], (40, P))]
    )
    errors = [hvp.trace(A, num_products=40, seed=seed).value - np.trace(A) for seed in range(40)]
    assert np.mean(np.square(errors)) < plain / 40 / 25


@functions
@pytest.mark.parametrize("num_products", [10, 1000])
@pytest.mark.parametrize(
    "A",
    [
        np.zeros((P, P)),
        np.eye(P),
        np.outer(np.arange(P) / P, np.arange(P) / P),
        -2 * np.eye(P),
    ],
    ids=["zero", "identity", "rank one", "negative"],
)
def test_zero_identity_and_rank_one_are_exact(function, A, num_products):
    found = function(A, num_products=num_products)
    truth = FUNCTIONS[function](A)
    if function is hvp.diagonal and num_products < P and np.linalg.matrix_rank(A) == P:
        errors = np.abs(found.value - truth)  # a basis of random signs hides that A is diagonal
        assert 0.62 < np.mean(errors <= found.stderr) < 0.9
        return
    np.testing.assert_allclose(found.value, truth, rtol=1e-12, atol=1e-13)
    assert np.max(found.stderr) <= 1e-11


@functions
@pytest.mark.parametrize("values", [[3.0], [3.0, -1.0], [1.0, 2.0, 4.0]])
def test_one_two_and_three_parameters_are_exact(function, values):
    A = with_spectrum(values)
    found = function(A)
    assert found.num_products == len(values)
    assert found.method == "unit vectors"
    np.testing.assert_allclose(found.value, FUNCTIONS[function](A), atol=1e-14)
    assert not np.any(found.stderr)


@functions
def test_products_beyond_the_size_are_not_made(function):
    for count in (P, P + 1, 10 * P):
        found = function(MATRICES["flat"], num_products=count)
        assert found.num_products == P
        np.testing.assert_allclose(found.value, FUNCTIONS[function](MATRICES["flat"]))


@functions
@pytest.mark.parametrize("count", [1, 3, 4, 5, 21, 40])
def test_no_more_products_are_made_than_allowed_and_all_reported(function, count):
    reported = []
    found = function(MATRICES["flat"], num_products=count, progress=reported.append)
    assert reported == sorted(set(reported))
    assert found.num_products == reported[-1]
    assert count - 1 <= found.num_products <= count


@functions
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(function):
    first, again, other = (
        function(MATRICES["flat"], num_products=20, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.value, again.value)
    assert np.array_equal(first.stderr, again.stderr)
    assert not np.array_equal(first.value, other.value)


@functions
def test_float32_operators_get_float32_vectors_only(function):
    A = with_spectrum(np.r_[np.linspace(1.0, 2.0, 8), np.zeros(P - 8)]).astype(np.float32)
    seen = set()

    def product(V):
        seen.add(V.dtype)
        return A @ V

    operator = LinearOperator(A.shape, matvec=product, matmat=product, dtype=np.float32)
    for count in (3, 40, 1000):
        found = function(operator, num_products=count)
        assert found.value.dtype == np.float64 if function is hvp.diagonal else True
    assert seen == {np.dtype(np.float32)}
    found = function(operator, num_products=40)
    np.testing.assert_allclose(found.value, FUNCTIONS[function](A.astype(float)), atol=2e-5)
    assert np.max(found.stderr) < 2e-5


@functions
def test_sparse_matrices_are_taken(function):
    A = scipy.sparse.diags_array(np.arange(50.0)).tocsr()
    found = function(A, num_products=20)
    truth = FUNCTIONS[function](A.toarray())
    assert (np.abs(found.value - truth) <= 6 * found.stderr + 1e-12).all()


@functions
@pytest.mark.parametrize("num_products", [3, 20, 1000])
def test_what_is_not_symmetric_is_refused_with_its_asymmetry(function, num_products):
    A = np.random.default_rng(0).standard_normal((P, P))
    with pytest.raises(InputError, match=r"a symmetric operator.*difference of \d\.\de-0[12]"):
        function(A, num_products=num_products)


@functions
@pytest.mark.parametrize("num_products", [3, 20, 1000])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(function, num_products, value):
    operator = LinearOperator((P, P), matvec=lambda v: np.full(P, value), dtype=np.float64)
    with pytest.raises(InputError, match="finite products, got NaN or infinity in product"):
        function(operator, num_products=num_products)


@functions
@pytest.mark.parametrize("bad", [0, -1, 2.5])
def test_a_number_of_products_that_is_none_is_refused(function, bad):
    with pytest.raises(InputError, match=f"num_products of at least 1, got {bad}; raise it"):
        function(np.eye(4), num_products=bad)


@pytest.mark.parametrize(
    ("function", "limit"),
    [
        (hvp.trace, 60),
        (hvp.squared_frobenius_norm, 60),
        (hvp.diagonal, 66),
        (lambda A, **options: hvp.layer_traces(A, one_layer(A.shape[0]), **options), 66),
    ],
    ids=["trace", "norm", "diagonal", "layers"],
)
def test_vectors_held_are_as_many_as_products(function, limit):
    size, vectors = 100_000, 8 * 100_000
    scales = np.linspace(1.0, 2.0, size)[:, None]
    A = LinearOperator(
        (size, size), matvec=lambda v: scales[:, 0] * v, matmat=lambda V: scales * V, dtype=float
    )
    tracemalloc.start()
    function(A, num_products=60)
    peak = tracemalloc.get_traced_memory()[1] / vectors
    tracemalloc.stop()
    # a few blocks of columns while they are multiplied, and chunks of rows in float64
    assert peak <= limit + 4 * blocks.BLOCK_COLUMNS + 10

"""`hvp.eigsh` on matrices made from chosen eigenvalues, judged by dense algebra."""

import re

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from support.spectra import SPECTRA, Counting, P, with_spectrum

from hvp import ConvergenceError, Eigenpairs, InputError, eigsh
from hvp.linalg import arpack

NCV = {"whole": None, "iterated": 20}  # a space this small is taken whole unless a basis is given


def chosen(values, k, which):
    """What `which` means, in ascending order."""
    values = np.sort(values)
    low = {"LA": 0, "SA": k, "BE": k // 2}
    if which == "LM":
        return np.sort(values[np.argsort(np.abs(values))[-k:]])
    return np.r_[values[: low[which]], values[len(values) - (k - low[which]) :]]


@pytest.fixture(params=NCV)
def ncv(request):
    return NCV[request.param]


@pytest.mark.parametrize("which", ["LA", "SA", "BE", "LM"])
@pytest.mark.parametrize("name", SPECTRA)
def test_every_end_of_every_spectrum_agrees_with_the_eigenvalues_chosen(name, which, ncv):
    values = SPECTRA[name]
    pairs = eigsh(with_spectrum(values), 5, which=which, ncv=ncv)
    scale = np.abs(values).max()
    np.testing.assert_allclose(
        pairs.values, chosen(values, 5, which), rtol=0, atol=1e-7 * scale + 1e-14
    )


@pytest.mark.parametrize("k", [1, 2, 3])
def test_an_odd_k_takes_one_more_from_the_upper_end(k, ncv):
    pairs = eigsh(with_spectrum(SPECTRA["simple"]), k, which="BE", ncv=ncv)
    expected = {1: [10.0], 2: [1.0, 10.0], 3: [1.0, SPECTRA["simple"][-2], 10.0]}[k]
    np.testing.assert_allclose(pairs.values, expected, atol=1e-6)


@pytest.mark.parametrize("which", ["LA", "SA", "BE", "LM"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_small_matrix_is_formed(k, which):
    values = np.array([-7.0, -1.0, 0.0, 2.0, 2.5, 5.0])
    operator = Counting(with_spectrum(values))
    pairs = eigsh(operator, k, which=which)
    np.testing.assert_allclose(pairs.values, chosen(values, k, which), atol=1e-13)
    assert pairs.num_products == operator.count == 6 + k


def test_a_large_matrix_is_not_formed():
    values = np.r_[np.linspace(0.0, 1.0, 2000), 5.0, 6.0]
    operator = Counting(scipy.sparse.diags_array(values).tocsr())
    pairs = eigsh(operator, 2)
    np.testing.assert_allclose(pairs.values, [5.0, 6.0], atol=1e-7)
    assert operator.count < 100


@pytest.mark.parametrize(
    ("diagonal", "k"), [([3.0], 1), ([3.0, -1.0], 1), ([3.0, -1.0, 0.0], 1), ([3.0, -1.0, 0.0], 2)]
)
def test_one_two_and_three_parameters(diagonal, k):
    matrix = np.diag(diagonal)
    for which in ("LA", "SA", "BE", "LM"):
        pairs = eigsh(matrix, k, which=which)
        np.testing.assert_allclose(pairs.values, chosen(diagonal, k, which), atol=1e-15)
        assert pairs.vectors.shape == (len(diagonal), k)


@pytest.mark.parametrize("name", SPECTRA)
def test_errors_are_the_true_norms_and_enclose_eigenvalues(name, ncv):
    values = SPECTRA[name]
    matrix = with_spectrum(values)
    pairs = eigsh(matrix, 4, which="BE", tol=1e-3, ncv=ncv)
    rounding = 1e-13 * np.abs(values).max()
    true = np.linalg.norm(matrix @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
    np.testing.assert_allclose(pairs.errors, true, rtol=1e-6, atol=rounding)
    distances = np.abs(values[:, None] - pairs.values).min(axis=0)
    assert (distances <= pairs.errors + rounding).all()


def test_a_loose_tolerance_shows_in_the_errors():
    matrix = with_spectrum(SPECTRA["simple"])
    loose, tight = (eigsh(matrix, 3, tol=tol, ncv=20) for tol in (1e-2, 1e-12))
    assert loose.errors.max() > 1e-6 > 1e-9 > tight.errors.max()
    assert loose.num_products < tight.num_products


@pytest.mark.parametrize("which", ["LA", "SA", "BE", "LM"])
def test_vectors_are_orthonormal_and_values_ascend(which, ncv):
    pairs = eigsh(with_spectrum(SPECTRA["degenerate"]), 6, which=which, ncv=ncv)
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(6), atol=1e-12)
    assert (np.diff(pairs.values) >= 0).all()


@pytest.mark.parametrize("which", ["LA", "SA", "BE", "LM"])
def test_every_product_is_counted_and_reported(which, ncv):
    operator = Counting(with_spectrum(SPECTRA["indefinite"]))
    reported = []
    pairs = eigsh(operator, 3, which=which, ncv=ncv, progress=reported.append)
    assert pairs.num_products == operator.count
    assert reported == sorted(set(reported))
    assert reported[-1] == operator.count


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    matrix = with_spectrum(SPECTRA["simple"])
    first, again, other = (eigsh(matrix, 3, ncv=20, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.values, again.values)
    assert np.array_equal(first.vectors, again.vectors)
    assert not np.array_equal(first.vectors, other.vectors)


@pytest.mark.parametrize("name", ["zero", "identity", "rank deficient"])
def test_the_same_seed_gives_the_same_bits_where_the_krylov_space_breaks_down(name):
    matrix = np.diag(SPECTRA[name])
    first, again = eigsh(matrix, 5, ncv=20), eigsh(matrix, 5, ncv=20)
    assert np.array_equal(first.values, again.values)
    assert np.array_equal(first.vectors, again.vectors)


@pytest.mark.parametrize("size", [6, P])
@pytest.mark.parametrize("which", ["LA", "SA", "BE", "LM"])
def test_float32_operators_get_float32_vectors_only(size, which, ncv):
    values = np.linspace(-2.0, 10.0, size)
    matrix = with_spectrum(values).astype(np.float32)
    seen = set()

    def product(v):
        seen.add(v.dtype)
        return matrix @ v

    operator = LinearOperator(matrix.shape, matvec=product, dtype=np.float32)
    pairs = eigsh(operator, 3, which=which, ncv=ncv)
    assert seen == {np.dtype(np.float32)}
    np.testing.assert_allclose(pairs.values, chosen(values, 3, which), atol=1e-3)
    exact = matrix.astype(np.float64)
    true = np.linalg.norm(exact @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
    np.testing.assert_allclose(pairs.errors, true, atol=1e-5)


def test_sparse_matrices_and_given_scale_and_basis_are_taken():
    diagonal = np.arange(100.0)
    pairs = eigsh(scipy.sparse.diags_array(diagonal).tocsr(), 2, scale=99.0, ncv=40)
    np.testing.assert_allclose(pairs.values, [98.0, 99.0], atol=1e-5)


def test_an_operator_of_rounding_noise_converges_at_the_scale_it_is_given():
    noise = 1e-9 * with_spectrum(SPECTRA["simple"])
    noise += 1e-12 * np.random.default_rng(3).standard_normal(noise.shape)  # not symmetric
    pairs = eigsh(noise, 3, tol=1e-4, scale=1.0, ncv=20)
    assert np.abs(pairs.values).max() < 2e-8
    assert pairs.errors.max() < 1e-3


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    size=st.integers(2, 45),
    seed=st.integers(0, 2**32 - 1),
    which=st.sampled_from(["LA", "SA", "BE", "LM"]),
    ncv=st.sampled_from([None, 20, 30]),
    data=st.data(),
)
def test_random_symmetric_matrices(size, seed, which, ncv, data):
    k = data.draw(st.integers(1, min(size - 1, 6)))
    matrix = np.random.default_rng(seed).standard_normal((size, size))
    operator = Counting((matrix + matrix.T) / 2)
    values = np.linalg.eigvalsh(operator.matrix)
    pairs = eigsh(operator, k, which=which, ncv=ncv)
    scale = np.abs(values).max()
    if which == "LM":
        expected = np.sort(np.abs(values))[-k:]
        np.testing.assert_allclose(np.sort(np.abs(pairs.values)), expected, atol=1e-6 * scale)
    else:
        np.testing.assert_allclose(pairs.values, chosen(values, k, which), atol=1e-6 * scale)
    true = np.linalg.norm(operator.matrix @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
    np.testing.assert_allclose(pairs.errors, true, atol=1e-12 * scale)
    assert pairs.num_products == operator.count


def test_pairs_are_separate_where_their_intervals_are():
    values, errors = np.array([0.0, 0.1, 1.0, 1.2, 5.0]), np.array([0.0, 0.2, 0.1, 0.05, 0.1])
    pairs = Eigenpairs(values, np.eye(5), errors, 0)
    assert pairs.separate.tolist() == [False, False, True, True, True]
    assert Eigenpairs(values[:1], np.eye(5)[:, :1], errors[:1], 0).separate.tolist() == [True]


def test_equal_values_are_not_separate():
    assert not eigsh(np.eye(P), 3).separate.any()


def test_values_are_bounds_even_where_copies_are_missed(ncv):
    values = np.sort(SPECTRA["rank deficient"])
    low = eigsh(with_spectrum(values), 5, which="SA", tol=1e-2, ncv=ncv).values
    high = eigsh(with_spectrum(values), 5, which="LA", tol=1e-2, ncv=ncv).values
    assert (low >= values[:5] - 1e-14).all()
    assert (high <= values[-5:] + 1e-14).all()


def test_what_does_not_converge_is_an_error_that_says_what_to_change():
    operator = Counting(with_spectrum(np.linspace(0.0, 1.0, 300)))
    with pytest.raises(ConvergenceError, match=r"accept errors.* or raise max_products") as e:
        eigsh(operator, 3, max_products=1, ncv=20)
    assert "expected 3 pairs at LA within" in str(e.value)
    assert f"after {operator.count} products" in str(e.value)


CROWDED = {
    "geometric": np.geomspace(1e-16, 1.0, 1000),
    "half zero": np.r_[np.zeros(500), np.geomspace(1e-10, 1.0, 500)],
}


@pytest.mark.parametrize("name", CROWDED)
@pytest.mark.parametrize("norm", [1.0, 1e-6, 1e200])
def test_the_advice_where_eigenvalues_crowd_at_zero_works(name, norm):
    A = scipy.sparse.diags_array(norm * CROWDED[name]).tocsr()
    with pytest.raises(ConvergenceError, match="0 that converged after") as e:
        eigsh(A, 5, which="SA", max_products=2000)
    advice = re.search(r"errors up to (\S+) by tol=(\S+) or scale=(\S+) \(", str(e.value))
    error, tol, scale = (float(number) for number in advice.groups())
    for options in ({"tol": tol}, {"scale": scale}):
        pairs = eigsh(A, 5, which="SA", **options)
        assert pairs.num_products < 2000
        assert pairs.errors.max() < 5 * error
        assert (pairs.values <= 5 * error).all()


def test_a_single_pair_is_said_so():
    assert repr(eigsh(np.eye(3), 1)).startswith("1 eigenpair of 3, ")


def test_values_that_are_bounds_only_are_named():
    values = np.array([0.0, 1e-9, 2.0])
    ranks = np.array([-1, -2, 1])
    pairs = Eigenpairs(values, np.eye(3), np.full(3, 1e-8), 7, unseen=False, ranks=ranks)
    assert repr(pairs).splitlines() == [
        "3 eigenpairs of 3, 7 products, second start: nothing missing",
        "rank  value    error      kind",
        "-1        0  1.0e-08     bound",
        "-2    1e-09  1.0e-08     bound",
        "1         2  1.0e-08  separate",
        "rank: 1 is the largest, -1 the smallest.",
        "bound: it meets another value within their errors, and may be an eigenvalue of another "
        "rank, after",
        "a second start too.",
    ]
    assert "bound" not in repr(pairs[2:])
    assert repr(pairs[:0]).splitlines()[1:] == ["rank  value  error  kind"]


def test_rows_are_plain_and_say_rank_kind_and_second_start():
    """The copies of 3 and of 0 are clusters at both ends, where ranks are bounds."""
    values = np.r_[np.zeros(40), np.linspace(1.0, 2.0, 520), np.full(40, 3.0)]
    A = scipy.sparse.diags_array(values)
    rows = eigsh(A, 4, which="BE", second_start=True).rows()
    assert [row["rank"] for row in rows] == [-1, -2, 2, 1]
    assert {tuple(map(type, row.values())) for row in rows} == {(int, float, float, str, str)}
    assert list(rows[0]) == ["rank", "value", "error", "kind", "second_start"]
    assert {row["second_start"] for row in rows} == {"nothing missing"}
    assert {row["kind"] for row in rows} == {"bound"}


def test_a_second_start_that_found_another_value_is_named():
    pairs = Eigenpairs(np.ones(1), np.eye(3)[:, :1], np.zeros(1), 9, unseen=True)
    assert "A second start found an eigenvalue that is missing" in repr(pairs)
    assert pairs.rows()[0]["second_start"] == "one is missing"
    assert np.isnan(pairs.rows()[0]["rank"])


@pytest.mark.parametrize(
    ("which", "ranks"), [("LA", [3, 2, 1]), ("SA", [-1, -2, -3]), ("BE", [-1, 2, 1])]
)
@pytest.mark.parametrize("ncv", [None, 20])
def test_ranks_count_from_the_end_asked_for(which, ranks, ncv):
    pairs = eigsh(np.diag(np.arange(60.0)), 3, which=which, ncv=ncv)
    expected = [60 - rank if rank > 0 else -rank - 1 for rank in ranks]
    assert pairs.ranks.tolist() == ranks
    assert pairs.values == pytest.approx(expected)


def test_ranks_in_magnitude_start_at_the_largest():
    pairs = eigsh(np.diag([-5.0, -1.0, 2.0, 4.0]), 3, which="LM")
    assert (pairs.values.tolist(), pairs.ranks.tolist()) == ([-5.0, 2.0, 4.0], [1, 3, 2])


def test_giving_up_costs_no_more_than_was_allowed():
    operator = Counting(with_spectrum(np.linspace(0.0, 1.0, 300)))
    with pytest.raises(ConvergenceError):
        eigsh(operator, 3, max_products=60, ncv=20)
    assert operator.count <= 60 + 20 + 10  # one basis and the power steps beyond


@pytest.mark.parametrize("size", [5, P])
def test_an_operator_that_is_not_symmetric_is_an_error(size, ncv):
    matrix = np.random.default_rng(0).standard_normal((size, size))
    with pytest.raises(ConvergenceError, match="check that A is symmetric and finite"):
        eigsh(matrix, 2, ncv=ncv)


def test_a_float32_part_of_a_float64_operator_is_named_where_it_is_too_coarse():
    A = np.random.default_rng(0).standard_normal((P, P)).astype("float32")
    scales = aslinearoperator(np.diag(np.linspace(1.0, 1.1, P)))
    coarse = LinearOperator((P, P), lambda v: (A + A.T) @ v.astype("float32"), dtype="float32")
    mixed = scales @ coarse @ scales
    assert mixed.dtype == np.float64
    with pytest.raises(ConvergenceError, match="finite and all its parts float64, or loosen tol"):
        eigsh(mixed, 2, tol=1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_operator_that_produces_nan_or_infinity_is_an_error(value, ncv):
    operator = LinearOperator((P, P), matvec=lambda v: np.full(P, value), dtype=np.float64)
    with pytest.raises((InputError, ConvergenceError), match="finite"):
        eigsh(operator, 2, ncv=ncv)


def no_dtype():
    operator = LinearOperator((4, 4), matvec=lambda v: v, dtype=np.float64)
    operator.dtype = None
    return operator


@pytest.mark.parametrize(
    ("operator", "k", "options", "message"),
    [
        (np.eye(4), 2, {"which": "SM"}, "'SM', which does not converge.*take 'SA'"),
        (np.eye(4), 2, {"which": "XX"}, "expected which among LA, SA, BE, LM, got 'XX'"),
        (np.eye(4), 5, {}, "expected k from 1 to 4 for 4 parameters, got 5; ask for fewer"),
        (np.eye(4), 0, {}, "expected k from 1 to 4 for 4 parameters, got 0"),
        (np.eye(1), 2, {}, "expected k from 1 to 1 for 1 parameters, got 2"),
        (np.ones((2, 3)), 1, {}, r"expected a square operator, got shape \(2, 3\)"),
        (no_dtype(), 1, {}, "got None; pass dtype= to LinearOperator"),
        (np.eye(4, dtype=int), 1, {}, "expected an operator of float32 or float64, got int64"),
        (1j * np.eye(4), 1, {}, "expected an operator of float32 or float64, got complex128"),
        ("eye", 1, {}, "expected a SciPy LinearOperator or a matrix, got str"),
        (np.eye(4), 1, {"max_products": 0}, "expected max_products of at least 1, got 0"),
        (np.eye(4), 1, {"tol": 0.0}, "expected a tol of at least 2.2e-16.*got 0.0"),
        (np.eye(4), 1, {"tol": np.nan}, "expected a tol of at least 2.2e-16.*got nan"),
        (np.eye(P), 3, {"ncv": 3}, "expected an ncv above k = 3, got 3"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(operator, k, options, message):
    with pytest.raises(InputError, match=message) as caught:
        eigsh(operator, k, **options)
    assert "\n" not in str(caught.value)


def test_a_large_space_is_right_even_where_the_basis_fills_it():
    values = np.linspace(1.0, 2.0, 600)
    pairs = eigsh(np.diag(values), 300)
    np.testing.assert_allclose(pairs.values, values[300:], rtol=1e-12)


# --- a second start ---

DOUBLE = [-2.0, *np.linspace(0.0, 1.0, 640), 4.0, 7.0, 7.0, 9.0]


# Positions that a run may have found, of eigenvalues -2, 0 … 1, 4, 7, 7 and 9.
FOUND = {
    "a copy at the top": ("LA", [641, 643, 644], True),
    "none at the top": ("LA", [642, 643, 644], False),
    "the edge of a copy": ("LA", [643, 644], False),
    "a copy in magnitude": ("LM", [641, 643, 644], True),
    "none in magnitude": ("LM", [643, 644], False),
    "the bottom": ("SA", [1], True),
    "none at the bottom": ("SA", [0], False),
    "a copy at one end": ("BE", [0, 1, 641, 644], True),
    "none at both": ("BE", [0, 644], False),
}


@pytest.mark.parametrize(("which", "found", "unseen"), FOUND.values(), ids=FOUND)
def test_a_second_start_finds_what_a_single_vector_missed(monkeypatch, which, found, unseen):
    vectors = np.eye(len(DOUBLE))[:, found]
    monkeypatch.setattr(arpack, "eigenvectors", lambda *arguments: vectors)
    pairs = eigsh(np.diag(DOUBLE), len(found), which=which, second_start=True)
    assert pairs.unseen is unseen
    assert eigsh(np.diag(DOUBLE), len(found), which=which).unseen is None
    assert pairs.num_products > 80


def test_a_complete_space_leaves_nothing_unseen():
    assert eigsh(np.eye(2), 1, second_start=True).unseen is False


def test_enclosures_hold_an_eigenvalue_each():
    pairs = eigsh(with_spectrum(SPECTRA["simple"]), 3, tol=1e-3, ncv=20)
    for (low, high), value in zip(pairs.enclosures, pairs.values, strict=True):
        assert low <= value <= high
        assert any(low <= true <= high for true in SPECTRA["simple"])


# --- sizes out of the common range ---

SPREAD = np.r_[np.linspace(-1.0, 0.1, 57), 0.6, 0.8, 1.0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("which", ["LA", "SA", "BE", "LM"])
@pytest.mark.parametrize(
    ("norm", "dtype", "tol"),
    [
        (1e-300, "float64", 1e-7),
        (1e-160, "float64", 1e-7),
        (1e160, "float64", 1e-7),
        (1e300, "float64", 1e-7),
        (1e-36, "float32", 1e-4),
        (1e-40, "float32", 1e-3),
        (1e37, "float32", 1e-4),
    ],
)
def test_operators_of_any_norm_have_eigenpairs(norm, dtype, tol, which, ncv):
    matrix = (norm * with_spectrum(SPREAD)).astype(dtype)
    for scale in (None, norm):
        pairs = eigsh(matrix, 3, which=which, ncv=ncv, scale=scale, second_start=True)
        expected = chosen(SPREAD, 3, which)
        np.testing.assert_allclose(pairs.values / norm, expected, atol=tol)
        assert (pairs.errors / norm < tol).all()
        assert pairs.unseen is False


@pytest.mark.parametrize(("size", "norm"), [(60, 1e-44), (700, 1e-42)])
def test_products_below_what_float32_resolves_are_refused(size, norm):
    matrix = (norm * with_spectrum(np.linspace(-1.0, 1.0, size))).astype(np.float32)
    with pytest.raises(InputError, match=r"products that float32 resolves, got .*; multiply"):
        eigsh(matrix, 2)


@pytest.mark.parametrize("which", ["LA", "SA", "BE", "LM"])
@pytest.mark.parametrize("size", [1, 2, 5, P])
def test_all_pairs_of_a_small_matrix(size, which):
    values = np.linspace(-2.0, 1.0, size)
    matrix = with_spectrum(values)
    pairs = eigsh(matrix, size, which=which, second_start=True)
    np.testing.assert_allclose(pairs.values, values, atol=1e-13)
    np.testing.assert_allclose(
        pairs.vectors @ np.diag(values) @ pairs.vectors.T, matrix, atol=1e-13
    )


def test_all_pairs_of_a_space_that_is_not_formed_are_refused():
    with pytest.raises(
        InputError, match="k from 1 to 599 for 600 parameters, got 600; ask for fewer"
    ):
        eigsh(scipy.sparse.eye_array(600), 600)
    with pytest.raises(InputError, match="k from 1 to 59 for 60 parameters, got 60; ask for fewer"):
        eigsh(np.eye(60), 60, ncv=20)


def test_pairs_that_converged_are_returned_when_asked():
    """Three outliers above a bulk whose eigenvalues take more products than are allowed."""
    values = np.r_[np.linspace(0.0, 1.0, 2000), 5.0, 6.0, 7.0]
    A, options = scipy.sparse.diags(values), {"tol": 1e-9, "max_products": 40}
    with pytest.raises(ConvergenceError, match="expected 6 pairs"):
        eigsh(A, 6, **options)
    found = eigsh(A, 6, partial=True, **options)
    assert found.values == pytest.approx([5.0, 6.0, 7.0])
    assert found.num_missing == found[:1].num_missing == 3
    assert np.abs(A @ found.vectors - found.vectors * found.values).max() < 1e-8
    assert np.allclose(found.vectors.T @ found.vectors, np.eye(3))
    assert "3 more did not converge: these are of any rank" in repr(found)
    assert np.isnan(found.rows()[0]["rank"])
    done = eigsh(A, 1, partial=True, max_products=400)
    assert done.ranks.tolist() == [1]


def test_where_no_pair_converged_there_is_an_error_all_the_same():
    A = scipy.sparse.diags(np.logspace(-16, 0, 1500))
    with pytest.raises(ConvergenceError, match="got 0 that converged"):
        eigsh(A, 6, which="SA", tol=1e-10, max_products=60, partial=True)


def test_partial_changes_nothing_where_all_converge():
    A = scipy.sparse.diags(np.arange(600.0))
    found = eigsh(A, 2, partial=True)
    assert found.values == pytest.approx([598.0, 599.0])
    assert found.num_missing == 0

"""Block Lanczos with thick restarts, judged by dense algebra."""

import numpy as np
import pytest
import scipy.sparse
from support.spectra import SPECTRA, Counting, P, with_spectrum

from hvp import ConvergenceError, eigsh
from hvp.linalg.block_lanczos import Basis, preferred
from hvp.linalg.counted_operator import CountedOperator

ENDS = ["LA", "SA", "BE", "LM"]


@pytest.mark.parametrize("which", ENDS)
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("block", [1, 3])
def test_every_end_of_every_spectrum_agrees_with_the_eigenvalues_chosen(name, which, block):
    values = SPECTRA[name]
    matrix = Counting(with_spectrum(values))
    pairs = eigsh(matrix, 5, which=which, ncv=20, block=block, second_start=True)
    scale = np.abs(values).max()
    expected = np.sort(values[preferred_of(values, which)[:5]])
    np.testing.assert_allclose(pairs.values, expected, rtol=0, atol=1e-7 * scale + 1e-14)
    true = np.linalg.norm(matrix.matrix @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
    np.testing.assert_allclose(pairs.errors, true, rtol=1e-6, atol=1e-13 * scale)
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(5), atol=1e-12)
    assert pairs.num_products == matrix.count


def preferred_of(values, which):
    """The positions of the values of an end, by definition."""
    high = np.argsort(-values, kind="stable")
    low = high[::-1]
    both = [each for pair in zip(high, low, strict=True) for each in pair]
    return {"LA": high, "SA": low, "BE": both, "LM": np.argsort(-np.abs(values))}[which]


@pytest.mark.parametrize("which", ENDS)
@pytest.mark.parametrize(("norm", "dtype", "tol"), [(1e300, "float64", 1e-7), (1e37, "f4", 4e-4)])
def test_operators_of_any_norm_have_eigenpairs(norm, dtype, tol, which):
    values = np.r_[np.linspace(-1.0, 0.1, 57), 0.6, 0.8, 1.0]
    matrix = (norm * with_spectrum(values)).astype(dtype)
    for scale in (None, norm):
        pairs = eigsh(matrix, 3, which=which, ncv=20, block=2, scale=scale)
        expected = np.sort(values[preferred_of(values, which)[:3]])
        np.testing.assert_allclose(pairs.values / norm, expected, atol=tol)
        assert (pairs.errors / norm < tol).all()


@pytest.mark.parametrize("block", [1, 2])
def test_the_basis_has_the_form_that_it_states(block):
    """A Q = Q T + F C, with orthonormal [Q F], after growth, restarts and a turn of F."""
    rng = np.random.default_rng(0)
    A = with_spectrum(SPECTRA["indefinite"])
    basis = Basis(CountedOperator(A), rng.standard_normal((4, P)) / P**0.5, 12, rng)
    for step in range(8):
        count = basis.aim(basis.ritz()[1][:, -2:], block, 0.0) if step else basis.fresh
        if basis.size + count > 12:
            values, S, _ = basis.ritz()
            basis.restart(values[-6:], S[:, -6:])
        basis.grow(count)
        n, f = basis.size, basis.fresh
        Q, F = basis._rows[:n].T, basis._rows[n : n + f].T
        both = np.concatenate([Q, F], axis=1)
        np.testing.assert_allclose(both.T @ both, np.eye(n + f), atol=1e-13)
        np.testing.assert_allclose(A @ Q, Q @ basis._T[:n, :n] + F @ basis._C, atol=1e-13)
        values, S, errors = basis.ritz()
        true = np.linalg.norm(A @ Q @ S - Q @ S * values, axis=0)
        np.testing.assert_allclose(errors, true, atol=1e-13)


def test_a_block_finds_copies_that_one_vector_cannot_tell_apart():
    values = np.r_[np.linspace(0.0, 1.0, 700), 7.0, 7.0, 7.0]
    pairs = eigsh(scipy.sparse.diags_array(values), 3, block=3, tol=1e-6)
    np.testing.assert_allclose(pairs.values, 7.0, atol=1e-6)


def test_vectors_of_a_block_are_multiplied_at_once():
    operator = Counting(with_spectrum(SPECTRA["simple"]))
    pairs = eigsh(operator, 2, ncv=20, block=4)
    assert set(operator.widths) == {4}
    assert pairs.num_products == operator.count == 4 * len(operator.widths) + 2


def test_what_does_not_converge_is_an_error_or_partial():
    values = np.r_[np.linspace(0.0, 1.0, 2000), 5.0, 6.0, 7.0]
    A, options = scipy.sparse.diags(values), {"tol": 1e-9, "max_products": 30, "block": 1}
    with pytest.raises(ConvergenceError, match=r"expected 6 pairs at LA within .*accept errors"):
        eigsh(A, 6, **options)
    found = eigsh(A, 6, partial=True, **options)
    assert found.values == pytest.approx([5.0, 6.0, 7.0])
    assert found.num_missing == 3


def test_an_operator_that_is_not_symmetric_is_an_error():
    matrix = np.random.default_rng(0).standard_normal((P, P))
    with pytest.raises(ConvergenceError, match="check that A is symmetric and finite"):
        eigsh(matrix, 2, ncv=20, block=1)


@pytest.mark.parametrize("which", ENDS)
def test_the_order_of_an_end_begins_with_what_is_wanted(which):
    values = np.array([-9.0, -4.0, 1.0, 3.0, 5.0])
    assert preferred(values, which).tolist() == list(preferred_of(values, which))[:5]


def test_the_same_seed_gives_the_same_bits():
    matrix = with_spectrum(SPECTRA["simple"])
    first, again, other = (eigsh(matrix, 3, ncv=20, block=2, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.vectors, again.vectors)
    assert not np.array_equal(first.vectors, other.vectors)

"""The Lanczos recurrence, held to its identity on matrices of chosen eigenvalues."""

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from support.spectra import SPECTRA, P, with_spectrum

from hvp.linalg.lanczos import ROUNDINGS, lanczos

DTYPES = ["float32", "float64"]


def start(count, size=P, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal((count, size)).astype(dtype).T


def dense(T, s):
    """T of one probe, its basis (P, m) and its residual (P,), in float64."""
    n = T.steps[s]
    beside = T.betas[s, : n - 1]
    matrix = np.diag(T.alphas[s, :n]) + np.diag(beside, 1) + np.diag(beside, -1)
    vectors = T.basis[: n if T.complete[s] else n + 1, s].astype(np.float64)
    r = np.zeros(vectors.shape[1]) if T.complete[s] else T.betas[s, n - 1] * vectors[n]
    return matrix, vectors[:n].T, r


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_steps", [1, 2, 20, P])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_identity_and_orthonormality(name, num_steps, dtype):
    matrix = with_spectrum(SPECTRA[name]).astype(dtype)
    T = lanczos(aslinearoperator(matrix), start(3, dtype=dtype), num_steps)
    eps, scale = np.finfo(dtype).eps, np.abs(SPECTRA[name]).max()
    for s in range(3):
        tridiagonal, Q, r = dense(T, s)
        n = T.steps[s]
        np.testing.assert_allclose(Q.T @ Q, np.eye(n), atol=20 * eps)
        gap = matrix.astype(np.float64) @ Q - Q @ tridiagonal - np.outer(r, np.eye(n)[-1])
        # Where the space is complete the residual is what is left of A q, within the tolerance.
        assert np.abs(gap).max() <= 2 * ROUNDINGS * eps * scale
        np.testing.assert_allclose(Q.T @ r, 0, atol=40 * eps * scale)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_basis_starts_with_the_probe(dtype):
    V = start(2, dtype=dtype)
    T = lanczos(aslinearoperator(np.diag(SPECTRA["simple"]).astype(dtype)), V, 3)
    assert T.basis.dtype == dtype
    np.testing.assert_allclose(T.basis[0].T, V / np.linalg.norm(V, axis=0), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECTRA)
def test_at_full_depth_the_nodes_are_the_distinct_eigenvalues(name, dtype):
    values = SPECTRA[name]
    matrix = with_spectrum(values).astype(dtype)
    T = lanczos(aslinearoperator(matrix), start(2, dtype=dtype), P)
    assert T.complete.all()
    atol = 40 * np.finfo(dtype).eps * np.abs(values).max()
    for s in range(2):
        nodes = np.linalg.eigvalsh(dense(T, s)[0])
        distances = np.abs(nodes[:, None] - values)
        assert distances.min(axis=1).max(initial=0.0) <= atol
        assert distances.min(axis=0).max(initial=0.0) <= atol


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("values", "distinct"),
    [
        (np.zeros(P), 1),
        (np.ones(P), 1),
        (-3.0 * np.ones(P), 1),
        (np.r_[np.zeros(P - 1), 2.0], 2),
        (np.repeat([1.0, 2.0, 5.0], P // 3), 3),
        ([4.0], 1),
        ([0.0], 1),
        ([1.0, 2.0], 2),
        ([1e-30, 3e-30], 2),
    ],
    ids=["zero", "one", "minus three", "rank one", "three", "P 1", "P 1 zero", "P 2", "tiny"],
)
def test_a_probe_ends_with_as_many_steps_as_there_are_eigenvalues(values, distinct, dtype):
    matrix = np.diag(values).astype(dtype)
    T = lanczos(aslinearoperator(matrix), start(2, len(matrix), dtype), len(matrix))
    assert T.steps.tolist() == [distinct, distinct]
    assert T.complete.all()
    nodes = np.linalg.eigvalsh(dense(T, 0)[0])
    scale = np.abs(values).max()
    np.testing.assert_allclose(nodes, np.unique(values), atol=40 * np.finfo(dtype).eps * scale)


def test_probes_that_have_ended_are_multiplied_no_more():
    V = start(3)
    V[1:, 1] = 0.0  # an eigenvector of a diagonal matrix
    widths = []

    def product(V):
        widths.append(V.shape[1])
        return SPECTRA["simple"][:, None] * V

    T = lanczos(LinearOperator((P, P), matvec=product, matmat=product, dtype=float), V, 5)
    assert widths == [3, 2, 2, 2, 2]
    assert T.steps.tolist() == [5, 1, 5]
    assert T.complete.tolist() == [False, True, False]
    alone = lanczos(aslinearoperator(np.diag(SPECTRA["simple"])), V[:, 2:], 5)
    np.testing.assert_allclose(alone.alphas[0], T.alphas[2], rtol=1e-12)


@pytest.mark.parametrize("reorthogonalise", [True, False])
def test_a_product_that_is_the_block_itself_is_not_written_to(reorthogonalise):
    V = start(2)
    kept = V.copy()
    identity = LinearOperator((P, P), matvec=lambda v: v, matmat=lambda V: V, dtype=float)
    T = lanczos(identity, V, 3, reorthogonalise=reorthogonalise)
    np.testing.assert_allclose(T.alphas[:, 0], 1.0)
    assert T.steps.tolist() == [1, 1]
    np.testing.assert_array_equal(V, kept)


def test_the_blocks_are_columns_that_no_product_need_copy():
    seen = []

    def product(V):
        seen.append(V.flags.f_contiguous)
        return SPECTRA["simple"][:, None] * V

    lanczos(LinearOperator((P, P), matvec=product, matmat=product, dtype=float), start(4), 5)
    assert seen == [True] * 5


def test_two_vectors_give_the_same_first_steps_and_keep_no_basis():
    A = aslinearoperator(with_spectrum(SPECTRA["simple"]))
    kept = lanczos(A, start(2), 8)
    two = lanczos(A, start(2), 8, reorthogonalise=False)
    assert two.basis is None
    np.testing.assert_allclose(two.alphas, kept.alphas, rtol=1e-9)
    np.testing.assert_allclose(two.betas, kept.betas, rtol=1e-9)


def test_two_vectors_bring_copies_of_what_has_converged_and_all_vectors_do_not():
    values = np.r_[np.linspace(0.0, 1.0, P - 1), 50.0]
    A = aslinearoperator(with_spectrum(values))
    copies = {}
    for reorthogonalise in (True, False):
        T = lanczos(A, start(1), 50, reorthogonalise=reorthogonalise)
        beside = T.betas[0, :-1]
        matrix = np.diag(T.alphas[0]) + np.diag(beside, 1) + np.diag(beside, -1)
        copies[reorthogonalise] = np.sum(np.linalg.eigvalsh(matrix) > 49)
    assert copies[True] == 1
    assert copies[False] > 1


def test_coefficients_are_summed_in_float64():
    # Beyond one chunk, and where a float32 sum of P equal terms would be off by their number.
    size = 100_000
    T = lanczos(
        LinearOperator((size, size), matvec=lambda v: v, matmat=lambda V: 3 * V, dtype="float32"),
        np.ones((size, 1), "float32"),
        1,
    )
    assert abs(T.alphas[0, 0] - 3) < 3e-7


def test_twice_is_enough_where_once_is_not():
    # Not symmetric, so that more than rounding is to be taken away: e0 -> e1 -> e2 -> e0 + 1e-6 e3.
    shift = np.zeros((P, P))
    shift[[1, 2, 0, 3], [0, 1, 2, 2]] = 1.0, 1.0, 1.0, 1e-6
    Q, _ = np.linalg.qr(start(P))
    T = lanczos(aslinearoperator(Q @ shift @ Q.T), Q[:, :1], 3)
    vectors = T.basis[:, 0]
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=1e-14)

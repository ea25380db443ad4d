"""The assertions pass what is as expected, and show the entries that differ most."""

import functools

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import hvp
from hvp import InputError, testing
from hvp.testing.mismatches import check_close

RNG = np.random.default_rng(0)
ROOT = RNG.standard_normal((6, 6))
SYMMETRIC = ROOT + ROOT.T
POSITIVE = ROOT @ ROOT.T


class ByProtocol:
    """The protocol of PyLops: shape, dtype, matvec, rmatvec, matmat, and no SciPy class."""

    def __init__(self, matrix):
        self.matrix, self.shape, self.dtype = matrix, matrix.shape, matrix.dtype
        self.blocks = 0

    def matvec(self, v):
        return self.matrix @ v

    def rmatvec(self, u):
        return self.matrix.T @ u

    def matmat(self, V):
        self.blocks += 1
        return self.matrix @ V


class NoMoreThanShape:
    """An operator without blocks and without an adjoint."""

    def __init__(self, matrix):
        self.shape, self.dtype, self.matvec = matrix.shape, matrix.dtype, matrix.__matmul__


def subclass(matrix):
    return LinearOperator(matrix.shape, lambda v: matrix @ v, dtype=matrix.dtype)


KINDS = [np.array, scipy.sparse.csr_array, aslinearoperator, subclass, ByProtocol, NoMoreThanShape]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@kinds
def test_every_kind_of_operator_passes_what_is_so(kind):
    A = kind(SYMMETRIC)
    V = RNG.standard_normal((6, 4))
    testing.assert_quadratic_form(A, np.einsum("pk,pq,qk->k", V, SYMMETRIC, V), V)
    testing.assert_quadratic_form(A, SYMMETRIC)
    testing.assert_operator(A, SYMMETRIC)
    testing.assert_operator(A, lambda v: SYMMETRIC @ v)
    testing.assert_symmetric(A)
    testing.assert_psd(kind(POSITIVE))
    testing.assert_spectrum(A, np.linalg.eigvalsh(SYMMETRIC)[-2:])
    testing.assert_spectrum(A, np.linalg.eigvalsh(SYMMETRIC)[::-1])
    testing.assert_decomposes(A, kind(POSITIVE), kind(SYMMETRIC - POSITIVE))


@kinds
def test_every_kind_of_operator_fails_what_is_not_so(kind):
    A, wrong = kind(SYMMETRIC), SYMMETRIC.copy()
    wrong[2, 4] += 1e-9
    v = np.eye(6)[0]
    for assertion in (
        lambda: testing.assert_quadratic_form(A, SYMMETRIC[0, 0] + 1e-9, v),
        lambda: testing.assert_quadratic_form(A, wrong),
        lambda: testing.assert_operator(A, wrong),
        lambda: testing.assert_operator(A, lambda v: wrong @ v),
        lambda: testing.assert_symmetric(kind(wrong)),
        lambda: testing.assert_psd(kind(POSITIVE - 1e-9 * np.eye(6)
                                        - np.linalg.eigvalsh(POSITIVE)[0] * np.eye(6))),
        lambda: testing.assert_spectrum(A, np.linalg.eigvalsh(SYMMETRIC)[-2:] + 1e-9),
        lambda: testing.assert_decomposes(A, kind(POSITIVE), kind(wrong - POSITIVE)),
    ):  # fmt: skip
        with pytest.raises(AssertionError):
            assertion()


def test_an_object_multiplies_blocks_itself():
    A = ByProtocol(SYMMETRIC)
    testing.assert_operator(A, SYMMETRIC)
    assert A.blocks > 0


def test_the_worst_entries_come_first_and_nan_before_all():
    wrong = SYMMETRIC.copy()
    wrong[1, 2] += 1.0
    wrong[3, 4] += 100.0
    wrong[5, 0] = np.nan
    with pytest.raises(AssertionError, match="3 of 36 differ") as caught:
        check_close(wrong, SYMMETRIC, 1e-9, "title")
    shown = [line.split()[:2] for line in str(caught.value).splitlines()[3:]]
    assert shown == [["5,", "0"], ["3,", "4"], ["1,", "2"]]


def test_an_operator_with_nan_is_no_operator_expected():
    wrong = SYMMETRIC.copy()
    wrong[5, 0] = np.nan
    with pytest.raises(AssertionError, match="nan"):
        testing.assert_operator(wrong, SYMMETRIC)
    with pytest.raises(AssertionError, match="nan"):
        testing.assert_quadratic_form(wrong, 1.0)


def test_no_more_than_five_entries_are_shown():
    with pytest.raises(AssertionError, match="36 of 36 differ") as caught:
        testing.assert_operator(SYMMETRIC + 1, SYMMETRIC)
    assert len(str(caught.value).splitlines()) == 8


def test_forms_at_the_seed_are_those_of_the_documented_vectors():
    V = np.random.default_rng(7).standard_normal((6, 2))
    forms = np.diag(V.T @ SYMMETRIC @ V)
    testing.assert_quadratic_form(SYMMETRIC, forms, seed=7)
    with pytest.raises(AssertionError):
        testing.assert_quadratic_form(SYMMETRIC, forms, seed=8)


def test_tolerances_are_those_of_numpy_and_the_other_one_is_zero():
    v = np.ones(6)
    form = v @ SYMMETRIC @ v
    allowed = functools.partial(testing.assert_quadratic_form, SYMMETRIC, V=v)
    allowed(form * 1.009, rtol=1e-2)
    allowed(form + 0.009, atol=1e-2)
    allowed(form * 1.009 + 0.009, rtol=1e-2, atol=1e-2)
    for expected, options in (
        (form * 1.011, {"rtol": 1e-2}),
        (form + 0.011, {"atol": 1e-2}),
        (form * (1 + 1e-6), {"rtol": 1e-9}),
    ):
        with pytest.raises(AssertionError):
            allowed(expected, **options)


def test_the_default_tolerance_is_that_of_the_precision():
    single = SYMMETRIC.astype(np.float32)
    testing.assert_operator(single, SYMMETRIC)
    with pytest.raises(AssertionError):
        testing.assert_operator(single.astype(np.float64), SYMMETRIC)


def test_a_large_operator_is_compared_along_random_vectors():
    size = 600
    diagonal = np.linspace(1, 2, size)
    A = subclass(np.diag(diagonal))
    testing.assert_operator(A, lambda v: diagonal * v)
    testing.assert_symmetric(A)
    testing.assert_psd(A)
    testing.assert_spectrum(A, diagonal[-2:])
    other = diagonal.copy()
    other[300] += 1e-6
    with pytest.raises(AssertionError, match=r"300, 0 .*\n|300, [12] "):
        testing.assert_operator(A, lambda v: other * v)
    skew = np.diag(diagonal)
    skew[10, 20] += 1e-6
    with pytest.raises(AssertionError, match="not symmetric"):
        testing.assert_symmetric(subclass(skew))


def test_rectangular_operators_are_compared_as_they_are():
    matrix = RNG.standard_normal((3, 5))
    testing.assert_operator(ByProtocol(matrix), matrix)
    with pytest.raises(AssertionError, match="15 of 15"):
        testing.assert_operator(ByProtocol(matrix), matrix + 1)


def test_spectra_are_those_of_symmetric_operators():
    skew = np.array([[0.0, 1.0], [0.0, 0.0]])
    for assertion in (testing.assert_psd, lambda A: testing.assert_spectrum(A, [0.0, 0.0])):
        with pytest.raises(AssertionError, match="not symmetric"):
            assertion(skew)


def test_a_zero_operator_is_symmetric_and_positive():
    zero = np.zeros((4, 4))
    testing.assert_symmetric(zero)
    testing.assert_psd(zero)
    testing.assert_spectrum(zero, [0.0, 0.0])
    testing.assert_operator(zero, zero)


@pytest.mark.parametrize(
    ("assertion", "expected"),
    [
        (lambda: testing.assert_psd("A"), "A, an operator or a matrix, got 'A'"),
        (lambda: testing.assert_psd([[1.0]]), "shape, dtype and matvec, or make it one by scipy"),
        (lambda: testing.assert_psd(np.ones((2, 3))), r"a square A, got shape \(2, 3\)"),
        (lambda: testing.assert_psd(np.eye(2, dtype=complex)), "float32 or float64, got complex"),
        (lambda: testing.assert_psd(np.zeros((0, 0))), "with rows and columns"),
        (lambda: testing.assert_psd(np.eye(2), atol=-1), "an atol of at least 0, got -1"),
        (lambda: testing.assert_psd(np.ones(3)), "got ndarray of shape"),
        (lambda: testing.assert_spectrum(np.eye(2), [[1.0]]), "values with one axis"),
        (lambda: testing.assert_spectrum(np.eye(2), []), "at least one value"),
        (lambda: testing.assert_spectrum(np.eye(2), [1.0], "XX"), "which"),
        (lambda: testing.assert_spectrum(np.eye(2), [1.0] * 3), "k"),
        (lambda: testing.assert_spectrum(np.eye(2), ["a"]), "numbers as values"),
        (lambda: testing.assert_quadratic_form(np.eye(2), 1, np.ones(3)), r"V of shape \(2,\)"),
        (lambda: testing.assert_quadratic_form(np.eye(2), 1, [np.nan, 1]), "a finite V"),
        (lambda: testing.assert_quadratic_form(np.eye(2), 1, "v"), "V of numbers"),
        (lambda: testing.assert_quadratic_form(np.eye(2), [1, 2], np.ones(2)), "each of 1 columns"),
        (lambda: testing.assert_quadratic_form(np.eye(2), np.eye(3)), "expected operator"),
        (lambda: testing.assert_quadratic_form(np.eye(2), 1, rtol="x"), "an rtol of at least 0"),
        (lambda: testing.assert_operator(np.eye(2), np.eye(3)), "expected operator"),
        (lambda: testing.assert_operator(np.eye(2), lambda v: v[:1]), r"the shape \(2,\)"),
        (lambda: testing.assert_decomposes(np.eye(2), np.eye(2), np.eye(3)), "of shape"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(assertion, expected):
    with pytest.raises(InputError, match=expected) as caught:
        assertion()
    assert "\n" not in str(caught.value)


def test_a_linearization_is_refused_with_what_to_pass():
    lin = hvp.linearize_function(lambda w: w[0] ** 2, np.ones(2))
    with pytest.raises(InputError, match=r"pass hvp.Hessian\(lin\)"):
        testing.assert_symmetric(lin)


def test_the_operators_of_a_loss_decompose_and_a_wrong_one_does_not():
    lin = hvp.linearize_function(
        lambda z: z**2, np.array([1.0, 2.0]), outputs=lambda w: w[0] * w[1]
    )
    H, G, R = hvp.Hessian(lin), hvp.GaussNewton(lin), hvp.Residual(lin)
    testing.assert_decomposes(H, G, R)
    testing.assert_operator(H, np.array([[8.0, 8.0], [8.0, 2.0]]))
    with pytest.raises(AssertionError, match="H is not G"):
        testing.assert_decomposes(H, G, G)

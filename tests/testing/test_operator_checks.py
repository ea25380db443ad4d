"""`check_operator` passes what keeps the laws and names the law that is broken, without raising."""

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import hvp
from hvp import InputError, testing

ROOT = np.random.default_rng(0).standard_normal((6, 6))
SYMMETRIC = ROOT + ROOT.T


class Operator(LinearOperator):
    """Products and block products as given, with SYMMETRIC behind them."""

    def __init__(self, matvec=SYMMETRIC.__matmul__, matmat=SYMMETRIC.__matmul__, rmatvec=None,
                 dtype=np.float64):  # fmt: skip
        super().__init__(dtype, (6, 6))
        self._product, self._block = matvec, matmat
        self._transposed = rmatvec or SYMMETRIC.__matmul__

    def _matvec(self, v):
        return self._product(v)

    def _matmat(self, V):
        return self._block(V)

    def _rmatvec(self, u):
        return self._transposed(u)


def failed(A, **options):
    return {check.name for check in testing.check_operator(A, **options).failed}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_keeps_the_laws_passes(dtype):
    for A in (SYMMETRIC.astype(dtype), aslinearoperator(SYMMETRIC.astype(dtype))):
        report = testing.check_operator(A)
        assert report.passed, str(report)
        assert len(str(report).splitlines()) == 13
        report.raise_if_failed()


def test_the_operators_of_a_loss_pass():
    lin = hvp.testing.softmax_regression().lin
    for operator in (hvp.Hessian(lin), hvp.GaussNewton(lin), hvp.Residual(lin), hvp.Jacobian(lin)):
        report = testing.check_operator(operator)
        assert report.passed, str(report)


def writes(v):
    product = SYMMETRIC @ v
    v[0] = 0.0
    return product


def needs_writable(v):
    if not v.flags.writeable:
        raise ValueError("assignment destination is read-only")
    return SYMMETRIC @ v


def reads_memory(v):
    """As C code that takes the pointer and forgets the strides."""
    base = v if v.base is None or v.flags.c_contiguous else v.base
    return SYMMETRIC @ np.ravel(base)[: v.size]


BUFFER = np.empty(6)


def own_buffer(v):
    return np.matmul(SYMMETRIC, v, out=BUFFER)


calls = iter(range(10_000))
BROKEN = {
    "finite products of the stated shape": Operator(lambda v: v * np.nan),
    "dtype": Operator(lambda v: (SYMMETRIC @ v).astype(np.float32)),
    "linearity": Operator(lambda v: SYMMETRIC @ v + 1e-6),
    "repeatability": Operator(lambda v: SYMMETRIC @ v + 1e-9 * next(calls)),
    "dot test": Operator(rmatvec=lambda u: SYMMETRIC @ u * (1 + 1e-6)),
    "symmetry": Operator(lambda v: SYMMETRIC @ v + 1e-6 * v[1] * np.eye(6)[0]),
    "blocks against columns": Operator(matmat=lambda V: SYMMETRIC @ V[:, ::-1]),
    "column-major blocks against columns": Operator(
        matmat=lambda V: SYMMETRIC @ np.ravel(V, order="K").reshape(V.shape)
    ),
    "read-only argument": Operator(needs_writable),
    "strided argument": Operator(reads_memory),
    "argument unchanged": Operator(writes),
    "product apart from its argument": Operator(lambda v: v, lambda V: 1.0 * V, lambda u: u),
    "product kept by the next one": Operator(own_buffer),
}


@pytest.mark.parametrize("law", BROKEN)
def test_each_law_is_named_where_it_is_broken(law):
    assert law in failed(BROKEN[law])


ALONE = [
    "dot test", "blocks against columns", "column-major blocks against columns", "strided argument",
    "read-only argument", "product apart from its argument", "product kept by the next one",
]  # fmt: skip


@pytest.mark.parametrize("law", ALONE)
def test_no_other_law_is_blamed(law):
    together = {"blocks against columns", "column-major blocks against columns"}
    expected = together if law == "blocks against columns" else {law}
    assert failed(BROKEN[law]) == expected


def test_an_operator_that_raises_has_its_error_on_the_lines():
    def matvec(v):
        raise RuntimeError("out of\nmemory")

    report = testing.check_operator(Operator(matvec))
    assert not report.passed
    assert report.checks[0].note == "RuntimeError: out of memory"
    assert len(str(report).splitlines()) == len(report.checks)
    with pytest.raises(AssertionError, match=r"1\d of 13 checks failed\nfinite products"):
        report.raise_if_failed()


def test_an_operator_without_an_adjoint_has_no_dot_test():
    A = LinearOperator((6, 6), lambda v: SYMMETRIC @ v, dtype=np.float64)
    report = testing.check_operator(A)
    assert report.passed, str(report)
    (check,) = (check for check in report.checks if check.name == "dot test")
    assert check.outcome == "not measured: A has no adjoint"


def test_symmetry_is_asked_of_square_operators_unless_told():
    skew = SYMMETRIC.copy()
    skew[0, 1] += 1
    assert failed(skew) == {"symmetry"}
    assert failed(skew, symmetric=False) == set()
    assert failed(np.ones((2, 3))) == set()
    with pytest.raises(InputError, match="a square A"):
        testing.check_operator(np.ones((2, 3)), symmetric=True)


def test_a_zero_operator_passes():
    assert failed(np.zeros((3, 3))) == set()


def test_the_bound_and_the_seed_are_those_given():
    A = Operator(lambda v: SYMMETRIC @ v + 1e-6)
    assert "linearity" not in failed(A, bound=1e-3)
    errors = [
        [check.error for check in testing.check_operator(A, seed=seed).checks] for seed in (1, 1, 2)
    ]
    assert errors[0] == errors[1] != errors[2]


def test_what_is_no_operator_is_refused():
    with pytest.raises(InputError, match="an operator or a matrix, got 'A'"):
        testing.check_operator("A")

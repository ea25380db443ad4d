"""Products with blocks of columns are those with each column."""

import weakref

import numpy as np
import pytest
from scipy.sparse.linalg import lobpcg
from support.batched_products import GIVEN, PRODUCTS, SPARSE, X, Y, even, ragged, same, vector
from support.oracles import (
    LABELS,
    conv_net,
    dense_net,
    examples,
    hessian,
    relative,
    squared_loss,
    variables_of,
)

import hvp
from hvp.linearization.linear_map import LinearMap

LAYOUTS = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "every other column": lambda V: np.repeat(V, 2, axis=1)[:, ::2],
    "every other row": lambda V: np.repeat(V, 2, axis=0)[::2],
    "backwards": lambda V: V[::-1, ::-1].copy()[::-1, ::-1],
}


@pytest.fixture(scope="module")
def wide():
    model = conv_net()
    x = examples(model.input_shape[1:])
    return hvp.linearize(model, (x, LABELS), SPARSE, batch_size=4, **GIVEN)


@pytest.mark.parametrize("columns", [1, 2, 3, 7, 16, 33])
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_block_is_its_columns_however_it_lies(wide, name, columns):
    multiply, V = getattr(wide, name), vector(wide, name, columns)
    expected = np.stack([multiply(v) for v in V.T], axis=1)
    for lay in LAYOUTS.values() if name == "hvp" else [np.asarray]:
        block = lay(V)
        got = multiply(block)
        assert got.shape == expected.shape
        assert relative(got, expected) < 1e-13
        assert (block == V).all()
        got += 1


@pytest.mark.sweep
@pytest.mark.parametrize("options", [{"jit": True}, {"jit": "auto"}, {"cache": 0}], ids=str)
def test_a_block_is_its_columns_whatever_is_chosen(options):
    lin = even(**options)
    V = vector(lin, "hvp", 5)
    columns = np.stack([lin.hvp(v) for v in V.T], axis=1)
    assert relative(lin.hvp(V), columns) < 1e-12
    assert relative(columns, even().hvp(V)) < 1e-12


def test_products_of_columns_are_let_go_one_by_one(monkeypatch):
    lin = even()
    V = vector(lin, "hvp", 6)
    expected = lin.hvp(V)
    multiplication = lin._multiplication
    multiply, made, alive = multiplication._in_one_call, [], []

    def multiplied(*arguments):
        alive.append(sum(result() is not None for result in made))
        results = multiply(*arguments)
        made.extend(map(weakref.ref, results))
        return results

    monkeypatch.setattr(multiplication, "_in_one_call", multiplied)
    monkeypatch.setattr(LinearMap, "width", lambda *arguments: 1)
    assert relative(lin.hvp(V), expected) < 1e-13
    assert alive == [0] * 6


def test_a_block_without_columns_is_empty(wide):
    for name in PRODUCTS:
        for _ in range(2):
            V = vector(wide, name, 0)
            result = getattr(wide, name)(V)
            assert result.shape == (wide.num_outputs if name == "jvp" else wide.size, 0)
            assert result.dtype == wide.dtype
    fresh = ragged(cache=0)
    assert fresh.hvp(np.zeros((fresh.size, 0))).shape == (fresh.size, 0)


def test_a_bad_column_is_found(wide):
    V = np.ones((wide.size, 5))
    for column in range(5):
        V[-1, column] = np.nan
        with pytest.raises(hvp.InputError, match="expected a finite vector"):
            wide.hvp(V)
        V[-1, column] = 1


def test_scipys_block_solver_finds_the_largest_eigenvalues():
    model = dense_net()
    lin = hvp.linearize(model, (X, Y), "mse", **GIVEN)
    H = hessian(lambda: squared_loss(Y, model(X)), variables_of(model))
    start = np.random.default_rng(0).standard_normal((lin.size, 4))
    values, vectors = lobpcg(hvp.Hessian(lin), start, largest=True, tol=1e-9, maxiter=200)
    assert np.allclose(np.sort(values), np.linalg.eigvalsh(H)[-4:], rtol=1e-8)
    assert np.abs(H @ vectors - vectors * values).max() < 1e-6


@pytest.mark.sweep
def test_three_products_at_once_are_those_alone():
    model = dense_net(kernel_regularizer="l2")
    lin = hvp.linearize(model, (X, Y), "mse", batch_size=4, **GIVEN)
    for columns in ((), (3,)):
        v = vector(lin, "hvp", *columns)
        got = dict(zip(PRODUCTS, lin.products(v), strict=False))
        same(got, {name: getattr(lin, name)(v) for name in got})
        for result in got.values():
            result += 1


def test_a_block_that_is_refused_leaves_no_finding():
    lin = ragged()
    with pytest.raises(hvp.InputError, match="expected a finite vector"):
        lin.hvp(np.full((lin.size, 3), np.nan))
    assert lin.findings == ()

"""Damped linear systems: dense algebra is the oracle."""

import numpy as np
import pytest
import scipy.linalg
from scipy.sparse.linalg import LinearOperator

import hvp
from hvp.errors import ConvergenceError, InputError

SIZE = 120


def matrix(values, seed=0):
    Q = scipy.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return (Q * values) @ Q.T


FALLING = matrix(np.logspace(0, -6, SIZE))
INDEFINITE = matrix(np.r_[-0.5, np.logspace(0, -3, SIZE - 1)])
B = np.random.default_rng(1).normal(size=(SIZE, 3))


def exact(A, b, damping):
    return np.linalg.solve(A + damping * np.eye(len(A)), b)


@pytest.mark.parametrize("method", ["cg", "minres"])
@pytest.mark.parametrize("damping", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("b", [B[:, 0], B], ids=["vector", "block"])
def test_solutions_and_their_residuals(method, damping, b):
    found = hvp.solve(FALLING, b, damping=damping, method=method, tol=1e-9)
    assert found.x.shape == b.shape
    residuals = np.linalg.norm(b - FALLING @ found.x - damping * found.x, axis=0)
    assert np.allclose(found.residuals, residuals, rtol=1e-6, atol=1e-12)
    assert (found.residuals <= 1e-9 * np.linalg.norm(b, axis=0)).all()
    errors = np.linalg.norm(found.x - exact(FALLING, b, damping), axis=0)
    assert (errors <= found.error_bounds(1e-6) + 1e-12).all()
    assert (found.error_bounds(1e-6) <= found.error_bounds()).all()


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_float32_reaches_its_tolerance(method):
    A, b = FALLING.astype("float32"), B[:, 0].astype("float32")
    found = hvp.solve(A, b, damping=1e-3, method=method)
    assert found.x.dtype == np.float32
    assert found.residuals <= 3.5e-4 * np.linalg.norm(b)
    error = np.linalg.norm(found.x - exact(FALLING, B[:, 0], 1e-3))
    assert error <= found.error_bounds() + 1e-2


def test_products_are_counted_and_reported():
    seen = []
    calls = []

    def multiply(v):
        calls.append(1)
        return FALLING @ v

    A = LinearOperator(FALLING.shape, matvec=multiply, dtype="float64")
    found = hvp.solve(A, B[:, 0], damping=0.1, progress=seen.append)
    assert found.num_products == len(calls) == seen[-1]


def test_a_negative_curvature_is_refused_with_the_damping_that_suffices():
    with pytest.raises(InputError, match="positive definite") as refused:
        hvp.solve(INDEFINITE, B[:, 0], damping=0.1)
    damping = float(str(refused.value).split("a damping above ")[1].split(",")[0])
    assert damping == pytest.approx(0.5, rel=1e-2)
    found = hvp.solve(INDEFINITE, B[:, 0], damping=damping * 1.01)
    assert np.allclose(found.x, exact(INDEFINITE, B[:, 0], damping * 1.01), rtol=1e-3, atol=1e-3)


def test_minres_solves_indefinite_systems():
    found = hvp.solve(INDEFINITE, B[:, 0], damping=0.1, method="minres", tol=1e-9)
    assert np.allclose(found.x, exact(INDEFINITE, B[:, 0], 0.1), rtol=1e-6, atol=1e-6)
    with pytest.raises(InputError, match=r"smallest eigenvalue above -0\.1"):
        found.error_bounds(-0.5)


def test_zero_is_solved_without_products():
    found = hvp.solve(FALLING, np.zeros(SIZE), damping=0.1)
    assert not found.x.any()
    assert found.residuals == 0
    assert found.num_products == 0


def test_too_few_products_end_in_an_error_or_in_what_there_is():
    with pytest.raises(ConvergenceError, match="raise damping, tol or max_products"):
        hvp.solve(FALLING, B, damping=1e-5, max_products=30)
    found = hvp.solve(FALLING, B, damping=1e-5, max_products=30, partial=True)
    assert found.num_missing == 3
    assert found.num_products <= 31
    assert (found.residuals > 0).all()


def test_a_preconditioner_saves_products_on_a_network():
    lin, lin_matrix = network()
    damping = 1e-3 * np.linalg.eigvalsh(lin_matrix)[-1]
    G = hvp.GaussNewton(lin)
    plain = hvp.solve(G, lin.gradient(), damping=damping)
    helped = hvp.solve(G, lin.gradient(), damping=damping, preconditioner=hvp.low_rank(G, 40))
    assert helped.num_products < plain.num_products / 3
    expected = exact(lin_matrix, lin.gradient(), damping)
    for found in (plain, helped):
        assert np.linalg.norm(found.x - expected) <= found.error_bounds() * 1.001


def network():
    """A network in float64 and its G, from the Jacobian of the outputs by columns."""
    import keras

    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(10, "tanh"), keras.layers.Dense(4)]
    )
    rng = np.random.default_rng(0)
    lin = hvp.linearize(
        net, (rng.normal(size=(30, 6)), rng.normal(size=(30, 4))), "mse", dtype="float64"
    )
    J = np.stack([lin.jvp(e) for e in np.eye(lin.size)], axis=1)
    return lin, J.T @ J * 2 / lin.num_outputs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": -1.0}, "a finite damping from 0"),
        ({"damping": np.nan}, "a finite damping from 0"),
        ({"damping": 1.0, "method": "gmres"}, "method among cg, minres"),
        ({"damping": 1.0, "tol": 0.0}, "a tol from"),
        ({"damping": 1.0, "max_products": 0}, "max_products of at least 1"),
        ({"damping": 1.0, "preconditioner": np.eye(3)}, "a preconditioner of shape"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        hvp.solve(FALLING, B[:, 0], **options)


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (np.ones(3), "a b of real numbers"),
        (np.ones((SIZE, 2, 2)), "a b of real numbers"),
        (np.ones(SIZE, complex), "a b of real numbers"),
        (np.full(SIZE, np.inf), "a finite b"),
    ],
)
def test_wrong_right_hand_sides_are_refused(b, message):
    with pytest.raises(InputError, match=message):
        hvp.solve(FALLING, b, damping=1.0)

"""SciPy's own programs on the operators and functions of a linearization."""

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse.linalg
import tensorflow as tf
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import hvp
from hvp.autodiff import tracing
from tests.support.sweep import sweep


def regression(dtype="float64"):
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
    )
    x = np.random.default_rng(0).normal(size=(40, 3))
    y = np.sin(x.sum(axis=1, keepdims=True))
    kept = {"dtype": "float64"} if dtype == "float64" else {}
    return hvp.linearize(net, (x, y), "mse", ad="forward-over-reverse", jit=False, **kept)


METHODS = [
    f"{method} of {matrix}"
    for method in ("trust-ncg", "trust-krylov", "Newton-CG", "trust-constr")
    for matrix in "HG"
]


@pytest.mark.parametrize("name", sweep(METHODS, {"trust-ncg of H"}))
def test_minimisers_descend_and_trace_once(name, monkeypatch):
    method, matrix = name.split(" of ")
    lin = regression()
    fun, jac, hessp = lin.scipy_functions(matrix)
    fun(lin.theta), jac(lin.theta), hessp(lin.theta, lin.theta)

    def refuse(*args, **kwargs):
        raise AssertionError("traced again")

    monkeypatch.setattr(tracing, "trace", refuse)
    found = scipy.optimize.minimize(
        fun, lin.theta, jac=jac, hessp=hessp, method=method, options={"maxiter": 15}
    )
    assert found.fun < 0.5 * lin.loss()
    assert found.fun == pytest.approx(lin.at(found.x).loss())


def test_products_are_those_of_the_point():
    lin = regression()
    _, _, hessp = lin.scipy_functions()
    v = np.linspace(-1, 1, lin.size)
    for shift in (0.0, 0.3, 0.3, 0.0):
        w = lin.theta + shift
        assert np.array_equal(hessp(w, v), lin.at(w).hvp(v))
    assert np.array_equal(lin.scipy_functions("G").hessp(w, v), lin.at(w).gnvp(v))


def test_single_precision_gives_double():
    lin = regression("float32")
    fun, jac, hessp = lin.scipy_functions()
    w = lin.theta.astype("float64")
    assert isinstance(fun(w), float)
    assert jac(w).dtype == hessp(w, w).dtype == np.float64


def test_another_matrix_is_refused():
    with pytest.raises(hvp.InputError, match="H or G"):
        regression().scipy_functions("R")


def test_least_squares_takes_the_jacobian():
    lin = regression()
    y = np.sin(np.random.default_rng(0).normal(size=(40, 3)).sum(axis=1))
    found = scipy.optimize.least_squares(
        lambda w: lin.outputs(w) - y,
        lin.theta,
        jac=lambda w: hvp.Jacobian(lin.at(w)),
        tr_solver="lsmr",
        max_nfev=20,
    )
    assert found.cost < 0.05 * 0.5 * 40 * lin.loss()


def test_solvers_of_linear_systems_agree_with_dense_algebra():
    lin = regression()
    G, J, g = hvp.GaussNewton(lin), hvp.Jacobian(lin), lin.gradient()
    eye = np.eye(lin.size)
    damped = G + aslinearoperator(0.1 * eye)
    expected = np.linalg.solve(G @ eye + 0.1 * eye, g)
    for solver in (scipy.sparse.linalg.cg, scipy.sparse.linalg.minres, scipy.sparse.linalg.gmres):
        x, _ = solver(damped, g, rtol=1e-11)
        assert np.allclose(x, expected, atol=1e-8)
    z, dense = np.linspace(-1, 1, lin.num_outputs), J @ eye
    damp = 0.3
    expected = np.linalg.solve(dense.T @ dense + damp**2 * eye, dense.T @ z)
    options = {"damp": damp, "atol": 1e-13, "btol": 1e-13}
    x = scipy.sparse.linalg.lsmr(J, z, **options, maxiter=500)[0]
    assert np.allclose(x, expected, atol=1e-8)
    x = scipy.sparse.linalg.lsqr(J, z, **options, iter_lim=500)[0]
    assert np.allclose(x, expected, atol=1e-8)


def test_eigensolvers_agree_with_dense_algebra():
    lin = regression()
    H, J, eye = hvp.Hessian(lin), hvp.Jacobian(lin), np.eye(lin.size)
    values, vectors = np.linalg.eigh(H @ eye)
    start = np.random.default_rng(0).normal(size=(lin.size, 3))
    found, _ = scipy.sparse.linalg.lobpcg(
        H, start, M=aslinearoperator(eye), largest=True, maxiter=200, tol=1e-9
    )
    assert np.allclose(np.sort(found), values[-3:], atol=1e-6)
    inverse = LinearOperator(
        H.shape, dtype="float64",
        matvec=lambda v: vectors @ ((vectors.T @ v) / (values - 0.05)),
    )  # fmt: skip
    near, _ = scipy.sparse.linalg.eigsh(H, 2, sigma=0.05, OPinv=inverse)
    nearest = values[np.argsort(np.abs(values - 0.05))[:2]]
    assert np.allclose(np.sort(near), np.sort(nearest), atol=1e-9)
    sizes = scipy.sparse.linalg.svds(J, 2, return_singular_vectors=False)
    assert np.allclose(np.sort(sizes), np.linalg.svd(J @ eye, compute_uv=False)[1::-1])


def test_exponentials_and_norms_agree_with_dense_algebra():
    lin = regression()
    H, eye, v = hvp.Hessian(lin), np.eye(lin.size), np.linspace(-1, 1, lin.size)
    dense = H @ eye
    trace = float(np.trace(dense))
    found = scipy.sparse.linalg.expm_multiply(H, v, traceA=trace)
    assert np.allclose(found, scipy.linalg.expm(dense) @ v, atol=1e-8)
    assert scipy.sparse.linalg.onenormest(H) <= np.linalg.norm(dense, 1) * (1 + 1e-12)


def test_operators_combine_with_each_other():
    lin = regression()
    H, G, R, J = hvp.Hessian(lin), hvp.GaussNewton(lin), hvp.Residual(lin), hvp.Jacobian(lin)
    V = np.random.default_rng(0).normal(size=(lin.size, 2))
    h, g, j = H @ V, G @ V, J @ V
    assert np.allclose((H - G) @ V, R @ V, atol=1e-12)
    assert np.allclose((2 * H + G.T) @ V, 2 * h + g)
    assert np.allclose((H @ G) @ V, H @ g)
    assert np.allclose((J.T @ J) @ V, J.T @ j)
    assert np.allclose((H**2) @ V, H @ h)
    assert np.allclose((H + aslinearoperator(np.eye(lin.size))) @ V, h + V)


def test_points_share_what_a_loop_traces():
    def loss(w):
        start = 0, tf.constant(0.0, w.dtype)
        return tf.while_loop(
            lambda i, s: i < 3, lambda i, s: (i + 1, s + tf.reduce_sum(w**3)), start
        )[1]

    lin = hvp.linearize_function(loss, np.array([1.0, 2.0]))
    w, v = np.array([2.0, -1.0]), np.array([1.0, 1.0])
    assert np.allclose(lin.scipy_functions().hessp(w, v), 18 * w * v)

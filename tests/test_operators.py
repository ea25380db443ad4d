"""Each operator against a dense matrix from elsewhere, over all parameters and over some."""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse.linalg import LinearOperator, aslinearoperator, eigsh
from support.dense_curvature import DenseCurvature
from support.oracles import CASES, LABELS, Case, dense_net, examples, relative
from support.sweep import sweep

import hvp
from hvp import testing
from hvp.operators import Curvature

SYMMETRIC = {"H": hvp.Hessian, "G": hvp.GaussNewton, "R": hvp.Residual}
ALL = [(case, None) for case in CASES]
SOME = [(CASES[1], "variables"), *((CASES[i], "block") for i in (1, 2, 3, 6, 7))]


@functools.cache
def linearized(case: Case, over: str | None) -> hvp.Linearization:
    variables = case.layer if over == "variables" else None
    lin = hvp.linearize(case.model, case.batches, case.loss, variables=variables)
    return lin.block(case.layer) if over == "block" else lin


def name(part: tuple[Case, str | None]) -> str:
    case, over = part
    return f"{case}-{over or 'all'}"


ALWAYS = {
    "tanh-softmax-ragged-all",
    "tanh-softmax-ragged-block",
}
PARTS = sweep(ALL + SOME, ALWAYS, name)
WHOLE = sweep([(case, None) for case in CASES if case.dtype == "float64"], ALWAYS, name)


@pytest.mark.parametrize("kind", SYMMETRIC)
@pytest.mark.parametrize("part", PARTS)
def test_symmetric_operator_is_the_dense_matrix(part, kind):
    case, over = part
    A = SYMMETRIC[kind](linearized(case, over))
    for law in (testing.dot_test, testing.symmetry, testing.linearity, testing.repeatability):
        law(A)
    assert A.dtype == case.dtype
    dense = A @ np.eye(A.shape[0])
    expected = case.matrix(kind, case.layer if over else None)
    if case.name.startswith("relu") and kind == "R" and over:
        # A layer's own block of a piecewise linear network has R = 0.
        assert np.abs(dense).max() < 1e-15
        assert np.abs(expected).max() < 1e-15
    else:
        assert relative(dense, expected) < case.tolerance


@pytest.mark.parametrize("part", PARTS)
def test_jacobian_is_the_dense_matrix(part):
    case, over = part
    J = hvp.Jacobian(linearized(case, over))
    for law in (testing.dot_test, testing.linearity, testing.repeatability):
        law(J)
    for law in (testing.linearity, testing.repeatability):
        law(J.T)
    expected = case.matrix("J", case.layer if over else None)
    assert J.shape == expected.shape
    assert J.dtype == case.dtype
    assert relative(J @ np.eye(J.shape[1]), expected) < max(case.tolerance, 1e-12)
    assert relative(J.T @ np.eye(J.shape[0]), expected.T) < max(case.tolerance, 1e-12)


@pytest.mark.parametrize("part", WHOLE)
def test_hessian_is_gauss_newton_plus_residual(part):
    lin = linearized(*part)
    v = examples((lin.size,), 1)[0]
    H, G, R = (A(lin) @ v for A in SYMMETRIC.values())
    assert np.linalg.norm(H - G - R) < 1e-13 * np.linalg.norm(H)


@pytest.mark.parametrize("part", WHOLE)
def test_gauss_newton_of_a_convex_loss_is_positive_semidefinite(part):
    lin = linearized(*part)
    dense = hvp.GaussNewton(lin) @ np.eye(lin.size)
    values = np.linalg.eigvalsh((dense + dense.T) / 2)
    assert values[-1] > 0
    assert values[0] > -1e-13 * values[-1]


def test_residual_of_the_last_linear_layer_is_exactly_zero():
    lin = linearized(CASES[1], None).block("dense3")
    assert not (hvp.Residual(lin) @ np.eye(lin.size)).any()


def test_relu_residual_is_not_zero_across_layers():
    lin = linearized(CASES[3], None)
    R = hvp.Residual(lin) @ np.eye(lin.size)
    for where in lin.layout.layers.values():
        inside = np.r_[tuple(lin.layout.slices[i] for i in where)]
        assert np.abs(R[np.ix_(inside, inside)]).max() < 1e-15
    assert np.abs(R).max() > 1e-2


def test_operators_are_scipy_operators_with_their_own_dtype():
    lin = linearized(CASES[2], None)
    for A in [*(kind(lin) for kind in SYMMETRIC.values()), hvp.Jacobian(lin), hvp.Jacobian(lin).T]:
        assert isinstance(A, LinearOperator)
        assert A.dtype == np.float32
        assert (A @ np.ones(A.shape[1])).dtype == np.float32
        assert (A @ np.ones((A.shape[1], 2))).dtype == np.float32


def test_operators_take_columns_of_both_shapes_and_blocks():
    H = hvp.Hessian(linearized(CASES[1], None))
    v = np.arange(47.0)
    assert H.matvec(v).shape == (47,)
    assert H.matvec(v[:, None]).shape == (47, 1)
    assert H.matmat(np.stack([v, -v], 1)).shape == (47, 2)
    assert (H.T @ v == H @ v).all()
    assert (H.H @ v == H @ v).all()


def test_empty_block_gives_an_empty_block():
    lin = linearized(CASES[1], None)
    assert lin.hvp(np.zeros((lin.size, 0))).shape == (lin.size, 0)
    assert lin.jvp(np.zeros((lin.size, 0))).shape == (lin.num_outputs, 0)


def test_operators_combine_in_scipy_algebra():
    lin = linearized(CASES[1], None)
    v = np.arange(47.0)
    shifted = hvp.Hessian(lin) - 2 * hvp.GaussNewton(lin) + aslinearoperator(np.eye(47))
    assert np.allclose(shifted @ v, lin.hvp(v) - 2 * lin.gnvp(v) + v, rtol=1e-13)
    product = hvp.Jacobian(lin).T @ hvp.Jacobian(lin)
    testing.symmetry(product)


def test_scipy_eigsh_finds_the_dense_eigenvalues():
    H = hvp.Hessian(linearized(CASES[1], None))
    dense = np.linalg.eigvalsh(CASES[1].matrix("H"))
    largest = eigsh(H, 3, which="LA", v0=np.ones(47), return_eigenvectors=False)
    assert np.abs(np.sort(largest) - dense[-3:]).max() < 1e-10 * dense[-1]


@pytest.mark.parametrize("kind", ["G", "R", "J"])
def test_operators_of_a_loss_without_outputs_say_what_to_give(kind):
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(w**4), np.ones(3))
    assert not lin.has_outputs
    with pytest.raises(hvp.InputError, match="give linearize_function outputs="):
        {**SYMMETRIC, "J": hvp.Jacobian}[kind](lin) @ np.ones(3)


def test_jacobian_rows_follow_the_examples_in_order_over_ragged_batches():
    model, x = dense_net(), examples((4,))
    whole = hvp.linearize(model, (x, LABELS), CASES[1].loss)
    ragged = hvp.linearize(model, (x, LABELS), CASES[1].loss, batch_size=2)
    assert ragged.num_batches == 4
    v = np.arange(47.0)
    assert relative(ragged.jvp(v), whole.jvp(v)) < 1e-14
    u = np.arange(21.0)
    assert relative(ragged.vjp(u), whole.vjp(u)) < 1e-14


# --- a backend of its own ---


@pytest.fixture(scope="module")
def dense():
    return DenseCurvature.random()


def members(protocol):
    """The public names that a protocol asks for."""
    annotated = set(protocol.__annotations__)
    return annotated | {name for name in vars(protocol) if not name.startswith("_")}


def test_the_linearization_and_the_dense_backend_have_all_members_of_the_protocol(dense):
    names = members(Curvature)
    assert {"hvp", "layout", "size", "batch_grams"} <= names
    for backend in (linearized(CASES[1], None), dense):
        assert {name for name in names if not hasattr(backend, name)} == set()


def test_methods_take_the_arguments_of_the_protocol(dense):
    lin = linearized(CASES[1], None)
    methods = [name for name, member in vars(Curvature).items() if inspect.isfunction(member)]
    for name in (name for name in methods if not name.startswith("_")):
        expected = list(inspect.signature(getattr(Curvature, name)).parameters)[1:]
        for backend in (lin, dense):
            given = list(inspect.signature(getattr(backend, name)).parameters)
            assert given[: len(expected)] == expected


def test_every_operator_takes_any_backend(dense):
    square = np.eye(dense.size)
    assert np.allclose(hvp.Hessian(dense) @ square, dense.H)
    assert np.allclose(hvp.GaussNewton(dense) @ square, dense.G)
    assert np.allclose(hvp.Residual(dense) @ square, dense.R)
    assert np.allclose(hvp.Fisher(dense) @ square, dense.G)
    gradient = dense.gradient()
    assert np.allclose(hvp.EmpiricalFisher(dense) @ square, np.outer(gradient, gradient))
    assert np.allclose(hvp.Jacobian(dense) @ square, dense.J)
    assert np.allclose(hvp.Jacobian(dense).T @ np.eye(dense.num_outputs), dense.J.T)


def test_the_comparison_takes_any_backend(dense):
    whole = hvp.compare(dense, k=1).parts["whole network"]
    for letter in "HGR":
        values = np.linalg.eigvalsh(getattr(dense, letter))
        assert relative(getattr(whole, letter).largest.values, values[-1:]) < 1e-3


def test_the_chain_rule_takes_any_backend(dense):
    v = dense.theta
    row = hvp.chain_rule(dense, v)[-1]
    assert np.allclose(
        [row.vHv, row.vGv, row.vRv], [v @ dense.H @ v, v @ dense.G @ v, v @ dense.R @ v]
    )


def test_layer_traces_take_any_backend(dense):
    found = hvp.layer_traces(hvp.Hessian(dense), dense)
    for layer, traces in found.layers.items():
        (position,) = dense.layout.layers[layer]
        own = dense.layout.slices[position]
        expected = np.trace(dense.H[own, own])
        assert abs(traces.trace.value - expected) < 5 * traces.trace.stderr + 1e-9 * abs(expected)


@pytest.mark.parametrize(
    ("penalty", "counted"),
    [("kernel_regularizer", {"H", "G"}), ("activity_regularizer", {"H", "R"})],
)
def test_where_penalties_count(penalty, counted):
    x = np.random.default_rng(0).normal(size=(8, 3))

    def products(**options):
        keras.utils.set_random_seed(0)
        hidden = keras.layers.Dense(4, "tanh", dtype="float64", **options)
        model = keras.Sequential([keras.Input((3,), dtype="float64"), hidden])
        loss = keras.losses.MeanSquaredError(dtype="float64")
        lin = hvp.linearize(model, (x, np.ones((8, 4))), loss)
        return {name: kind(lin) @ np.eye(lin.size) for name, kind in SYMMETRIC.items()}

    plain, penalised = products(), products(**{penalty: keras.regularizers.L2(0.1)})
    changed = {name for name in plain if relative(penalised[name], plain[name]) > 1e-12}
    assert changed == counted

"""Operations that are replaced by others: values and derivatives against NumPy and differences."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import relative
from support.programs import drawn, run, spec, types
from support.special_points import SPECIAL_POINTS
from support.sweep import sweep

import hvp
from hvp.autodiff import precision
from hvp.autodiff.decompositions import SUBSTITUTES
from hvp.autodiff.decompositions.matrix_products import LARGE_MATRIX_ENTRIES
from hvp.autodiff.tracing import trace
from hvp.passes.simplify import simplify as fold

raw = tf.raw_ops


def slope(function, x, weights):
    """The gradient of Σ weights · sin f(x) in the replay."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(weights * tf.sin(function(x)))
    return tape.gradient(value, x)


def differences(function, x, v, step=1e-3):
    """The derivative along v to fourth order."""

    def at(distance):
        return function(x + distance * step * v)

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)


def derivatives_agree(program, oracle, x, *, rtol=1e-9):
    """Value, first and second derivative of a program against a function of arrays."""
    expected = oracle(x)
    (got,) = run(program, x)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-12 * max(np.abs(expected).max(), 1)
    weights, v = drawn(*expected.shape, seed=5), drawn(*x.shape, seed=6)

    def gradient(x):
        return slope(program.replay, tf.constant(x), weights).numpy()

    first = differences(lambda x: np.sum(weights * np.sin(oracle(x))), x, v)
    assert abs(np.sum(gradient(x) * v) - first) <= rtol * max(abs(first), 1)
    second = differences(gradient, x, v)
    with tf.autodiff.ForwardAccumulator(point := tf.constant(x), tf.constant(v)) as forward:
        forward_over_reverse = slope(program.replay, point, weights)
    with tf.GradientTape() as tape:
        tape.watch(point)
        along = tf.reduce_sum(slope(program.replay, point, weights) * v)
    for got in (forward.jvp(forward_over_reverse), tape.gradient(along, point)):
        got = np.zeros(x.shape) if got is None else got.numpy()
        assert np.abs(got - second).max() <= rtol * max(np.abs(second).max(), 1)


def program_of(function, shape):
    """The program, and the folded one in which substitutes have been written."""
    program = trace(function, spec(*shape))
    return program, fold(program)


# --- max pooling ---


def pooled(x, sizes, strides, paddings):
    """The largest of each window, by a loop; `paddings` are before and behind each axis."""
    x = np.pad(x, [(0, 0), *paddings, (0, 0)], constant_values=-np.inf)
    counts = [
        (n - size) // stride + 1
        for n, size, stride in zip(x.shape[1:], sizes, strides, strict=False)
    ]
    result = np.empty((len(x), *counts, x.shape[-1]))
    for index in itertools.product(*map(range, counts)):
        window = tuple(
            slice(i * stride, i * stride + size)
            for i, stride, size in zip(index, strides, sizes, strict=True)
        )
        result[(slice(None), *index)] = x[(slice(None), *window)].max(
            axis=tuple(range(1, len(sizes) + 1))
        )
    return result


def same(size):
    return (size - 1) // 2, size // 2


POOLS = {
    "tiles": ((2, 6, 4, 2), (2, 2), (2, 2), "VALID", [(0, 0)] * 2),
    "oblong tiles": ((1, 6, 6, 1), (3, 1), (3, 1), "VALID", [(0, 0)] * 2),
    "tiles and a rest": ((1, 7, 5, 2), (2, 2), (2, 2), "VALID", [(0, 0)] * 2),
    "tiles, padded to fit": ((1, 6, 4, 1), (2, 2), (2, 2), "SAME", [(0, 0)] * 2),
    "padded": ((1, 7, 5, 2), (2, 2), (2, 2), "SAME", [(0, 1)] * 2),
    "overlapping": ((1, 7, 7, 1), (3, 3), (2, 2), "VALID", [(0, 0)] * 2),
    "with gaps": ((1, 7, 7, 1), (2, 2), (3, 3), "VALID", [(0, 0)] * 2),
    "to the same shape": ((1, 5, 5, 2), (3, 3), (1, 1), "SAME", [same(3)] * 2),
    "to the same shape, even": ((1, 5, 4, 1), (2, 4), (1, 1), "SAME", [same(2), same(4)]),
    "to the same shape, along one axis": ((1, 5, 5, 1), (3, 1), (1, 1), "SAME", [same(3), (0, 0)]),
    "of single cells": ((1, 4, 4, 2), (1, 1), (1, 1), "SAME", [(0, 0)] * 2),
    "of the whole": ((2, 4, 4, 1), (4, 4), (4, 4), "VALID", [(0, 0)] * 2),
}


@pytest.mark.parametrize(
    ("shape", "sizes", "strides", "padding", "paddings"), POOLS.values(), ids=POOLS
)
def test_max_pooling_of_images(shape, sizes, strides, padding, paddings):
    program, folded = program_of(lambda x: tf.nn.max_pool2d(x, sizes, strides, padding), shape)
    # All different by more than the differences step.
    x = np.random.default_rng(0).permutation(math.prod(shape)).reshape(shape) / 9
    for each in (program, folded):
        derivatives_agree(each, lambda x: pooled(x, sizes, strides, paddings), x)


def test_what_is_masked_by_minus_infinity_loses():
    masked = np.arange(24).reshape(1, 6, 4, 1) % 5 == 0

    def oracle(x):
        return pooled(np.where(masked, -np.inf, x), (2, 2), (2, 2), [(0, 0)] * 2)

    program, folded = program_of(
        lambda x: tf.nn.max_pool2d(tf.where(masked, tf.cast(-np.inf, x.dtype), x), 2, 2, "VALID"),
        masked.shape,
    )
    x = np.random.default_rng(0).permutation(24).reshape(masked.shape) / 9
    for each in (program, folded):
        derivatives_agree(each, oracle, x)


def test_max_pooling_with_padding_by_hand():
    paddings = [(1, 1), (0, 2)]
    program, folded = program_of(
        lambda x: tf.nn.max_pool2d(x, 3, 1, [[0, 0], *map(list, paddings), [0, 0]]), (1, 5, 5, 1)
    )
    x = np.random.default_rng(0).permutation(25).reshape(1, 5, 5, 1) / 9
    for each in (program, folded):
        derivatives_agree(each, lambda x: pooled(x, (3, 3), (1, 1), paddings), x)


# TensorFlow pools volumes in single precision only, where differences are poor: the gradient is
# exact, since pooling picks entries.
VOLUMES = {
    "tiles": ((1, 4, 4, 2, 2), (2, 2, 2), (2, 2, 2), "VALID", [(0, 0)] * 3),
    "tiles and a rest": ((1, 5, 4, 3, 1), (2, 2, 2), (2, 2, 2), "VALID", [(0, 0)] * 3),
    "to the same shape": ((1, 4, 3, 4, 1), (3, 3, 3), (1, 1, 1), "SAME", [same(3)] * 3),
    "to the same shape, even": ((1, 3, 4, 3, 1), (2, 2, 2), (1, 1, 1), "SAME", [same(2)] * 3),
    "overlapping": ((1, 5, 5, 5, 1), (3, 3, 3), (2, 2, 2), "VALID", [(0, 0)] * 3),
}


@pytest.mark.parametrize(
    ("shape", "sizes", "strides", "padding", "paddings"), VOLUMES.values(), ids=VOLUMES
)
def test_max_pooling_of_volumes(shape, sizes, strides, padding, paddings):
    def function(x):
        return tf.nn.max_pool3d(x, sizes, strides, padding)

    program = trace(function, tf.TensorSpec(shape, tf.float32))
    rng = np.random.default_rng(0)
    x = (rng.permutation(math.prod(shape)).reshape(shape) / 16).astype(np.float32)
    v = rng.integers(-3, 4, shape).astype(np.float32)
    expected = pooled(x, sizes, strides, paddings)
    weights = rng.integers(-3, 4, expected.shape).astype(np.float32)
    # Steps smaller than any gap: the difference of a piecewise linear function is its derivative.
    step = 2.0**-8
    moved = [pooled(x + step * sign * v, sizes, strides, paddings) for sign in (1, -1)]
    along = (moved[0] - moved[1]) / (2 * step)

    def quadratic(x):
        return tf.reduce_sum(weights * program.replay(x) ** 2) / 2

    def quadratic_slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = quadratic(x)
        return tape.gradient(value, x)

    point = tf.constant(x)
    for each in (program, fold(program)):
        assert (run(each, x)[0] == expected).all()
    assert np.sum(quadratic_slope(point) * v) == pytest.approx(
        np.sum(weights * expected * along), rel=1e-5
    )
    with tf.autodiff.ForwardAccumulator(point, tf.constant(v)) as forward:
        gradient = quadratic_slope(point)
    second = forward.jvp(gradient).numpy()
    assert np.sum(second * v) == pytest.approx(np.sum(weights * along**2), rel=1e-5)
    # The gradient is linear in the products of pooled values, and exact but for rounding.
    both = (quadratic_slope(point + step * v) - quadratic_slope(point - step * v)) / (2 * step)
    assert np.allclose(second, both, rtol=1e-4, atol=1e-3)


TIES = {
    "tiles": ((1, 4, 4, 2), 2, 2, "VALID", [(0, 0)] * 2),
    "to the same shape": ((1, 4, 4, 2), 3, 1, "SAME", [same(3)] * 2),
    "overlapping": ((1, 5, 5, 1), 3, 2, "VALID", [(0, 0)] * 2),
}


def tied(shape):
    rng = np.random.default_rng(2)
    return [np.zeros(shape), np.ones(shape), -rng.integers(0, 3, shape).astype(float)]


@pytest.mark.parametrize(
    ("shape", "size", "stride", "padding", "paddings"), TIES.values(), ids=TIES
)
def test_of_equal_entries_the_one_that_tensorflow_takes_wins(
    shape, size, stride, padding, paddings
):
    def function(x):
        return tf.nn.max_pool2d(x, size, stride, padding)

    program = trace(function, spec(*shape))
    for x in tied(shape):
        x = tf.constant(x, tf.float64)
        gradients = []
        for pool in (function, program.replay, fold(program).replay):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = pool(x)
            assert (y.numpy() == pooled(x.numpy(), (size,) * 2, (stride,) * 2, paddings)).all()
            seed = np.arange(1.0, math.prod(y.shape) + 1).reshape(y.shape)
            gradients.append(tape.gradient(y, x, output_gradients=seed).numpy())
        assert (gradients[0] == gradients[1]).all()
        assert (gradients[0] == gradients[2]).all()
        # One winner a window.
        assert gradients[0].sum() == seed.sum()


def test_of_equal_entries_of_a_volume_pooled_to_the_same_shape_one_is_the_value():
    program = trace(
        lambda x: tf.nn.max_pool3d(x, 3, 1, "SAME"), tf.TensorSpec((1, 3, 4, 3, 1), tf.float32)
    )
    for x in tied((1, 3, 4, 3, 1)):
        expected = pooled(x, (3,) * 3, (1,) * 3, [same(3)] * 3)
        for each in (program, fold(program)):
            assert (run(each, x.astype(np.float32))[0] == expected).all()


@pytest.mark.parametrize("size", [2, 3, (1, 3, 2)], ids=str)
def test_second_derivatives_of_volumes_pooled_to_the_same_shape_are_those_in_float64(size):
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 3, 2)).astype(np.float32)
    lin = hvp.linearize_function(
        lambda w: tf.reduce_sum(tf.nn.max_pool3d(tf.sin(w), size, 1, "SAME") ** 3), x
    )
    v = np.random.default_rng(1).standard_normal(lin.size)
    assert relative(lin.hvp(v), lin.in_float64().hvp(v)) < 1e-5


def test_the_second_derivative_needs_no_kernel_of_its_own():
    def product(v, x):
        with tf.autodiff.ForwardAccumulator(x, v) as forward:
            gradient = slope(lambda x: program.replay(x), x, tf.ones([1, 2, 2, 1], tf.float64))
        return forward.jvp(gradient)

    program = trace(lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"), spec(1, 4, 4, 1))
    kinds = types(fold(trace(product, *[spec(1, 4, 4, 1)] * 2)))
    assert "MaxPoolGradGrad" not in kinds
    # The winners are found once.
    assert kinds.count("MaxPoolGrad") == 1


# --- sums over indices ---

SIZES = dict(zip("abcdef", (2, 3, 4, 5, 1, 2), strict=True))
EQUATIONS = [
    "ab,bc->ac",
    "ab,cb->ac",
    "ba,bc->ca",
    "abc,cd->abd",
    "abc,adc->abd",
    "abc,abd->acd",
    "abcd,aecd->aebd",
    "abcd,acbe->abde",
    "abc,bcd->ad",
    "abc,dbc->da",
    "ab,cd->abcd",
    "ab,cd->dbca",
    "ab,ab->ab",
    "ab,ba->ab",
    "ab,ab->",
    "a,b->ab",
    "a,a->",
    "ab,b->a",
    "b,ab->a",
    "ab,b->ab",
    "ab,->ab",
    "abe,eb->ae",
    "abc,ad->abcd",
    "afb,fb->af",
]
OTHERS = ["ab,bc->a", "aab,bc->ac", "ab,ac->bc", "abc->ca", "ab->", "...b,bc->...c", "ab,bc->ca"]


def shapes_of(equation):
    terms = equation.partition("->")[0].split(",")
    return [tuple(SIZES[c] for c in term.replace("...", "a").replace("aa", "aa")) for term in terms]


@pytest.mark.parametrize("equation", EQUATIONS + OTHERS)
def test_a_sum_over_indices_in_both_operands(equation):
    x, *others = [drawn(*shape, seed=i) for i, shape in enumerate(shapes_of(equation))]
    program, folded = program_of(
        lambda x: raw.Einsum(inputs=[x, *others], equation=equation), x.shape
    )
    for each in (program, folded):
        derivatives_agree(each, lambda x: np.einsum(equation, x, *others), x)
    if equation in EQUATIONS:
        assert "Einsum" not in types(folded)
    if others:
        (y,) = others
        program, folded = program_of(
            lambda y: raw.Einsum(inputs=[x, y], equation=equation), y.shape
        )
        for each in (program, folded):
            derivatives_agree(each, lambda y: np.einsum(equation, x, y), y)


def test_a_sum_over_indices_of_an_array_with_itself():
    program, folded = program_of(lambda x: tf.einsum("ab,cb->ac", x, x), (2, 3))
    for each in (program, folded):
        derivatives_agree(each, lambda x: np.einsum("ab,cb->ac", x, x), drawn(2, 3))


# --- matrix products ---

PRODUCTS = {
    "a batch and one matrix": ((2, 3, 4), (4, 5), False, False),
    "a batch and one matrix, transposed": ((2, 3, 4), (5, 4), False, True),
    "a batch and a batch of one": ((2, 3, 4), (1, 4, 5), False, False),
    "two axes and one matrix": ((2, 2, 3, 4), (4, 5), False, False),
    "a batch of one": ((1, 3, 4), (4, 5), False, False),
    "a batch, transposed, and one matrix": ((2, 4, 3), (4, 5), True, False),
    "a batch and a batch": ((2, 3, 4), (2, 4, 5), False, False),
    "a matrix and a batch": ((3, 4), (2, 4, 5), False, False),
    "matrices": ((3, 4), (4, 5), False, False),
    "outer products": ((2, 3, 1), (2, 1, 5), False, False),
    "outer products, transposed": ((2, 1, 3), (2, 5, 1), True, True),
    "outer products with one": ((2, 3, 1), (1, 5), False, False),
    "outer products, one transposed": ((2, 1, 3), (1, 5), True, False),
    "a row times a column": ((2, 1, 4), (2, 4, 1), False, False),
    "a batch and one matrix of more axes": ((2, 3, 4), (1, 1, 4, 5), False, False),
    "outer products of more axes": ((2, 3, 1), (1, 1, 1, 5), False, False),
}


@pytest.mark.parametrize(("x", "y", "adjoint_x", "adjoint_y"), PRODUCTS.values(), ids=PRODUCTS)
def test_batches_of_matrix_products(x, y, adjoint_x, adjoint_y):
    a, b = drawn(*x), drawn(*y, seed=1)

    def oracle(a, b):
        return np.matmul(
            a.swapaxes(-1, -2) if adjoint_x else a, b.swapaxes(-1, -2) if adjoint_y else b
        )

    def function(a, b):
        return raw.BatchMatMulV2(x=a, y=b, adj_x=adjoint_x, adj_y=adjoint_y)

    for each in program_of(lambda a: function(a, b), x):
        derivatives_agree(each, lambda a: oracle(a, b), a)
    for each in program_of(lambda b: function(a, b), y):
        derivatives_agree(each, lambda b: oracle(a, b), b)


@pytest.mark.parametrize("inner", [1, 4])
@pytest.mark.parametrize(("adjoint_x", "adjoint_y"), [(False, True), (True, False), (True, True)])
def test_adjoints_of_complex_matrices_are_conjugate(inner, adjoint_x, adjoint_y):
    def complex_(shape, seed, adjoint):
        shape = (*shape[:-2], shape[-1], shape[-2]) if adjoint else shape
        return drawn(*shape, seed=seed) + 1j * drawn(*shape, seed=seed + 1)

    def adjoint(a, wanted):
        return a.conj().swapaxes(-1, -2) if wanted else a

    x, y = complex_((2, 3, inner), 0, adjoint_x), complex_((1, inner, 5), 2, adjoint_y)
    program, folded = program_of(
        lambda scale: raw.BatchMatMulV2(
            x=tf.cast(scale, tf.complex128) * x, y=y, adj_x=adjoint_x, adj_y=adjoint_y
        ),
        (),
    )
    for each in (program, folded):
        (got,) = run(each, np.array(1.0))
        assert relative(got, adjoint(x, adjoint_x) @ adjoint(y, adjoint_y)) < 1e-14


def test_a_product_over_nothing_adds_nothing():
    def loss(w):
        nothing = tf.matmul(tf.reshape(w, [3, 4, 1])[:, :, :0], w[:0, :])
        return tf.reduce_sum(nothing) + tf.reduce_sum(w**3)

    w = drawn(3, 4)
    lin = hvp.linearize_function(loss, w, jit=False)
    assert relative(lin.hvp(np.eye(12)), np.diag(6 * w.reshape(-1))) < 1e-14


def test_a_batch_times_one_matrix_is_one_product_whose_gradient_is_too():
    def gradient(y, x):
        with tf.GradientTape() as tape:
            tape.watch(y)
            value = tf.reduce_sum(product.replay(x, y) ** 2)
        return tape.gradient(value, y)

    product = trace(tf.matmul, spec(6, 3, 4), spec(4, 5))
    kinds = types(fold(trace(gradient, spec(4, 5), spec(6, 3, 4))))
    assert "BatchMatMulV2" not in kinds
    assert kinds.count("MatMul") == 2
    # Otherwise the matrix is repeated for each of the batch, and the gradients are summed.
    assert not {"BroadcastTo", "Sum", "Tile"} & set(kinds)


def test_a_large_matrix_is_not_transposed():
    rows = LARGE_MATRIX_ENTRIES // 512
    x, y = drawn(2, 512), drawn(rows, 512)
    program, folded = program_of(lambda x: tf.matmul(x, y, transpose_b=True), (2, 512))
    assert sorted(types(folded)) == ["MatMul", "Transpose", "Transpose"]
    for node in folded.nodes:
        if node.op.type == "MatMul":
            assert not node.op.get_attr("transpose_a")
            assert not node.op.get_attr("transpose_b")
    for each in (program, folded):
        assert np.allclose(run(each, x)[0], x @ y.T, rtol=1e-12, atol=1e-11)
    with tf.GradientTape() as tape:
        tape.watch(point := tf.constant(x))
        value = tf.reduce_sum(program.replay(point) ** 2)
    assert np.allclose(tape.gradient(value, point), 2 * (x @ y.T) @ y, rtol=1e-11)


@pytest.mark.parametrize(
    ("x", "y"), [((2, 512), (LARGE_MATRIX_ENTRIES // 512 - 1, 512)), ((600, 512), (512, 512))]
)
def test_other_matrices_are_multiplied_as_they_are(x, y):
    other = drawn(*y)
    _, folded = program_of(lambda x: tf.matmul(x, other, transpose_b=True), x)
    assert types(folded) == ["MatMul"]


# --- biases and choices ---


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3), (2, 3, 2, 3)], ids=str)
def test_a_bias_and_its_gradient(shape):
    x, b = drawn(*shape), drawn(3, seed=1)
    for each in program_of(lambda b: raw.BiasAdd(value=x, bias=b), (3,)):
        derivatives_agree(each, lambda b: x + b, b)
    for each in program_of(lambda x: raw.BiasAdd(value=x, bias=b), shape):
        derivatives_agree(each, lambda x: x + b, x)
    for each in program_of(lambda x: raw.BiasAddGrad(out_backprop=x), shape):
        derivatives_agree(each, lambda x: x.sum(tuple(range(x.ndim - 1))), x)


def test_a_bias_of_channels_in_front_is_left_alone():
    x, b = drawn(2, 3, 4, 4), drawn(3)
    program, folded = program_of(
        lambda b: raw.BiasAdd(value=tf.constant(x), bias=b, data_format="NCHW"), (3,)
    )
    assert types(folded) == ["BiasAdd"]
    assert (run(program, b)[0] == x + b[:, None, None]).all()
    program, folded = program_of(
        lambda x: raw.BiasAddGrad(out_backprop=x, data_format="NCHW"), x.shape
    )
    assert types(folded) == ["BiasAddGrad"]
    assert np.allclose(run(program, x)[0], x.sum((0, 2, 3)), rtol=1e-13)


CHOICES = {
    "entries": lambda x: x > 0,
    "rows": lambda x: x[:, 0] > 0,
}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_between_arrays(name, swapped):
    x, other = drawn(4, 3), drawn(4, 3, seed=1)
    condition = CHOICES[name](x)

    def function(x):
        a, b = (other, x) if swapped else (x, other)
        return raw.Select(condition=condition, x=a, y=b)

    def oracle(x):
        whole = condition.reshape(4, -1)
        return np.where(whole, other, x) if swapped else np.where(whole, x, other)

    program, folded = program_of(function, (4, 3))
    assert types(folded) == ["SelectV2" if name == "entries" else "Select"]
    for each in (program, folded):
        derivatives_agree(each, oracle, x)


def test_the_slope_of_pooling_volumes_to_the_same_shape_has_the_derivative_of_differences():
    def loss(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(tf.nn.max_pool3d(x, 2, 1, "SAME") ** 2)
        return tf.reduce_sum(tape.gradient(value, x) ** 2)

    x = (np.random.default_rng(2).permutation(12) - 5.0).reshape(1, 2, 3, 2, 1).astype(np.float32)
    program = trace(loss, tf.TensorSpec(x.shape, tf.float32))
    with tf.GradientTape() as tape:
        given = tf.constant(x)
        tape.watch(given)
        value = program.replay(given)
    v = np.random.default_rng(3).standard_normal(x.shape).astype(np.float32)
    ahead, behind = (float(loss(tf.constant(x + step * v))) for step in (0.1, -0.1))
    # The loss is quadratic here: central differences are exact.
    assert np.sum(tape.gradient(value, given) * v) == pytest.approx((ahead - behind) / 0.2, 1e-3)


def test_every_substitute_is_tested():
    here = {
        "AvgPool3D",
        "BatchMatMulV2",
        "BiasAdd",
        "BiasAddGrad",
        "Cholesky",
        "Conv2D",
        "Conv2DBackpropFilter",
        "Conv2DBackpropInput",
        "Conv3D",
        "Conv3DBackpropFilterV2",
        "Conv3DBackpropInputV2",
        "DenseBincount",
        "Einsum",
        "LogMatrixDeterminant",
        "MatMul",
        "MaxPool",
        "MaxPool3D",
        "OneHot",
        "SparseAdd",
        "SparseSoftmax",
        "XlaDynamicUpdateSlice",
        "AvgPool3DGrad",
        "MaxPool3DGrad",
        "ResizeBicubic",
        "ResizeBilinear",
        "ResizeNearestNeighbor",
        "Select",
        "Softsign",
        "SoftsignGrad",
        "ResizeBicubicGrad",
        "ResizeBilinearGrad",
        "ResizeNearestNeighborGrad",
        "ScaleAndTranslateGrad",
        "AdjustHue",
        "AdjustSaturation",
        "ImageProjectiveTransformV2",
        *STRAIGHT_THROUGH,
    }
    assert set(SUBSTITUTES) == here | SPECIAL_POINTS


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(3, 4), (7, 9), (5, 6)], ids=str)
def test_resizing_is_what_tensorflow_computes(method, size):
    images = np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype(np.float32)
    for function in (tf.image.resize, tf.compat.v1.image.resize):
        program = trace(
            lambda x, resize=function: resize(x, size, method), tf.TensorSpec(images.shape)
        )
        expected = function(images, size, method)
        assert np.allclose(program.replay(tf.constant(images)), expected, atol=1e-6)


def resized_for_penalty(method, antialias=False):
    """Resized in single precision, the only one that all kernels have."""

    def resized(x):
        image = tf.image.resize(tf.cast(x, tf.float32), [7, 4], method, antialias=antialias)
        return tf.cast(image, x.dtype)

    return resized


def cubed_slopes(pool):
    """Σ (∂/∂w Σ sin pool(w))³, a loss that holds a gradient."""

    def loss(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = tf.reduce_sum(tf.sin(pool(w)))
        return tf.reduce_sum(tape.gradient(value, w) ** 3)

    return loss


# Of pooling, its size and stride; of volumes, a padding too.
POOLED_PENALTIES = {
    "tiles": (tf.nn.max_pool2d, (1, 105, 105, 1), 7, 7, "VALID"),
    "tiles of volumes": (tf.nn.max_pool3d, (1, 6, 6, 6, 1), 3, 3, "VALID"),
    "overlapping volumes": (tf.nn.max_pool3d, (1, 5, 5, 4, 2), 3, 2, "SAME"),
    "volumes to the same shape": (tf.nn.max_pool3d, (1, 3, 4, 3, 1), 2, 1, "SAME"),
    "means of volumes": (tf.nn.avg_pool3d, (1, 5, 5, 4, 2), 3, 2, "SAME"),
}


@pytest.mark.parametrize("dtype", [None, "float64"])
@pytest.mark.parametrize(
    ("pool", "shape", "size", "stride", "padding"), POOLED_PENALTIES.values(), ids=POOLED_PENALTIES
)
def test_a_penalty_on_a_gradient_of_pooling(pool, shape, size, stride, padding, dtype):
    """Entry i has the slope Σ_k a_ik cos p_k, where the pooled p = Ax and A is constant nearby."""
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    lin = hvp.linearize_function(
        cubed_slopes(lambda w: pool(w, size, stride, padding)), x, dtype=dtype
    )
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        p = pool(variable, size, stride, padding)
        flat = tf.reshape(p, [-1])
    jacobian = tape.jacobian(flat, variable).numpy().reshape(-1, x.size).astype(float)
    p = jacobian @ x.ravel().astype(float)
    v = np.random.default_rng(1).normal(size=x.size)
    t = jacobian @ v
    s, ds = jacobian.T @ np.cos(p), jacobian.T @ (-np.sin(p) * t)
    gradient = jacobian.T @ (-np.sin(p) * (jacobian @ (3 * s**2)))
    along = -np.cos(p) * t * (jacobian @ (3 * s**2)) - np.sin(p) * (jacobian @ (6 * s * ds))
    bound = 1e-6 if dtype else 1e-4  # the Jacobian is in single precision
    assert lin.loss() == pytest.approx(np.sum(s**3), rel=bound)
    assert relative(lin.gradient(), gradient) < bound
    assert relative(lin.hvp(v), jacobian.T @ along) < bound


PENALTIES = {
    "softsign": tf.nn.softsign,
    **{method: resized_for_penalty(method) for method in ("bilinear", "bicubic", "nearest")},
    "antialiased": resized_for_penalty("bicubic", antialias=True),
}


@pytest.mark.parametrize("function", PENALTIES.values(), ids=PENALTIES)
def test_a_penalty_on_a_gradient_has_second_derivatives(function):
    """Central differences of the loss along v: errors of order h², and of rounding over h²."""
    x, v = np.random.default_rng(0).normal(size=(2, 1, 5, 6, 1))

    def loss(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = tf.reduce_sum(tf.sin(function(w)))
        return tf.reduce_sum(tf.cast(tape.gradient(value, w), w.dtype) ** 3)

    lin = hvp.linearize_function(loss, x, dtype="float64")
    at = trace(loss, spec(*x.shape))
    at = precision.promote(at, tf.float64)
    step = 1e-3
    high, middle, low = (float(at.replay(tf.constant(x + h * v))) for h in (step, 0, -step))
    assert lin.loss() == pytest.approx(float(loss(tf.constant(x))), rel=1e-5)
    first, second = (high - low) / (2 * step), (high - 2 * middle + low) / step**2
    assert lin.gradient() @ v.ravel() == pytest.approx(first, rel=1e-4)
    assert lin.hvp(v.ravel()) @ v.ravel() == pytest.approx(second, rel=1e-4)


# --- values are those of the kernels ---

IMAGES = np.random.default_rng(4).uniform(size=(2, 5, 6, 3)).astype(np.float32)
GREY = np.concatenate([np.full((2, 5, 3, 3), 0.4), np.zeros((2, 5, 3, 3))], 2).astype(np.float32)
BOXES = np.array([[-0.1, 0.0, 0.7, 1.2], [0.9, 0.1, 0.2, 0.8], [0.0, 0.0, 1.0, 1.0]], np.float32)
TURNS = np.array(
    [[1.3, 0.4, -2.3, -0.5, 0.8, 3.1, 0.02, -0.1], [0.2, -1.7, 9.0, 2.2, 0.3, -7.0, -0.25, 0.0]],
    np.float32,
)


def projective(name, interpolation, fill_mode, count=2):
    fill = {"fill_value": 0.3} if name.endswith("V3") else {}
    return lambda x, turns: getattr(tf.raw_ops, name)(
        images=x,
        transforms=turns[:count],
        output_shape=[7, 8],
        interpolation=interpolation,
        fill_mode=fill_mode,
        **fill,
    )


def cropped(size, method):
    return lambda x, boxes: tf.image.crop_and_resize(x, boxes, [1, 0, 1], size, method, 0.7)


KERNELS = {
    **{
        f"{name}, {mode}, {how}, {count}": (projective(name, how, mode, count), TURNS)
        for name, count in (("ImageProjectiveTransformV2", 2), ("ImageProjectiveTransformV3", 1))
        for mode in ("CONSTANT", "NEAREST", "REFLECT", "WRAP")
        for how in ("BILINEAR", "NEAREST")
    },
    **{
        f"crops {size} {how}": (cropped(size, how), BOXES)
        for size in ((4, 3), (1, 1))
        for how in ("bilinear", "nearest")
    },
    **{f"hue {d}": (tf.image.adjust_hue, np.float32(d)) for d in (-0.7, 0.1, 0.9)},
    **{f"saturation {d}": (tf.image.adjust_saturation, np.float32(d)) for d in (0.0, 0.5, 3.0)},
    "contrast": (tf.image.adjust_contrast, np.float32(1.7)),
    "hue to colours": (lambda x, _: tf.image.hsv_to_rgb(x), np.float32(0)),
}


@pytest.mark.parametrize("images", [IMAGES, GREY], ids=["colours", "grey"])
@pytest.mark.parametrize(("function", "given"), KERNELS.values(), ids=KERNELS)
def test_transforms_of_images_are_what_tensorflow_computes(function, given, images):
    specs = [tf.TensorSpec(t.shape, tf.float32) for t in (images, given)]
    program = trace(function, *specs)
    found = program.replay(tf.constant(images), tf.constant(given))
    assert np.allclose(found, function(images, given), atol=2e-5)


@pytest.mark.parametrize("overlapping", [True, False])
@pytest.mark.parametrize("pool", [tf.nn.fractional_max_pool, tf.nn.fractional_avg_pool])
def test_fractional_regions_are_those_that_tensorflow_draws(pool, overlapping):
    images = np.random.default_rng(0).normal(size=(2, 13, 11, 3))

    def pooled(x):
        return pool(x, [1, 1.44, 1.73, 1], False, overlapping, seed=7)[0]

    program = trace(pooled, tf.TensorSpec(images.shape, tf.float64))
    assert np.allclose(program.replay(tf.constant(images)), pooled(images), rtol=1e-12)


def test_fractional_regions_without_a_seed_are_refused():
    with pytest.raises(hvp.InputError, match="draws other regions each time; give it a seed"):
        hvp.linearize_function(
            lambda w: tf.reduce_sum(tf.nn.fractional_max_pool(w, [1, 1.4, 1.4, 1])[0] ** 2),
            np.ones((1, 6, 6, 1)),
        )


LABELS, COUNTS, LENGTHS = np.array([[1, 2, 0], [3, 3, 1], [2, 0, 0]]), [2, 3, 1], [5, 6, 6]
SEQUENCES = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float32)
CTC = {
    "blank first": lambda z: tf.nn.ctc_loss(LABELS, z, COUNTS, LENGTHS, blank_index=0),
    "blank last": lambda z: tf.nn.ctc_loss(
        np.maximum(LABELS - 1, 0), tf.roll(z, -1, 2), COUNTS, LENGTHS, blank_index=-1
    ),
    "unique labels": lambda z: tf.nn.ctc_loss(
        LABELS, z, COUNTS, LENGTHS, blank_index=0, unique=tf.nn.ctc_unique_labels(LABELS)
    ),
    "named": lambda z: tf.nn.ctc_loss(LABELS, z, COUNTS, LENGTHS, blank_index=0, name="mine"),
    "of Keras": lambda z: keras.ops.ctc_loss(LABELS, tf.transpose(z, [1, 0, 2]), COUNTS, LENGTHS),
}


@pytest.mark.parametrize("name", sweep(CTC, {"blank last"}))
def test_dense_labels_of_sequences_have_the_loss_and_gradient_of_tensorflow(name):
    losses = CTC[name]

    def loss(z):
        return tf.reduce_sum(losses(z) ** 2)

    lin = hvp.linearize_function(loss, SEQUENCES)
    variable = tf.Variable(SEQUENCES)
    with tf.GradientTape() as tape:
        value = loss(variable)
    assert lin.loss() == pytest.approx(float(value), rel=1e-5)
    assert relative(lin.gradient(), tape.gradient(value, variable).numpy().ravel()) < 1e-5
    assert not lin.findings


def test_a_scope_with_the_name_of_a_function_is_not_taken_for_it():
    """A sum of cubes with as many arguments as CTC has: H is diag(6x)."""

    @tf.custom_gradient
    def cubes(x, labels, sizes, lengths):
        def gradient(upstream):
            return 3 * x**2 * upstream[None, :, None], None, None, None

        return tf.reduce_sum(x**3, [0, 2]), gradient

    def loss(x):
        with tf.name_scope("ctc_loss_dense"):
            return tf.reduce_sum(cubes(x, *map(tf.constant, (LABELS, COUNTS, LENGTHS))))

    lin = hvp.linearize_function(loss, SEQUENCES.astype(np.float64))
    x = SEQUENCES.astype(np.float64).ravel()
    assert lin.loss() == pytest.approx(np.sum(x**3), rel=1e-12)
    assert np.allclose(lin.gradient(), 3 * x**2, rtol=1e-12)
    assert np.allclose(lin.hvp(np.eye(x.size)), np.diag(6 * x), rtol=1e-12)


# --- steps ---

RANGE = {"input_min": np.float64(-1), "input_max": np.float64(1)}
CHANNELS = (np.float32([-1, -0.5, -0.2]), np.float32([1, 0.5, 0.2]))
STRAIGHT_THROUGH = {
    "FakeQuantWithMinMaxArgs": lambda x: tf.quantization.fake_quant_with_min_max_args(
        tf.cast(x, tf.float32), -1, 1
    ),
    "FakeQuantWithMinMaxVars": lambda x: tf.quantization.fake_quant_with_min_max_vars(
        tf.cast(x, tf.float32), -1.0, 1.0
    ),
    "FakeQuantWithMinMaxVarsPerChannel": lambda x: (
        tf.quantization.fake_quant_with_min_max_vars_per_channel(tf.cast(x, tf.float32), *CHANNELS)
    ),
    "QuantizeAndDequantizeV4": lambda x: tf.raw_ops.QuantizeAndDequantizeV4(
        input=x, range_given=True, **RANGE
    ),
}
KEPT = {
    "QuantizeAndDequantizeV2": lambda x: tf.quantization.quantize_and_dequantize(x, -1, 1),
    "QuantizeAndDequantizeV3": lambda x: tf.raw_ops.QuantizeAndDequantizeV3(
        input=x, num_bits=8, **RANGE
    ),
}
STEPPED = np.array([[-1.7, -0.4, 0.1], [0.6, 0.35, 1.3]])


@pytest.mark.parametrize("name", [*STRAIGHT_THROUGH, *KEPT])
def test_steps_are_passed_straight_through_and_found(name):
    """For a loss f of the steps q(x), H is f″(q) where q has a slope in TensorFlow."""
    quantise = (STRAIGHT_THROUGH | KEPT)[name]

    def loss(x):
        return tf.reduce_sum(tf.sin(tf.cast(quantise(x), tf.float64)))

    variable = tf.Variable(STEPPED)
    with tf.GradientTape(persistent=True) as tape:
        q = tf.cast(quantise(variable), tf.float64)
        value, total = tf.reduce_sum(tf.sin(q)), tf.reduce_sum(q)
    slopes = tape.gradient(total, variable).numpy().ravel()
    lin = hvp.linearize_function(loss, STEPPED)
    assert lin.loss() == pytest.approx(float(value), rel=1e-6)
    assert np.allclose(lin.gradient(), tape.gradient(value, variable).numpy().ravel(), atol=1e-6)
    assert np.allclose(lin.hvp(np.eye(6)), np.diag(-np.sin(np.ravel(q)) * slopes), atol=1e-6)
    assert name in [f.op for f in lin.findings if f.severity == "different"]


@pytest.mark.parametrize("channels", [True, False])
def test_the_ends_of_a_range_are_differentiated_as_tensorflow_does(channels):
    def quantise(x, low, high):
        if not channels:
            low, high = low[0], high[0]
        function = "fake_quant_with_min_max_vars" + "_per_channel" * channels
        return getattr(tf.quantization, function)(x, low, high)

    def loss(params):
        return tf.reduce_sum(tf.sin(quantise(*params)))

    point = [STEPPED.astype(np.float32), *CHANNELS]
    variables = [tf.Variable(p) for p in point]
    with tf.GradientTape() as tape:
        value = loss(variables)
    expected = np.concatenate([np.ravel(g) for g in tape.gradient(value, variables)])
    lin = hvp.linearize_function(loss, point)
    assert np.allclose(lin.gradient(), expected, atol=1e-6)
    outside = np.abs(lin.hvp(np.eye(12, dtype=np.float32))[6:, 6:]).sum()
    assert outside > 0.1


@pytest.mark.parametrize("pool", [tf.nn.max_pool3d, tf.nn.avg_pool3d])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("size", "step"), [(2, 2), (3, 2), ((1, 2, 3), (2, 1, 3))], ids=str)
def test_volumes_in_float64_are_pooled_as_tensorflow_pools_them_in_float32(
    pool, padding, size, step
):
    shape = (2, 5, 6, 7, 3)
    x = np.random.default_rng(0).standard_normal(shape)
    program = trace(lambda x: pool(x, size, step, padding), tf.TensorSpec(shape, tf.float32))
    promoted = precision.promote(program, tf.float64)
    expected = pool(x.astype(np.float32), size, step, padding)
    assert np.allclose(promoted.replay(tf.constant(x)), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 2, 2), (1, 1, 2)], ids=str)
def test_of_equal_entries_of_a_volume_one_is_the_value(size):
    shape = (1, 4, 4, 4, 1)
    program = trace(
        lambda x: tf.nn.max_pool3d(x, size, size, "VALID"), tf.TensorSpec(shape, tf.float32)
    )
    for x in tied(shape):
        expected = pooled(x, size, size, [(0, 0)] * 3)
        for each in (program, fold(program)):
            assert (run(each, x.astype(np.float32))[0] == expected).all()


def test_of_equal_entries_of_a_volume_one_is_differentiated():
    """The largest of equal entries w is w, and the Hessian of w² is 2."""
    lin = hvp.linearize_function(
        lambda z, batch: tf.reduce_mean(z**2),
        np.ones(1, np.float32),
        (np.ones((1, 4, 4, 4, 1), np.float32),),
        outputs=lambda w, batch: tf.nn.max_pool3d(batch[0] * w, 2, 2, "VALID"),
    )
    assert lin.loss() == pytest.approx(1, rel=1e-6)
    assert lin.gradient() == pytest.approx([2], rel=1e-6)
    assert lin.hvp(np.ones(1)) == pytest.approx([2], rel=1e-6)


@pytest.mark.parametrize("ad", ["forward-over-reverse", "reverse-over-reverse"])
def test_a_learned_exponent_of_data_that_are_zero(ad):
    """xᵖ has the derivatives xᵖ log x and xᵖ log² x in p, which are zero at x = 0."""
    x = np.array([[0.0], [0.3], [2.0]])
    p = np.array([0.3, 1.0, 1.5, 2.0])
    lin = hvp.linearize_function(
        lambda p, x: tf.reduce_sum(x**p), p, x, reduction="sum", ad=ad, jit=False
    )
    powers, logs = x[1:] ** p, np.log(x[1:])
    np.testing.assert_allclose(lin.gradient(), (powers * logs).sum(0), rtol=1e-13)
    products = lin.hvp(np.eye(4))
    np.testing.assert_allclose(products, np.diag((powers * logs**2).sum(0)), rtol=1e-13)


@pytest.mark.parametrize("exponent", [0.5, 1.5])
def test_an_infinite_derivative_of_a_power_shows_beside_a_learned_exponent(exponent):
    w = np.array([0.0, 0.3, exponent])
    with pytest.raises(hvp.InputError, match="NaN or infinity"):
        hvp.linearize_function(lambda w: tf.reduce_sum(w[:2] ** w[2]), w).hvp(np.eye(3))


FACTORISED = {
    "logdet": tf.linalg.logdet,
    "a factor": lambda a: tf.reduce_sum(
        tf.sin(tf.linalg.cholesky(a)) * np.arange(1.0, 10).reshape(3, 3)
    ),
    "a solution": lambda a: tf.reduce_sum(
        tf.linalg.cholesky_solve(tf.linalg.cholesky(a), np.ones((3, 1))) ** 2
    ),
}


@pytest.mark.parametrize("name", FACTORISED)
def test_a_factorisation_has_the_derivatives_of_what_it_reads(name):
    """Cholesky reads the lower triangle alone: those of the loss by differences."""
    function = FACTORISED[name]
    a = np.array([[2.0, 0.3, 0.1], [0.3, 1.5, -0.4], [0.1, -0.4, 1.0]])
    lin = hvp.linearize_function(function, a)
    rng = np.random.default_rng(3)
    for v in rng.standard_normal((2, 3, 3)):

        def at(h, v=v):
            return float(function(tf.constant(a + h * v)))

        h = 1e-3
        slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        bend = (16 * (at(h) + at(-h)) - at(2 * h) - at(-2 * h) - 30 * at(0)) / (12 * h**2)
        flat = v.ravel()
        assert lin.gradient() @ flat == pytest.approx(slope, rel=1e-8)
        assert flat @ lin.hvp(flat) == pytest.approx(bend, rel=1e-6)
    # From TensorFlow 2.22 on `tf.linalg.logdet` is by triangular factors.
    graph = tf.function(function).get_concrete_function(tf.constant(a)).graph
    is_held = "Cholesky" in {op.type for op in graph.get_operations()}
    assert any("Cholesky" in str(finding) for finding in lin.findings) == is_held


@pytest.mark.parametrize("count", [3, 8])
def test_determinants_of_a_matrix_with_equal_singular_values(count):
    """At A = 2I: D² log|det A| (V, V) = -tr V²/4, D² det A (V, V) = det A ((tr V)² - tr V²)/4."""
    v = np.random.default_rng(4).standard_normal((count, count))
    trace, square = np.trace(v), np.trace(v @ v)
    for function, slope, bend in (
        (lambda a: tf.linalg.slogdet(a)[1], trace / 2, -square / 4),
        (tf.linalg.det, 2.0**count * trace / 2, 2.0**count * (trace**2 - square) / 4),
    ):
        lin = hvp.linearize_function(function, 2 * np.eye(count))
        assert lin.gradient() @ v.ravel() == pytest.approx(slope)
        assert v.ravel() @ lin.hvp(v.ravel()) == pytest.approx(bend)


COMPLEX = {
    "det": lambda z: tf.linalg.det(z),
    "large det": lambda z: tf.linalg.det(
        tf.linalg.LinearOperatorBlockDiag([tf.linalg.LinearOperatorFullMatrix(z)] * 3).to_dense()
    ),
    "sign": lambda z: tf.linalg.slogdet(z)[0],
    "log": lambda z: tf.linalg.slogdet(z)[1],
}


@pytest.mark.parametrize("name", COMPLEX)
def test_determinants_of_complex_matrices(name):
    rng = np.random.default_rng(5)
    a, v, b = rng.standard_normal((3, 3, 3))

    def loss(w):
        value = COMPLEX[name](tf.complex(w, w**2 + b))
        return tf.math.real(value * tf.cast(1 + 0.5j, value.dtype))

    def at(h):
        return float(loss(tf.constant(a + h * v)))

    h = 4e-4
    slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    bend = (16 * (at(h) + at(-h)) - at(2 * h) - at(-2 * h) - 30 * at(0)) / (12 * h**2)
    lin = hvp.linearize_function(loss, a)
    assert lin.gradient() @ v.ravel() == pytest.approx(slope, rel=1e-6)
    assert v.ravel() @ lin.hvp(v.ravel()) == pytest.approx(bend, rel=1e-6)


def test_a_singular_matrix_has_no_logarithm_of_its_determinant():
    """det A = s exp(log |det A|) is zero there, with derivatives; its logarithm has none."""

    def loss(a):
        sign, log = tf.linalg.slogdet(a)
        return sign * tf.exp(log) + tf.reduce_sum(a)

    with pytest.raises(hvp.InputError):
        hvp.linearize_function(loss, np.diag([1.0, 2.0, 0.0])).hvp(np.ones(9))
    with pytest.raises(hvp.InputError):
        hvp.linearize_function(tf.linalg.det, np.diag(np.arange(8.0))).hvp(np.ones(64))


def test_what_fit_cannot_differentiate_needs_no_finding():
    def loss(w):
        updated = keras.ops.slice_update(w, [1], w[:1] ** 2)
        return tf.reduce_sum(updated**2) + tf.reduce_sum(tf.where(w > 0, w**2, w**3))

    lin = hvp.linearize_function(loss, np.array([1.0, 2.0]))
    np.testing.assert_allclose(lin.hvp(np.eye(2)), np.diag([12 + 2 + 2, 2.0]))

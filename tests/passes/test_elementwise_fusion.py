"""Entrywise operations on linear values become sums with known coefficients, the values staying."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from support.programs import (
    SHAPE,
    cooked,
    curvature,
    drawn,
    few,
    heavy,
    recipes,
    run,
    seeds,
    spec,
    tangent,
    traced,
    types,
)

from hvp.autodiff.curvature import forward_over_reverse, reverse_over_reverse
from hvp.autodiff.tracing import trace
from hvp.passes.elementwise_fusion import DIAGONAL, fuse_elementwise
from hvp.passes.partial_eval import partially_evaluate
from hvp.passes.simplify import simplify

raw = tf.raw_ops


def linear_part(program, count=1):
    return types(partially_evaluate(program, count).linear)


def agree(program, other, *inputs, rtol=1e-13):
    for got, expected in zip(run(other, *inputs), run(program, *inputs), strict=True):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        assert np.abs(got - expected).max() <= rtol * max(np.abs(expected).max(), 1e-3)


def fused(product, *shapes):
    """The folded program, and the same fused."""
    program = simplify(trace(product, *(spec(*shape) for shape in shapes)))
    return program, simplify(fuse_elementwise(program, 1))


# --- every operation of the table, run by TensorFlow itself ---

ENTRYWISE = {
    "Neg": lambda x, other: raw.Neg(x=x),
    "MulNoNan": lambda x, other: raw.MulNoNan(x=x, y=other),
    "RealDiv": lambda x, other: raw.RealDiv(x=x, y=other),
    **{
        name: lambda x, other, name=name: getattr(raw, name)(gradients=x, features=other)
        for name in ("LeakyReluGrad", "Relu6Grad", "ReluGrad", "SoftplusGrad", "SoftsignGrad")
    },
    **{
        name: lambda x, other, name=name: getattr(raw, name)(gradients=x, outputs=other)
        for name in ("EluGrad", "SeluGrad")
    },
    **{
        name: lambda x, other, name=name: getattr(raw, name)(y=other, dy=x)
        for name in ("ReciprocalGrad", "RsqrtGrad", "SigmoidGrad", "SqrtGrad", "TanhGrad")
    },
}


@pytest.mark.parametrize("kind", DIAGONAL)
def test_tensorflow_multiplies_each_entry_by_a_number_of_its_own(kind):
    operation, (x, other) = ENTRYWISE[kind], drawn(2, 20)
    coefficients = operation(tf.ones(20, tf.float64), tf.constant(other)).numpy()
    assert np.unique(coefficients).size > (1 if kind == "Neg" else 2) - 1
    got = operation(tf.constant(x), tf.constant(other)).numpy()
    assert np.allclose(got, coefficients * x, rtol=1e-14, atol=0)


@pytest.mark.parametrize("kind", DIAGONAL)
def test_the_coefficients_leave_the_linear_part(kind):
    program, other = fused(lambda v, x: ENTRYWISE[kind](v * x, x) * 3.0, SHAPE, SHAPE)
    assert kind in linear_part(program)
    assert linear_part(other) == ["Mul"]
    agree(program, other, *drawn(2, *SHAPE))


@pytest.mark.parametrize("kind", [kind for kind in DIAGONAL if kind != "Neg"])
def test_an_operand_that_is_not_linear_in_v_is_left_alone(kind):
    program, other = fused(lambda v, x: ENTRYWISE[kind](x, tf.exp(v)), SHAPE, SHAPE)
    assert kind in linear_part(other)
    agree(program, other, *drawn(2, *SHAPE))


# --- sums ---

SUMS = {
    "a chain": (lambda v, x: tf.sin(x) * (v * x) / x * 2.0, ["Mul"]),
    "one v twice": (lambda v, x: v * x + tf.sin(x) * v, ["Mul"]),
    "v and its multiple": (lambda v, x: v + v * x, ["Mul"]),
    "v minus its multiple": (lambda v, x: v - v * x, ["Mul"]),
    "a multiple minus v": (lambda v, x: v * x - v, ["Mul"]),
    "many": (lambda v, x: tf.add_n([v, v * x, v / x, -v, v]), ["Mul"]),
    "nested": (lambda v, x: ((v + v * x) * x - v) / x, ["Mul"]),
    "two values": (lambda v, x: v * x + tf.transpose(v) * x, ["Transpose", "AddN", "Mul"]),
    "two values, coefficients apart": (
        lambda v, x: v * x + tf.transpose(v) * tf.sin(x),
        ["Transpose", "Mul", "Mul", "AddN"],
    ),
    "nothing": (lambda v, x: v @ x, ["MatMul"]),
    "before and after a product": (
        lambda v, x: -(((v * x) / 2) @ x) * x * 2,
        ["Mul", "MatMul", "Mul"],
    ),
    "v itself": (lambda v, x: v, []),
    "unused v": (lambda v, x: tf.sin(x), []),
    "a scalar": (lambda v, x: tf.reduce_sum(v * x) * x[0, 0] * 2, ["Mul", "Sum", "Mul"]),
}
SQUARE = (3, 3)


@pytest.mark.parametrize(("product", "expected"), SUMS.values(), ids=SUMS)
def test_sums_have_as_few_terms_as_there_are_values(product, expected):
    program, other = fused(product, SQUARE, SQUARE)
    assert linear_part(other) == expected
    assert len(linear_part(other)) <= len(linear_part(program))
    agree(program, other, *drawn(2, *SQUARE))


SHAPES = {
    "a larger coefficient": (lambda v, x: v * x * 2, (3,), (2, 3)),
    "a larger coefficient in front": (lambda v, x: x * v, (1, 3), (4, 2, 3)),
    "a smaller coefficient": (lambda v, x: v * x + v, (2, 3), (3,)),
    "a number": (lambda v, x: v * x + v * 2, (2, 3), ()),
    "v a number": (lambda v, x: v * x + v, (), (2, 3)),
    "v larger on one axis, x on the other": (lambda v, x: v * x - v, (2, 1), (1, 3)),
    "terms of several shapes": (
        lambda v, x: v * x + tf.reduce_sum(v, 0) + tf.reduce_sum(v, 1, keepdims=True) * 2,
        (2, 3),
        (2, 3),
    ),
    "smaller terms first": (
        lambda v, x: tf.reduce_sum(v, 0) * 2 + tf.reduce_sum(v) * 3 + v,
        (2, 3),
        (2, 3),
    ),
    "all terms smaller": (
        lambda v, x: tf.reduce_sum(v, 0) + tf.reduce_sum(v, 1, keepdims=True) * x[:, :1],
        (2, 3),
        (2, 3),
    ),
    "repeated along axes of one": (
        lambda v, x: tf.broadcast_to(v * 2, [2, 3]) * x + tf.tile(v, [2, 1]),
        (1, 3),
        (2, 3),
    ),
    "repeated alone": (lambda v, x: tf.tile(v * x, [1, 3]), (2, 1), (2, 1)),
    "repeated along new axes": (lambda v, x: tf.broadcast_to(v * 2, [2, 3]) * x, (3,), (2, 3)),
    "repeated and summed": (
        lambda v, x: tf.reduce_sum(tf.broadcast_to(v, [5, 3]) * x, 0),
        (1, 3),
        (5, 3),
    ),
    "divided by a larger": (lambda v, x: v / x * 2, (3,), (2, 3)),
    "an empty v": (lambda v, x: v * x + v, (0, 3), (0, 3)),
}


@pytest.mark.parametrize(("product", "v", "x"), SHAPES.values(), ids=SHAPES)
def test_shapes_may_differ(product, v, x):
    program, other = fused(product, v, x)
    assert len(linear_part(other)) <= len(linear_part(program))
    got = run(other, drawn(*v), drawn(*x))[0]
    expected = run(program, drawn(*v), drawn(*x))[0]
    assert got.shape == expected.shape
    assert np.allclose(got, expected, rtol=1e-13, atol=1e-14)


def test_a_sum_used_twice_is_made_once():
    def product(v, x):
        s = v * x + tf.transpose(v) * tf.sin(x)
        return (s * x) @ x, (s / x) @ x

    program, other = fused(product, SQUARE, SQUARE)
    assert linear_part(other).count("AddN") == 1
    assert len(linear_part(other)) == len(linear_part(program))
    agree(program, other, *drawn(2, *SQUARE))


def test_a_sum_wanted_as_it_is_and_scaled_is_both():
    def product(v, x):
        s = v * x + v * 2
        return s, s @ x, s * x

    program, other = fused(product, SQUARE, SQUARE)
    assert len(linear_part(other)) < len(linear_part(program))
    agree(program, other, *drawn(2, *SQUARE))


def test_several_inputs_may_be_linear():
    def product(u, v, x):
        return (u + v) * x + u * tf.sin(x)

    program = simplify(trace(product, *[spec(3)] * 3))
    other = simplify(fuse_elementwise(program, 2))
    assert sorted(linear_part(other, 2)) == ["AddN", "Mul", "Mul"]
    agree(program, other, *drawn(3, 3))


def test_without_linear_inputs_nothing_changes():
    program = simplify(trace(lambda x: tf.sin(x) * 2 + x, spec(3)))
    assert types(fuse_elementwise(program, 0)) == types(program)


def test_a_product_of_linear_values_is_left_alone():
    program, other = fused(lambda v, x: v * v * x, SHAPE, SHAPE)
    agree(program, other, *drawn(2, *SHAPE))


def test_single_precision_stays_single():
    program = simplify(
        trace(lambda v, x: -(v / x) - v * 2 + v, *[tf.TensorSpec(SHAPE, tf.float32)] * 2)
    )
    agree(
        program,
        simplify(fuse_elementwise(program, 1)),
        *drawn(2, *SHAPE).astype(np.float32),
        rtol=1e-5,
    )


def test_a_selection_leaves_out_what_is_not_finite():
    def derivative_of_root(v, x):
        slope = tf.reduce_sum(v) / tf.reduce_sum(tf.nn.relu(x))
        return tf.where(x > 0, tf.reshape(slope, [1, 1]), 0.0) * x

    program, other = fused(derivative_of_root, SHAPE, SHAPE)
    v, x = drawn(2, *SHAPE)
    agree(program, other, v, -np.abs(x))


def test_an_infinite_coefficient_is_no_news():
    program, other = fused(lambda v, x: v / x + v, SHAPE, SHAPE)
    v, x = drawn(*SHAPE), np.zeros(SHAPE)
    assert np.array_equal(run(program, v, x)[0], run(other, v, x)[0])


# --- what differentiation leaves ---

ACTIVATIONS = ["exponential", "gelu", "leaky_relu", "relu", "relu6", "sigmoid", "silu", "softplus"]
ACTIVATIONS += ["tanh"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_curvature_of_an_activation_is_one_product(name):
    function = keras.activations.get(name)
    program, other = fused(curvature(function), SHAPE, SHAPE)
    assert set(linear_part(other)) <= {"Mul"}
    assert len(linear_part(other)) <= 1 < len(linear_part(program))
    agree(program, other, *drawn(2, *SHAPE), rtol=1e-12)


FUNCTIONS = {
    **{name: keras.activations.get(name) for name in ("elu", "selu")},
    "softmax": tf.nn.softmax,
    "log softmax": tf.nn.log_softmax,
    "normalised": lambda x: (x - tf.reduce_mean(x, 0)) / tf.math.reduce_std(x, 0),
    "powers": lambda x: x**3 / (1 + tf.abs(x)) ** 1.5 + tf.sqrt(1 + x * x),
    "a layer": lambda x: tf.tanh(tf.matmul(x, drawn(3, 3)) + drawn(3)) * x,
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("order", [tangent, curvature])
def test_derivatives_keep_their_values_with_fewer_operations(function, order):
    program, other = fused(order(function), SHAPE, SHAPE)
    assert len(linear_part(other)) <= len(linear_part(program))
    agree(program, other, *drawn(2, *SHAPE), rtol=1e-12)


@pytest.mark.sweep
@few
@given(recipes, seeds)
def test_random_programs_keep_their_values_with_fewer_operations(recipe, seed):
    program = simplify(traced(cooked(recipe)))
    other = simplify(fuse_elementwise(program, 1))
    agree(program, other, *np.random.default_rng(seed).uniform(0.1, 1, (2, *SHAPE)), rtol=1e-12)
    assert len(linear_part(other)) <= len(linear_part(program))
    assert heavy(other) == heavy(program)


@pytest.mark.parametrize("order", [forward_over_reverse, reverse_over_reverse])
def test_a_dense_network_is_products_with_one_operation_between(order):
    weights = [tf.constant(drawn(3, 3, seed=i)) for i in range(3)]

    def loss(params):
        h = tf.constant(drawn(5, 3))
        for w in params:
            h = tf.tanh(tf.matmul(h, w))
        return tf.reduce_sum(tf.square(h))

    program = simplify(
        trace(
            lambda tangents: order(loss, [tf.identity(w) for w in weights], tangents),
            [spec(3, 3)] * 3,
        )
    )
    other = simplify(fuse_elementwise(program, 3))
    agree(program, other, *drawn(3, 3, 3), rtol=1e-12)
    kinds = linear_part(other, 3)
    assert kinds.count("MatMul") == 14
    assert set(kinds) == {"AddN", "MatMul", "Mul"}
    # Two for each of three layers and two for the loss; a third of the others is gone.
    assert kinds.count("Mul") <= 8
    assert len(kinds) - 14 < 0.7 * (len(linear_part(program, 3)) - 14)


@pytest.mark.parametrize(
    "product",
    [lambda v, x: v - tf.transpose(v), lambda v, x: (tf.reduce_sum(v, 0) - v) @ x],
    ids=["alone", "broadcast"],
)
def test_a_difference_of_two_values_is_no_more_than_it_was(product):
    program, other = fused(product, SQUARE, SQUARE)
    agree(program, other, *drawn(2, *SQUARE))
    assert len(linear_part(other)) <= len(linear_part(program))


REPEATED = {
    "along an axis of two": (lambda v, x: tf.tile(v, [2]), (2,)),
    "then scaled": (lambda v, x: tf.tile(v * x, [2]) * 3, (2,)),
    "along both axes": (lambda v, x: tf.tile(v, [2, 2]), (1, 3)),
}


@pytest.mark.parametrize(("product", "shape"), REPEATED.values(), ids=REPEATED)
def test_tiles_of_longer_axes_are_no_broadcasts(product, shape):
    program, other = fused(product, shape, shape)
    agree(program, other, *drawn(2, *shape))

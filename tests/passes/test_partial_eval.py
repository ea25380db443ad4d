"""Programs cut into what is known and what depends on v, by graphs alone: no model, no loss."""

from dataclasses import replace

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
    reached,
    recipes,
    run,
    seeds,
    spec,
    tangent,
    traced,
    types,
)

import hvp
from hvp.autodiff.program import leaves
from hvp.autodiff.tracing import trace
from hvp.passes.partial_eval import partially_evaluate
from hvp.passes.simplify import simplify

W = drawn(3, 4)

FUNCTIONS = {
    "entrywise": lambda x: tf.sin(x) * tf.exp(x),
    "a matrix product": lambda x: tf.tanh(tf.matmul(x, W)),
    "a product with itself": lambda x: tf.matmul(x, x, transpose_b=True),
    "linear": lambda x: 3 * tf.transpose(x),
    "the identity": lambda x: x,
    "a constant": lambda x: tf.ones([2]),
    "a branch by numbers": lambda x: tf.where(x > 0, x**2, -x),
    "a sum along an axis": lambda x: tf.nn.softmax(x) / tf.reduce_sum(x**2, 0),
    "several outputs of one": lambda x: tf.concat(tf.unstack(x, axis=1)[::2], 0) ** 2,
    "the largest": lambda x: tf.math.top_k(x**2, 2)[0],
    "a call": lambda x: tf.function(lambda y: tf.sin(y) * y)(tf.function(tf.tanh)(x)),
    "convolution and pooling": lambda x: tf.nn.max_pool2d(
        tf.nn.conv2d(tf.reshape(x, [1, 2, 3, 1]), drawn(2, 2, 1, 4), 1, "SAME") ** 2, 2, 1, "SAME"
    ),
}
PRODUCTS = {
    **{name: tangent(function) for name, function in FUNCTIONS.items()},
    **{f"curvature of {name}": curvature(FUNCTIONS[name]) for name in ("entrywise", "a call")},
    "quadratic in v": lambda v, x: v * tf.matmul(tf.matmul(v, x, transpose_b=True), x),
    "v alone": lambda v, x: tf.reverse(v, [0]),
    "v itself": lambda v, x: v,
    "several outputs": lambda v, x: {"a": v * tf.sin(x), "b": (v, None), "c": [v @ W]},
}
LINEAR = [name for name in PRODUCTS if name != "quadratic in v"]


def is_live(program):
    used = set(leaves(program.outputs)) | {n for node in program.nodes for n in node.inputs}
    given = program.captures.keys() | program.literals.keys()
    return given <= used and all(used & set(node.outputs) for node in program.nodes)


def obeys(program, v, *rest):
    """What every split must be; returns it."""
    parts = partially_evaluate(program)
    known, linear = parts.known, parts.linear
    assert known.inputs == program.inputs[1:]
    assert linear.inputs == (program.inputs[0], *known.outputs)
    for part in (known, linear):
        assert not part.unbound()
        assert is_live(part)
    dependent = reached(linear)
    assert all(dependent & set(node.inputs) for node in linear.nodes)
    assert not dependent & set(known.outputs)
    saved = run(known, *rest)
    for got, expected in zip(run(linear, v, *saved), run(program, v, *rest), strict=True):
        assert got.dtype == expected.dtype
        assert got.tobytes() == expected.tobytes()
    return parts


def is_linear(program, v1, v2, saved, a=0.7, b=-1.3):
    mixed = run(program, a * v1 + b * v2, *saved)
    first, second = run(program, v1, *saved), run(program, v2, *saved)
    for got, x, y in zip(mixed, first, second, strict=True):
        scale = max(np.abs(x).max(), np.abs(y).max(), 1e-3)
        assert np.abs(got - a * x - b * y).max() <= 1e-12 * scale


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_the_parts_together_are_the_program(product):
    program = trace(product, spec(*SHAPE), spec(*SHAPE))
    for whole in (program, simplify(program)):
        obeys(whole, *drawn(2, *SHAPE))


@pytest.mark.parametrize("name", LINEAR)
def test_the_linear_part_is_linear(name):
    program = simplify(trace(PRODUCTS[name], spec(*SHAPE), spec(*SHAPE)))
    parts = partially_evaluate(program)
    v1, v2, x = drawn(3, *SHAPE)
    is_linear(parts.linear, v1, v2, run(parts.known, x))


@pytest.mark.sweep
@few
@given(recipes, seeds)
def test_random_programs_are_split_right(recipe, seed):
    v1, v2, x = np.random.default_rng(seed).uniform(0.1, 1, (3, *SHAPE))
    program = traced(cooked(recipe))
    parts = obeys(simplify(program), v1, x)
    for got, expected in zip(run(simplify(program), v1, x), run(program, v1, x), strict=True):
        assert got.tobytes() == expected.tobytes()
    is_linear(parts.linear, v1, v2, run(parts.known, x))


def test_what_v_does_not_reach_runs_in_the_known_part():
    program = trace(lambda v, x: tf.sin(tf.exp(x)) * tf.cos(v), spec(3), spec(3))
    parts = partially_evaluate(program)
    assert types(parts.known) == ["Exp", "Sin"]
    assert types(parts.linear) == ["Cos", "Mul"]


def test_the_first_inputs_are_those_that_vary():
    program = trace(lambda u, v, x: u * tf.sin(x) + v * tf.cos(x) + tf.sin(v), *[spec(3)] * 3)
    parts = partially_evaluate(program, 2)
    assert parts.known.inputs == program.inputs[2:]
    assert parts.linear.inputs[:2] == program.inputs[:2]
    assert sorted(types(parts.known)) == ["Cos", "Sin"]
    u, v, x = drawn(3, 3)
    expected = run(program, u, v, x)[0].tobytes()
    assert run(parts.linear, u, v, *run(parts.known, x))[0].tobytes() == expected


def test_no_input_at_all_may_vary():
    program = trace(lambda x: tf.sin(x), spec(3))
    parts = partially_evaluate(program, 0)
    assert types(parts.known) == ["Sin"]
    assert types(parts.linear) == []


def test_inputs_that_the_linear_part_uses_pass_through_as_they_are():
    program = trace(lambda v, x, y: (v * x + v * tf.sin(y), y), *[spec(3)] * 3)
    parts = partially_evaluate(program)
    x, y = (tf.constant(drawn(3, seed=i)) for i in range(2))
    saved = parts.known.replay(x, y)
    assert sum(tensor is x for tensor in saved) == 1
    assert sum(tensor is y for tensor in saved) == 1
    assert len(saved) == 3


def test_an_input_that_only_the_known_part_uses_is_not_handed_over():
    program = trace(lambda v, x: v * tf.sin(x), spec(3), spec(3))
    parts = partially_evaluate(program)
    assert len(parts.known.outputs) == 1
    assert program.inputs[1] not in parts.known.outputs


def test_a_value_used_twice_is_handed_over_once():
    program = trace(lambda v, x: [v * (s := tf.sin(x)), v @ s, s], spec(3, 3), spec(3, 3))
    parts = partially_evaluate(program)
    assert types(parts.known) == ["Sin"]
    assert len(parts.known.outputs) == 1


def test_constants_and_captures_are_nobodys_to_hand_over():
    large = tf.constant(drawn(40, 40))
    program = trace(
        lambda v, x: large * tf.reduce_sum(2 * v * tf.sin(2 * x)) + drawn(40), spec(3), spec(3)
    )
    parts = partially_evaluate(program)
    handed = set(parts.known.outputs)
    assert not handed & (program.captures.keys() | program.literals.keys())
    obeys(program, *drawn(2, 3))


def test_outputs_may_be_inputs_constants_or_independent_of_v():
    captured = tf.constant(drawn(40, 40))

    def product(v, x):
        return [v, x, tf.sin(x), v * 2, tf.constant([7.0]), captured, v]

    program = trace(product, spec(3), spec(3))
    parts = obeys(program, *drawn(2, 3))
    assert types(parts.known) == ["Sin"]
    assert types(parts.linear) == ["Mul"]


def test_operations_that_nothing_needs_go_nowhere():
    program = trace(lambda v, x: (v * tf.sin(x), tf.exp(x), tf.tanh(v)), spec(3), spec(3))
    parts = partially_evaluate(replace(program, outputs=program.outputs[0]))
    assert types(parts.known) == ["Sin"]
    assert types(parts.linear) == ["Mul"]


def test_random_numbers_that_differ_each_time_are_refused():
    with pytest.raises(hvp.InputError, match="the stateful operation RandomUniform"):
        trace(lambda v, x: v * tf.random.uniform([3], dtype=tf.float64) * x, spec(3), spec(3))


def test_random_numbers_that_repeat_are_known():
    def product(v, x):
        return v * tf.random.stateless_uniform([3], [1, 2], dtype=tf.float64) * x

    parts = obeys(simplify(trace(product, spec(3), spec(3))), *drawn(2, 3))
    assert set(types(parts.linear)) == {"Mul"}
    assert not any("Random" in kind for kind in types(parts.linear))
    seeded = trace(
        lambda v, x, seed: v * tf.random.stateless_normal([3], seed, dtype=tf.float64) * x,
        spec(3),
        spec(3),
        tf.TensorSpec([2], tf.int32),
    )
    parts = obeys(simplify(seeded), *drawn(2, 3), np.array([1, 2], np.int32))
    assert any("Random" in kind for kind in types(parts.known))
    assert set(types(parts.linear)) == {"Mul"}


def test_a_dead_operation_on_v_needs_nothing_of_the_known_part():
    program = trace(lambda v, x: (v * tf.sin(x), v * tf.cos(x)), spec(3), spec(3))
    parts = partially_evaluate(replace(program, outputs=program.outputs[0]))
    assert types(parts.known) == ["Sin"]
    assert len(parts.known.outputs) == 1

"""Linear programs on several vectors at once against the same on each of them alone."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from support.programs import SHAPE, cooked, drawn, few, recipes, seeds, spec, traced, types

from hvp.autodiff.program import leaves
from hvp.autodiff.tracing import trace
from hvp.passes import batching
from hvp.passes.elementwise_fusion import fuse_elementwise
from hvp.passes.partial_eval import partially_evaluate
from hvp.passes.simplify import simplify

raw = tf.raw_ops
COUNTS = [1, 2, 5]


def blocks(shapes, count):
    return [drawn(*shape, count, seed=7) for shape in shapes]


def each_alone(program, tangents, known):
    single = [
        leaves(program.replay(*(tf.constant(t[..., k]) for t in tangents), *known))
        for k in range(tangents[0].shape[-1])
    ]
    return [np.stack(results, axis=-1) for results in zip(*single, strict=True)]


def agree(program, tangents, known, *, compiled=False):
    """All columns at once against each alone."""
    parts = partially_evaluate(program, len(tangents))
    saved = parts.known.replay(*map(tf.constant, known))
    expected = each_alone(parts.linear, tangents, saved)
    tensors = [tf.constant(t) for t in tangents]

    def replay():
        return batching.replay(parts.linear, tensors, saved)

    got = tf.function(replay, autograph=False)() if compiled else replay()
    for tensor, value in zip(got, expected, strict=True):
        assert tensor.shape == value.shape
        assert tensor.dtype == value.dtype
        # Sums in another order differ in the last bits.
        if value.size:
            assert np.abs(tensor.numpy() - value).max() <= 1e-13 * max(np.abs(value).max(), 1.0)


def at_once(function, *shapes, linear=1):
    """The program of a function of these shapes, after all columns at once, K = 1, 2 and 5, agree.

    So they must when it is folded, where that makes a difference.
    """
    program = trace(function, *(spec(*shape) for shape in shapes))
    folded = simplify(program)
    known = [drawn(*shape) for shape in shapes[linear:]]
    for each in [program] if types(folded) == types(program) else [program, folded]:
        for count in COUNTS:
            agree(each, blocks(shapes[:linear], count), known)
    return program


# --- matrix products ---


@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("position", [0, 1])
def test_a_matrix_product_in_all_transpositions(position, transpose_a, transpose_b):
    a, b = ((3, 2) if transpose_a else (2, 3)), ((4, 3) if transpose_b else (3, 4))
    flags = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    if position == 0:
        at_once(lambda v, w: tf.matmul(v, w, **flags), a, b)
    else:
        at_once(lambda v, w: tf.matmul(w, v, **flags), b, a)


BATCHES = {
    "alike": ((2,), (2,)),
    "two axes": ((2, 3), (2, 3)),
    "one for all": ((), (2,)),
    "all for one": ((2,), ()),
    "an axis of one": ((1,), (4,)),
    "an axis of one in the known": ((4,), (1,)),
    "both ways": ((2, 1), (1, 3)),
    "fewer axes": ((3,), (2, 3)),
    "more axes": ((2, 3), (3,)),
    "a batch of one": ((1,), (1,)),
}


@pytest.mark.parametrize("adjoint_y", [False, True])
@pytest.mark.parametrize("adjoint_x", [False, True])
@pytest.mark.parametrize(("linear", "known"), BATCHES.values(), ids=BATCHES)
def test_a_batch_of_matrix_products(linear, known, adjoint_x, adjoint_y):
    x, y = ((4, 2) if adjoint_x else (2, 4)), ((3, 4) if adjoint_y else (4, 3))
    flags = {"adj_x": adjoint_x, "adj_y": adjoint_y}
    program = at_once(
        lambda v, w: raw.BatchMatMulV2(x=v, y=w, **flags), (*linear, *x), (*known, *y)
    )
    assert types(program) == ["BatchMatMulV2"]
    at_once(lambda v, w: raw.BatchMatMulV2(x=w, y=v, **flags), (*linear, *y), (*known, *x))


def test_products_of_products():
    at_once(lambda v, a, b: tf.transpose(a @ (v @ b)) @ a, (3, 3), (3, 3), (3, 3))
    at_once(lambda v, a, b: tf.transpose(tf.transpose(v) @ a) @ b, (3, 2), (3, 3), (2, 4))
    at_once(lambda v, a: (a @ v) @ a + tf.transpose(v @ a), (3, 3), (3, 3))
    at_once(lambda v, a: tf.matmul(a @ v, a, transpose_a=True), (3, 5), (3, 3))


def test_a_product_of_two_linear_values_runs_column_by_column():
    at_once(lambda u, v: u @ v, (2, 3), (3, 4), linear=2)


def test_a_matrix_with_one_row_or_column():
    for v, w in [((1, 3), (3, 4)), ((2, 3), (3, 1)), ((1, 1), (1, 1)), ((5, 1), (1, 4))]:
        at_once(lambda v, w: v @ w, v, w)
        at_once(lambda v, w: w @ v, w, v)


# --- convolutions and pooling ---

GEOMETRIES = {
    "plain": {"strides": 1, "padding": "VALID"},
    "padded, strided": {"strides": 2, "padding": "SAME"},
    "dilated": {"strides": 1, "padding": "SAME", "dilations": 2},
    "padded by hand": {"strides": 1, "padding": [[0, 0], [1, 0], [0, 2], [0, 0]]},
    "oblong": {"strides": [1, 2], "padding": "SAME"},
}
IMAGE, FILTERS = (2, 5, 6, 3), (2, 3, 3, 4)


def conv(x, filters, geometry):
    return tf.nn.conv2d(x, filters, **geometry)


def conv_gradients(x, filters, seed, geometry):
    """Those that TensorFlow takes, which no gradient function of its own hides."""
    with tf.GradientTape() as tape:
        tape.watch([x, filters])
        y = conv(x, filters, geometry)
    return tape.gradient(y, [x, filters], output_gradients=seed)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_convolution_in_the_image_and_in_the_filters(geometry):
    program = at_once(lambda v, w: conv(v, w, geometry), IMAGE, FILTERS)
    assert types(program) == ["Conv2D"]
    at_once(lambda v, x: conv(x, v, geometry), FILTERS, IMAGE)


# TensorFlow has no gradient of a dilated or a grouped convolution on a CPU.
@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "dilated"])
def test_the_gradients_of_a_convolution_in_all_their_operands(name):
    geometry = GEOMETRIES[name]
    result = tuple(conv(tf.zeros(IMAGE), tf.zeros(FILTERS), geometry).shape)

    def to_image(seed, filters):
        return conv_gradients(tf.zeros(IMAGE, tf.float64), filters, seed, geometry)[0]

    def to_filters(seed, x):
        return conv_gradients(x, tf.zeros(FILTERS, tf.float64), seed, geometry)[1]

    program = at_once(to_image, result, FILTERS)
    assert "Conv2DBackpropInput" in types(program)
    at_once(lambda v, seed: to_image(seed, v), FILTERS, result)
    program = at_once(to_filters, result, IMAGE)
    assert "Conv2DBackpropFilter" in types(program)
    at_once(lambda v, seed: to_filters(seed, v), IMAGE, result)


def test_grouped_convolutions_are_not_interleaved():
    geometry = {"strides": 1, "padding": "SAME"}
    at_once(lambda v, w: conv(v, w, geometry), (2, 4, 4, 4), (2, 2, 2, 6))
    at_once(lambda v, x: conv(x, v, geometry), (2, 2, 2, 6), (2, 4, 4, 4))


def test_a_depthwise_convolution_has_no_rule():
    at_once(lambda v, w: tf.nn.depthwise_conv2d(v, w, [1, 1, 1, 1], "SAME"), IMAGE, (2, 2, 3, 2))
    at_once(lambda v, x: tf.nn.depthwise_conv2d(x, v, [1, 1, 1, 1], "SAME"), (2, 2, 3, 2), IMAGE)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size", [(2, 2), (3, 1)])
def test_average_pooling_and_its_gradient(size, padding):
    def pool(x):
        return tf.nn.avg_pool2d(x, 2, size, padding)

    result = tuple(pool(tf.zeros(IMAGE)).shape)

    def gradient(seed):
        x = tf.zeros(IMAGE, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = pool(x)
        return tape.gradient(y, x, output_gradients=seed)

    assert types(at_once(pool, IMAGE)) == ["AvgPool"]
    assert "AvgPoolGrad" in types(at_once(gradient, result))


def test_a_network_of_convolutions_keeps_the_columns_apart():
    geometry = {"strides": 1, "padding": "SAME"}

    def function(v, a, b):
        h = conv(conv(v, a, geometry) * 2, b, geometry)
        h = tf.nn.avg_pool2d(h, 2, 2, "VALID")
        return tf.reshape(h, [2, -1]) @ tf.ones([24, 2], tf.float64), tf.reduce_sum(h, [0, 1, 2])

    at_once(function, (2, 4, 6, 3), FILTERS, (2, 2, 4, 4))


# --- entrywise operations: ranks and broadcasting ---

RANKS = [(), (3,), (1,), (2, 3), (2, 1), (1, 3), (1, 1), (4, 2, 3), (4, 1, 1)]


@pytest.mark.parametrize("known", RANKS, ids=str)
@pytest.mark.parametrize("linear", RANKS, ids=str)
def test_entries_with_known_ones_of_any_rank(linear, known):
    def function(v, x):
        return v * x, x * v, v / (2 + x * x)

    at_once(function, linear, known)


@pytest.mark.parametrize("second", RANKS, ids=str)
@pytest.mark.parametrize("first", RANKS, ids=str)
def test_linear_entries_with_linear_ones_of_any_rank(first, second):
    def function(u, v):
        return u + v, u - v, tf.where(tf.reshape([True, False, True], [1, 3]), u, v)

    at_once(function, first, second, linear=2)


# Where columns stand after an operation: last, before rows, or in front.
PLACES = {
    "last": lambda v, w: v,
    "rows": lambda v, w: tf.matmul(w, v),
    "columns": lambda v, w: tf.matmul(v, w),
    "transposed": lambda v, w: tf.transpose(tf.matmul(w, tf.transpose(v))),
    "one by one": lambda v, w: tf.reverse(v, [0]),
    "summed": lambda v, w: tf.reduce_sum(v, 0) + tf.zeros([3, 1], v.dtype),
    "reshaped": lambda v, w: tf.reshape(tf.reshape(v, [9]), [3, 3]),
    "broadcast": lambda v, w: tf.broadcast_to(tf.reduce_sum(v, 1), [3, 3]),
}


@pytest.mark.parametrize("second", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("first", PLACES.values(), ids=PLACES)
def test_values_meet_wherever_their_columns_stand(first, second):
    def function(v, w):
        a, b = first(v, w), second(v, w)
        return tf.add_n([a, b, a * w]), -tf.reshape(a, [3, 1, 3]) + b, tf.where(w > 0, w * a, b)

    program = trace(function, spec(3, 3), spec(3, 3))
    for count in (1, 3):
        agree(program, blocks([(3, 3)], count), [drawn(3, 3)])


def test_a_zero_among_the_terms_broadcasts():
    def function(v, x):
        return raw.AddN(inputs=[v, x, v]), raw.AddN(inputs=[x, v])

    at_once(function, SHAPE, SHAPE)


def test_a_choice_between_values():
    where = {
        "both": lambda v, x: tf.where(x > 0, v, -v),
        "first": lambda v, x: tf.where(x > 0, v, tf.zeros([2, 3], v.dtype)),
        "second": lambda v, x: tf.where(x > 0, tf.zeros([], v.dtype), v),
        "old": lambda v, x: raw.Select(condition=x > 0, x=v, y=2 * v),
        "rows": lambda v, x: raw.Select(condition=x[:, 0] > 0, x=v, y=2 * v),
    }
    for function in where.values():
        at_once(function, SHAPE, SHAPE)


def test_other_precisions():
    at_once(lambda v: tf.cast(tf.cast(v, tf.float32) * 2, tf.float64) * 0 + v, SHAPE)


# --- sums, transpositions, shapes ---

AXES = [0, 1, 2, -1, -3, [0], [1, 2], [0, 2], [-1, 0], [0, 1, 2], []]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axes", AXES, ids=str)
def test_a_sum_over_any_axes(axes, keepdims):
    def total(v):
        return tf.reduce_sum(v, axes, keepdims=keepdims)

    assert types(at_once(total, (2, 3, 4))) == ["Sum"]
    at_once(lambda v, w: total(tf.matmul(w, v)), (2, 3, 4), (2, 5, 3))
    at_once(lambda v: total(tf.reverse(v, [0])), (2, 3, 4))


def test_a_sum_over_axes_that_are_not_known_beforehand():
    program = trace(
        lambda v, axes: raw.Sum(input=v, axis=axes), spec(2, 3), tf.TensorSpec([1], tf.int32)
    )
    agree(program, blocks([SHAPE], 3), [np.array([1], np.int32)])


ORDERS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_any_transposition(order):
    at_once(lambda v: tf.transpose(v, order), (2, 3, 4))
    at_once(lambda v, w: tf.transpose(tf.matmul(w, v), order), (2, 3, 4), (2, 5, 3))
    at_once(lambda v: tf.transpose(tf.reverse(v, [1]), order), (2, 3, 4))
    at_once(lambda v, w: tf.transpose(tf.transpose(v, order), order) * 2, (2, 3, 4), ())


def test_transpositions_of_vectors_and_numbers():
    at_once(lambda v: raw.Transpose(x=v, perm=[0]) * 2, (3,))
    at_once(lambda v: raw.Transpose(x=v, perm=np.zeros(0, np.int32)) * 2, ())


RESHAPES = [
    ((2, 3, 4), (24,)),
    ((2, 3, 4), (6, 4)),
    ((2, 3, 4), (2, 12)),
    ((2, 3, 4), (4, 6)),
    ((2, 3, 4), (8, 3)),
    ((2, 3, 4), (2, 1, 3, 1, 4, 1)),
    ((24,), (2, 3, 4)),
    ((1, 3), (3,)),
    ((3, 1), (1, 3)),
    ((1, 1, 3), (3, 1, 1)),
    ((1,), ()),
    ((), (1, 1)),
    ((1, 1), (1,)),
    ((0, 3), (3, 0)),
]


@pytest.mark.parametrize(("before", "after"), RESHAPES, ids=str)
def test_any_reshape(before, after):
    at_once(lambda v: tf.reshape(v, after), before)
    at_once(lambda v: tf.reshape(tf.transpose(v * 2), after), before)
    if len(before) > 1 and before[0]:
        matrices = [*before[:-2], 5, before[-2]]
        wide = [*before[:-2], before[-2], 5]
        at_once(
            lambda v, a, b: tf.reshape(tf.matmul(b, tf.matmul(a, v)), after), before, matrices, wide
        )


def test_axes_of_one_come_and_go():
    at_once(lambda v: tf.expand_dims(v, 0), SHAPE)
    at_once(lambda v: tf.expand_dims(v, -1), SHAPE)
    at_once(lambda v: tf.squeeze(v), (1, 2, 1, 3, 1))
    at_once(lambda v: tf.squeeze(v, [0]), (1, 2, 1))
    at_once(lambda v, w: tf.expand_dims(tf.squeeze(w @ v, 0), 1), (3, 4), (1, 3))


BROADCASTS = [
    ((3,), (2, 3)),
    ((1, 3), (2, 3)),
    ((2, 1), (2, 3)),
    ((), (2, 3)),
    ((1,), (4, 2, 3)),
    ((2, 3), (4, 2, 3)),
    ((2, 1, 1), (5, 2, 3, 4)),
]


@pytest.mark.parametrize(("before", "after"), BROADCASTS, ids=str)
def test_any_broadcast(before, after):
    assert types(at_once(lambda v: raw.BroadcastTo(input=v, shape=after), before))[-1:] == [
        "BroadcastTo"
    ]
    at_once(
        lambda v: tf.broadcast_to(tf.identity(tf.reverse(v, range(len(before)))), after), before
    )


def test_a_bias_and_its_gradient():
    program = at_once(lambda v: raw.BiasAddGrad(out_backprop=v), (2, 4, 3))
    assert types(program) == ["BiasAddGrad"]
    at_once(lambda v, w: raw.BiasAddGrad(out_backprop=w @ v), (2, 3), (4, 2))
    at_once(lambda u, v: raw.BiasAdd(value=u, bias=v), (2, 3), (3,), linear=2)


WITHOUT_RULES = {
    "cumulative sums": lambda v: tf.cumsum(v, 1),
    "a slice": lambda v: v[:, 1:],
    "rows": lambda v: tf.gather(v, [1, 0, 1]),
    "a joint": lambda v: tf.concat([v, 2 * v], 1),
    "a part of several": lambda v: tf.split(v, [1, 2], axis=1)[1],
    "parts of several": lambda v: tf.unstack(v, axis=1),
    "padding": lambda v: tf.pad(v, [[1, 0], [0, 2]]),
    "repeated": lambda v: tf.tile(v, [2, 1]),
    "an equation": lambda v: tf.einsum("ij,kj->ik", v, drawn(4, 3)),
    "a gradient rule": lambda v: raw.TanhGrad(y=drawn(2, 3), dy=v),
}


@pytest.mark.parametrize("function", WITHOUT_RULES.values(), ids=WITHOUT_RULES)
def test_an_operation_without_a_rule_runs_column_by_column(function):
    at_once(function, SHAPE)
    at_once(lambda v, w: leaves(function(w @ v))[-1] * 2, SHAPE, (2, 2))


def test_outputs_that_do_not_depend_on_the_vectors_are_the_same_for_all():
    def function(v, x):
        return [v, x, tf.constant([1.0, 2.0], tf.float64), v @ x]

    at_once(function, SHAPE, (3, 2))


def test_columns_of_no_use_are_no_trouble():
    at_once(lambda u, v: 2 * v, (2,), (3,), linear=2)
    at_once(lambda v, x: tf.sin(x), (2,), (3,))


# --- whole products ---


@pytest.mark.sweep
@few
@given(recipes, seeds)
def test_random_programs_multiply_columns_at_once_as_alone(recipe, seed):
    program = simplify(traced(cooked(recipe)))
    x = np.random.default_rng(seed).uniform(0.1, 1, SHAPE)
    agree(program, blocks([SHAPE], 3), [x])
    agree(simplify(fuse_elementwise(program, 1)), blocks([SHAPE], 3), [x], compiled=True)


def test_dense_products_run_at_once():
    """A product of K columns takes as many matrix products as one of one column."""

    def function(v, a, b):
        return tf.matmul(a, (tf.matmul(v, b) * tf.transpose(a)), transpose_a=True)

    program = trace(function, *[spec(3, 3)] * 3)

    def count(columns_at_once):
        traced_block = trace(
            lambda block, *known: batching.replay(program, [block], known),
            spec(3, 3, columns_at_once),
            *[spec(3, 3)] * 2,
        )
        return types(traced_block).count("MatMul")

    assert count(5) == count(1) == 2

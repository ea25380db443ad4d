"""Constants, zeros and idle operations are folded away, and the values stay."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from support.operations import OPERATIONS
from support.programs import (
    SHAPE,
    cooked,
    drawn,
    few,
    heavy,
    recipes,
    run,
    seeds,
    spec,
    traced,
    types,
)

from hvp.autodiff import curvature
from hvp.autodiff.op_types import JOINTLY
from hvp.autodiff.program import is_uniform, leaves, literal
from hvp.autodiff.tracing import trace
from hvp.passes.partial_eval import partially_evaluate
from hvp.passes.simplify import RESHAPES, VANISHING, simplify

raw = tf.raw_ops

# --- every operation of the tables ---

ROWS = {
    **{f"{kind} at {i}": (kind, [i]) for kind, places in VANISHING.items() for i in places},
    **{
        f"{kind} at all": (kind, [*range(len(OPERATIONS[kind][1]))[where]])
        for kind, where in JOINTLY.items()
    },
}


def arguments(kind, zeros=()):
    inputs = OPERATIONS[kind][1]
    return [np.zeros_like(x) if i in zeros else x for i, x in enumerate(inputs)]


def values(kind, inputs):
    results = OPERATIONS[kind][0](*map(tf.constant, inputs))
    return [tensor.numpy() for tensor in leaves(results)]


def floats(inputs):
    return [i for i, x in enumerate(inputs) if x.dtype != np.int32]


def traced_row(kind, literal):
    """The program of the operation with some inputs written into it."""
    inputs = arguments(kind, literal)
    open_ = [i for i in floats(inputs) if i not in literal]

    def function(*given):
        taken = dict(zip(open_, given, strict=True))
        return OPERATIONS[kind][0](*(taken.get(i, tf.constant(x)) for i, x in enumerate(inputs)))

    specs = [tf.TensorSpec(inputs[i].shape, inputs[i].dtype) for i in open_]
    return trace(function, *specs), [inputs[i] for i in open_]


@pytest.mark.parametrize(("kind", "places"), ROWS.values(), ids=ROWS)
def test_tensorflow_gives_zero_where_the_tables_say_so(kind, places):
    assert all(value.any() for value in values(kind, arguments(kind)))
    assert not any(value.any() for value in values(kind, arguments(kind, places)))


@pytest.mark.parametrize("kind", JOINTLY)
def test_what_is_linear_in_all_takes_more_than_one_zero(kind):
    places = ROWS[f"{kind} at all"][1]
    assert len(places) > 1
    for place in places:
        assert any(value.any() for value in values(kind, arguments(kind, [place])))


@pytest.mark.parametrize(("kind", "places"), ROWS.values(), ids=ROWS)
def test_zeros_cost_nothing(kind, places):
    program, given = traced_row(kind, places)
    folded = simplify(program)
    assert types(program) == [kind]
    assert folded.nodes == ()
    assert folded.literals.keys() == set(leaves(folded.outputs))
    for got, expected in zip(run(folded, *given), run(program, *given), strict=True):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        assert not got.any()


@pytest.mark.parametrize("kind", OPERATIONS)
def test_operations_without_zeros_are_kept_and_give_the_same(kind):
    program, given = traced_row(kind, [])
    folded = simplify(program)
    assert len(folded.nodes) >= 1
    for got, replayed, direct in zip(
        run(folded, *given), run(program, *given), values(kind, arguments(kind)), strict=True
    ):
        assert got.tobytes() == replayed.tobytes()
        assert np.allclose(got, direct, rtol=1e-6 if got.dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("kind", JOINTLY)
def test_one_zero_of_several_stays(kind):
    for place in ROWS[f"{kind} at all"][1]:
        program, given = traced_row(kind, [place])
        for got, expected in zip(run(simplify(program), *given), run(program, *given), strict=True):
            assert got.tobytes() == expected.tobytes()


# --- what is known from shapes, and what does nothing ---


def idle(function, shape=SHAPE):
    program = simplify(trace(function, spec(*shape)))
    return program.nodes == () and program.outputs == program.inputs[0]


IDLE = {
    "reshape": lambda x: raw.Reshape(tensor=x, shape=[2, -1]),
    "broadcast": lambda x: raw.BroadcastTo(input=x, shape=[2, 3]),
    "a whole slice": lambda x: raw.Slice(input=x, begin=[0, 0], size=[-1, 3]),
    "tile once": lambda x: raw.Tile(input=x, multiples=[1, 1]),
    "transpose in order": lambda x: raw.Transpose(x=x, perm=[0, 1]),
    "sum over no axes": lambda x: raw.Sum(input=x, axis=np.zeros(0, np.int32)),
    "mean over no axes": lambda x: raw.Mean(input=x, axis=np.zeros(0, np.int32)),
    "minus zero": lambda x: raw.Sub(x=x, y=tf.zeros([2, 3], x.dtype)),
    "minus a zero that broadcasts": lambda x: x - tf.zeros([3], x.dtype),
    "plus zero": lambda x: raw.AddV2(x=x, y=tf.zeros([], x.dtype)),
    "zero plus": lambda x: raw.AddV2(x=tf.zeros([1, 3], x.dtype), y=x),
    "plus zero, the old": lambda x: raw.Add(x=x, y=tf.zeros([3], x.dtype)),
    "times one": lambda x: x * tf.ones([2, 1], x.dtype),
    "one times": lambda x: tf.ones([2, 3], x.dtype) * x,
    "divided by one": lambda x: x / tf.ones([3], x.dtype),
    "a sum of one and zeros": lambda x: tf.add_n([tf.zeros_like(x), x, tf.zeros([2, 3], x.dtype)]),
    "a sum of one": lambda x: raw.AddN(inputs=[x]),
    "a product of ones and zeros": lambda x: x * tf.ones_like(x) + x * tf.zeros_like(x),
    "there and back": lambda x: tf.reshape(tf.reshape(x, [2, 3]), tf.shape(x)),
}


@pytest.mark.parametrize("function", IDLE.values(), ids=IDLE)
def test_what_does_nothing_is_not_done(function):
    assert idle(function)


NOT_IDLE = {
    "zero minus": lambda x: tf.zeros([2, 3], x.dtype) - x,
    "one divided by": lambda x: tf.ones([2, 3], x.dtype) / x,
    "times minus one": lambda x: x * -1.0,
    "plus a larger zero": lambda x: x + tf.zeros([4, 2, 3], x.dtype),
    "a larger zero plus": lambda x: tf.zeros([4, 2, 3], x.dtype) + x,
    "times a larger one": lambda x: x * tf.ones([4, 2, 3], x.dtype),
    "divided by a larger one": lambda x: x / tf.ones([4, 2, 3], x.dtype),
    "transpose": lambda x: tf.transpose(tf.reshape(x, [1, 2, 3]), [0, 2, 1]),
    "a square transpose": lambda x: tf.transpose(x[:, :2]),
    "sum over an axis": lambda x: tf.reduce_sum(x, 0),
    "sum over an axis of one": lambda x: tf.reduce_sum(x[:1], 0),
    "mean over an axis": lambda x: tf.reduce_mean(x, 1, keepdims=True),
    "reverse": lambda x: tf.reverse(x, [0]),
    "tile": lambda x: tf.tile(x, [1, 2]),
    "a slice": lambda x: tf.slice(x, [1, 0], [1, 3]),
    "reshape": lambda x: tf.reshape(x, [3, 2]),
    "squeeze": lambda x: tf.squeeze(x[:1]),
    "a strided slice to the same shape": lambda x: x[::-1],
    "ones of a part": lambda x: tf.concat([tf.ones([2, 3], x.dtype), x], 0) * x[0],
    "zeros and ones": lambda x: x + tf.constant([0.0, 0.0, 1.0], x.dtype),
    "select": lambda x: tf.where([True, False, True], x, tf.zeros([3], x.dtype)),
    "a product by halves zero": lambda x: x * tf.constant([0.0, 0.0, 1.0], x.dtype),
    "more than once the same": lambda x: tf.add_n([x, x, tf.zeros_like(x)]),
}


@pytest.mark.parametrize("function", NOT_IDLE.values(), ids=NOT_IDLE)
def test_what_does_something_is_done(function):
    program = trace(function, spec(*SHAPE))
    x = drawn(*SHAPE)
    assert run(simplify(program), x)[0].tobytes() == function(tf.constant(x)).numpy().tobytes()
    assert not idle(function)


MEASURES = {
    "shape": (lambda x: raw.Shape(input=x), [2, 3]),
    "shape, long": (lambda x: raw.Shape(input=x, out_type=tf.int64), [2, 3]),
    "shapes": (lambda x: raw.ShapeN(input=[x, tf.reshape(x, [6])])[1], [6]),
    "size": (lambda x: raw.Size(input=x), 6),
    "rank": (lambda x: raw.Rank(input=x), 2),
    "arithmetic": (lambda x: tf.range(tf.shape(x)[1]) * tf.rank(x), [0, 2, 4]),
    "zeros": (lambda x: raw.ZerosLike(x=tf.sin(x)), np.zeros(SHAPE)),
    "ones": (lambda x: raw.OnesLike(x=tf.sin(x)), np.ones(SHAPE)),
    "filled": (lambda x: tf.fill(tf.shape(x), 7.0), np.full(SHAPE, 7.0)),
    "zero times": (lambda x: tf.sin(x) * 0, np.zeros(SHAPE)),
}


@pytest.mark.parametrize(("function", "expected"), MEASURES.values(), ids=MEASURES)
def test_what_follows_from_shapes_is_a_literal(function, expected):
    program = trace(function, spec(*SHAPE))
    folded = simplify(program)
    assert folded.nodes == ()
    (got,) = run(folded, drawn(*SHAPE))
    assert got.tolist() == np.asarray(expected).tolist()
    assert got.dtype == run(program, drawn(*SHAPE))[0].dtype


def test_operations_on_constants_are_done_beforehand():
    program = simplify(
        trace(lambda x: x * tf.cumsum(tf.sin(tf.constant([1.0, 2, 3], x.dtype))), spec(3))
    )
    assert types(program) == ["Mul"]
    assert np.allclose(run(program, np.ones(3))[0], np.cumsum(np.sin([1.0, 2, 3])), rtol=1e-15)


def test_large_results_of_constants_are_made_when_it_runs_and_large_zeros_take_no_memory():
    def function(x):
        large = tf.sin(tf.fill([300, 300], tf.constant(2.0, x.dtype)))
        zeros = tf.transpose(tf.reshape(tf.zeros([90_000, 1], x.dtype), [300, 300]))
        return x * large, zeros * x

    program = simplify(trace(function, spec(1)))
    assert "Sin" in types(program)
    zeros = program.literals[program.outputs[1]]
    assert zeros.shape == (300, 300)
    assert not any(zeros.strides)
    assert run(program, np.ones(1))[0][0, 0] == np.sin(2.0)


def test_zeros_of_both_signs_are_no_number_throughout():
    zeros = np.array([0.0, -0.0])
    assert not is_uniform(literal(zeros))
    assert is_uniform(literal(np.full(3, -0.0)))
    assert np.signbit(literal(zeros)).tolist() == [False, True]


def test_unknown_shapes_become_known():
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float64)])
    def inner(x):
        flat = tf.reshape(x, [-1])
        return tf.tile(flat, [2]) * tf.ones(tf.shape(flat) * 2, x.dtype) + tf.zeros_like(x[0, 0])

    program = trace(lambda x: inner(tf.sin(x)), spec(*SHAPE))
    folded = simplify(program)
    assert not program.specs[program.outputs].shape.is_fully_defined()
    assert folded.specs[folded.outputs].shape == [12]
    assert types(folded) == ["Sin", "Reshape", "Tile"]
    x = drawn(*SHAPE)
    assert run(folded, x)[0].tobytes() == run(program, x)[0].tobytes()


def test_shapes_become_known_by_an_operations_own_inputs_and_constants():
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float64)])
    def inner(x):
        return tf.reshape(x, [2, -1]), tf.reshape(x, [-1, 3]), tf.concat([x, x], 0)

    folded = simplify(trace(lambda x, y: [*inner(x), *inner(y)], spec(6), spec(12)))
    shapes = [tuple(folded.specs[n].shape) for n in tf.nest.flatten(folded.outputs)]
    assert shapes == [(2, 3), (2, 3), (12,), (2, 6), (4, 3), (24,)]


def test_shapes_that_stay_unknown_do_no_harm():
    program = trace(lambda x: tf.boolean_mask(x, x > 0) * 0 + 1, spec(*SHAPE))
    x = drawn(*SHAPE)
    assert run(simplify(program), x)[0].tobytes() == run(program, x)[0].tobytes()


def test_zero_times_infinity_is_zero():
    program = trace(lambda x: (x * tf.zeros_like(x), x @ tf.zeros([2, 2], x.dtype)), spec(2, 2))
    x = np.full((2, 2), np.inf)
    assert all(np.isnan(value).all() for value in run(program, x))
    assert all((value == 0).all() for value in run(simplify(program), x))


def test_folding_twice_changes_nothing_more():
    program = simplify(traced(lambda x: tf.nn.softmax(x) * tf.reduce_mean(x, 0)))
    assert types(simplify(program)) == types(program)


# --- the zeros of differentiation ---


def idles(program):
    """Operations that are zero, constant or without effect."""
    literals, shape = program.literals, lambda n: program.specs[n].shape
    for node in program.nodes:
        kind, inputs = node.op.type, node.inputs
        at = VANISHING.get(kind, ())
        zero = [n in literals and not literals[n].any() for n in inputs]
        if any(zero[i] for i in at) or (kind == "AddN" and any(zero)):
            yield str(node)
        if literals.keys() >= set(inputs) and "Random" not in kind:
            yield str(node)
        if kind in RESHAPES and shape(inputs[0]) == shape(node.outputs[0]):
            yield str(node)


@pytest.mark.sweep
@few
@given(recipes, seeds)
def test_random_programs_keep_their_values_and_lose_their_idle_operations(recipe, seed):
    v, x = np.random.default_rng(seed).uniform(0.1, 1, (2, *SHAPE))
    program = traced(cooked(recipe))
    folded = simplify(program)
    assert run(folded, v, x)[0].tobytes() == run(program, v, x)[0].tobytes()
    assert list(idles(folded)) == []


def test_an_input_without_a_tangent_costs_no_product():
    def product(v, x, w):
        with tf.autodiff.ForwardAccumulator(x, v) as forward:
            y = tf.tanh(tf.matmul(tf.matmul(x, w), w))
        return forward.jvp(y)

    program = trace(product, spec(3, 3), spec(3, 3), spec(3, 3))
    folded = simplify(program)
    # The values take two products, and so do their tangents; forward mode also multiplies the
    # zeros that w has for a tangent.
    assert heavy(program) == 6
    assert heavy(folded) == 4
    assert heavy(partially_evaluate(folded).linear) == 2


def dense_loss(weights):
    h = tf.constant(drawn(5, 4))
    for w in weights[:-1]:
        h = tf.tanh(tf.matmul(h, w))
    return tf.reduce_sum(tf.exp(tf.matmul(h, weights[-1])))


def conv_loss(weights):
    first, second, kernel = weights
    h = tf.constant(drawn(2, 8, 8, 1))
    h = tf.nn.avg_pool2d(tf.tanh(tf.nn.conv2d(h, first, 1, "SAME")), 2, 2, "VALID")
    h = tf.tanh(tf.nn.conv2d(h, second, 1, "VALID"))
    return tf.reduce_sum(tf.exp(tf.matmul(tf.reshape(h, [2, -1]), kernel)))


NETS = {
    "dense, 2 layers": (dense_loss, [(4, 6), (6, 3)]),
    "dense, 4 layers": (dense_loss, [(4, 6), (6, 6), (6, 5), (5, 3)]),
    "convolutions": (conv_loss, [(3, 3, 1, 2), (2, 2, 2, 3), (27, 3)]),
}
ORDERS = [curvature.forward_over_reverse, curvature.reverse_over_reverse]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.__name__)
@pytest.mark.parametrize(("loss", "shapes"), NETS.values(), ids=NETS)
def test_a_hessian_takes_the_products_that_it_must_in_either_order(loss, shapes, order):
    weights = [tf.constant(0.3 * drawn(*shape)) for shape in shapes]

    def product(tangents):
        return order(loss, [tf.identity(w) for w in weights], tangents)

    program = trace(product, [spec(*shape) for shape in shapes])
    folded = simplify(program)
    count = len(shapes)
    # Each layer but the first: V h, W ḣ, δ Vᵀ, δ̇ Wᵀ, hᵀδ̇, ḣᵀδ; the first: V h and hᵀδ̇.
    assert heavy(partially_evaluate(folded, count).linear) == 6 * count - 4
    vectors = [drawn(*shape, seed=1) for shape in shapes]
    for got, expected in zip(run(folded, *vectors), run(program, *vectors), strict=True):
        assert got.tobytes() == expected.tobytes()


def test_sums_over_no_axis_are_dropped_where_shapes_are_known_late():
    """Forward mode traces an operation anew without shapes once it has seen enough of them."""

    def function(x, shape):
        axes = tf.raw_ops.BroadcastGradientArgs(s0=shape, s1=tf.shape(x))
        return tf.reduce_sum(x, axes[0]) * 2

    @tf.function(reduce_retracing=True)
    def inner(x):
        return function(x, tf.shape(x))

    for shape in ((2,), (3,), (2, 2)):
        inner(tf.ones(shape, tf.float64))
    program = trace(inner, tf.TensorSpec([2, 3], tf.float64))
    assert [node.op.type for node in simplify(program).nodes] == ["Mul"]

"""Forward mode against differences, and against TensorFlow's own, with which it shares no rule."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from support.operations import OPERATIONS, without_rows
from support.programs import SHAPE, cooked, drawn, few, heavy, recipes, seeds, spec, tangent, types

from hvp.autodiff import forward_mode
from hvp.autodiff.op_types import OP_TYPES, op_type
from hvp.autodiff.tracing import trace

raw = tf.raw_ops


def push(function, inputs, tangents):
    """What forward mode makes of a function of tensors, None where it does not move."""

    def pushed(inputs, tangents):
        results = tf.nest.flatten(function(*inputs))
        places = [i for i, t in enumerate(tangents) if t is not None]
        return forward_mode.push(
            results, [inputs[i] for i in places], [tangents[i] for i in places]
        )

    return tf.function(pushed, autograph=False)([*map(tf.constant, inputs)], tangents)


def difference(function, inputs, tangents, step):
    """(f(x + εt) - f(x - εt)) / 2ε."""

    def values(sign):
        moved = [
            x if t is None else x + np.asarray(sign * step * t, x.dtype)
            for x, t in zip(inputs, tangents, strict=True)
        ]
        return [y.numpy() for y in tf.nest.flatten(function(*map(tf.constant, moved)))]

    return [(a - b) / (2 * step) for a, b in zip(values(1), values(-1), strict=True)]


def assert_moves(function, inputs, places):
    """Within 1e-8 of differences in float64, and 1e-3 in float32, of the largest entry."""
    tangents = [
        drawn(*x.shape, seed=7).astype(x.dtype) if i in places else None
        for i, x in enumerate(inputs)
    ]
    found = push(function, inputs, tangents)
    is_single = tf.float32 in {t.dtype for t in found if t is not None}
    step, bound = (1e-2, 1e-3) if is_single else (1e-5, 1e-8)
    expected = difference(function, inputs, tangents, step)
    for got, value in zip(found, expected, strict=True):
        if got is None:
            assert not value.any()
        else:
            assert np.abs(got - value).max() <= bound * max(np.abs(value).max(), 1)


def floats(inputs):
    return [i for i, x in enumerate(inputs) if x.dtype in (np.float32, np.float64)]


def moving():
    """Operations and the inputs to move: each one, and all together."""
    for kind, (_, inputs) in OPERATIONS.items():
        if "MaxPool" in kind and "Grad" in kind:
            yield kind, [2]  # the others are to be what pooling takes and gives
        elif kind not in ("SoftsignGrad", "StopGradient"):
            places = floats(inputs)
            yield from [(kind, [i]) for i in places]
            if len(places) > 1:
                yield kind, places


@pytest.mark.parametrize(("kind", "places"), list(moving()), ids=str)
def test_an_operation_moves_with_its_inputs(kind, places):
    assert_moves(*OPERATIONS[kind], places)


@pytest.mark.parametrize(("kind", "places"), list(moving()), ids=str)
def test_an_operation_without_a_row_is_differentiated_or_refused(kind, places):
    # TensorFlow has no gradient for it, or none for its gradient.
    is_refused = op_type(kind).without_gradient or op_type(f"{kind}Grad").without_gradient
    refusal = pytest.raises(LookupError) if is_refused else contextlib.nullcontext()
    with without_rows(kind), refusal:
        assert_moves(*OPERATIONS[kind], places)


@pytest.mark.parametrize(
    ("kind", "place"), [(kind, i) for kind, row in OP_TYPES.items() for i in row.linear_in], ids=str
)
def test_an_operation_is_its_own_derivative_where_it_is_linear(kind, place):
    function, inputs = OPERATIONS[kind]

    def product(t):
        held = [*map(tf.constant, inputs)]
        return forward_mode.push(tf.nest.flatten(function(*held)), [held[place]], [t])

    def replayed(t):
        return trace(lambda t: function(*inputs[:place], t, *inputs[place + 1 :]), t).replay(t)

    spec = tf.TensorSpec(inputs[place].shape, inputs[place].dtype)
    assert types(trace(product, spec)) == types(trace(replayed, spec))


LABELS = np.array([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
NONLINEAR = {
    "tanh": (tf.tanh, [drawn(2, 3)]),
    "softmax": (tf.nn.softmax, [drawn(2, 3)]),
    "log softmax": (tf.nn.log_softmax, [drawn(2, 3)]),
    "logsumexp": (lambda x: tf.reduce_logsumexp(x, -1), [drawn(2, 3)]),
    "softmax cross-entropy, value and slope": (
        lambda x: raw.SoftmaxCrossEntropyWithLogits(features=x, labels=LABELS),
        [drawn(2, 3)],
    ),
    "sparse cross-entropy, value and slope": (
        lambda x: raw.SparseSoftmaxCrossEntropyWithLogits(features=x, labels=[2, 0]),
        [drawn(2, 3)],
    ),
    "power": (tf.pow, [np.abs(drawn(2, 3)) + 0.5, drawn(2, 3, seed=1)]),
    "quotient": (tf.divide, [drawn(2, 3), np.abs(drawn(3)) + 0.5]),
    "maximum": (tf.maximum, [drawn(2, 3), drawn(2, 3, seed=1)]),
    "product": (tf.reduce_prod, [drawn(2, 3)]),
    "largest": (lambda x: tf.math.top_k(x, 2), [drawn(2, 3)]),
    "norm": (lambda x: tf.nn.l2_normalize(x, -1), [drawn(2, 3)]),
    "a value twice": (lambda x: tf.matmul(x, tf.sin(x), transpose_b=True), [drawn(2, 3)]),
    "a value over itself": (lambda x: [x / x, x / tf.sin(x)], [drawn(2, 3)]),
    "a value to itself": (lambda x: tf.pow(x, x), [np.abs(drawn(2, 3)) + 0.5]),
    "a value and itself": (lambda x: [x, x * x], [drawn(2, 3)]),
    "spectrum": (lambda x: tf.abs(tf.signal.rfft(x)), [drawn(2, 8)]),
    "rounded": (lambda x: x + tf.round(x), [drawn(2, 3)]),
}


@pytest.mark.parametrize("name", NONLINEAR)
def test_functions_move_with_their_inputs(name):
    function, inputs = NONLINEAR[name]
    for places in [[i] for i in range(len(inputs))] + [list(range(len(inputs)))]:
        assert_moves(function, inputs, places)


@pytest.mark.sweep
@few
@given(recipes, seeds)
def test_random_programs_move_as_tensorflow_says(recipe, seed):
    v, x = np.random.default_rng(seed).uniform(0.1, 1, (2, *SHAPE))
    (got,) = push(cooked(recipe), [x], [tf.constant(v)])
    expected = tf.function(tangent(cooked(recipe)), autograph=False)(tf.constant(v), tf.constant(x))
    assert np.abs(got - expected).max() <= 1e-12 * np.abs(expected).max()


def test_what_does_not_move_costs_nothing():
    def product(v, x, w):
        y = tf.tanh(tf.matmul(tf.matmul(x, w), w))
        return forward_mode.push([y, tf.matmul(w, w), tf.stop_gradient(y)], [x], [v])

    program = trace(product, spec(3, 3), spec(3, 3), spec(3, 3))
    assert heavy(program) == 4
    moved, *still = program.outputs
    assert moved is not None
    assert still == [None, None]


def test_a_sum_of_what_moves_and_what_does_not_is_no_sum():
    def product(v, x):
        y = tf.constant(drawn(2, 3))
        sums = [x + y, y + x, x - y, y - x, tf.add_n([y, x, y]), x[0] + y]
        return forward_mode.push(sums, [x], [v])

    program = trace(product, spec(2, 3), spec(2, 3))
    assert sorted(types(program)) == ["BroadcastTo", "Neg", "StridedSlice"]


def test_loops_and_what_has_no_gradient_are_refused():
    def loop(x):
        return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * y), [0, x])[1]

    with pytest.raises(NotImplementedError, match="the loop, branch or list"):
        push(loop, [drawn(3)], [tf.constant(drawn(3))])
    with pytest.raises(LookupError, match="IgammaGradA"):
        push(
            lambda a, x: tf.raw_ops.IgammaGradA(a=a, x=x),
            [drawn(3) ** 2] * 2,
            [None, tf.constant(drawn(3))],
        )

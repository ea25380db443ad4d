"""Traced functions as flat programs: what is replayed, what is inlined, what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import examples, sequential

import hvp
from hvp.autodiff import precision
from hvp.autodiff.tracing import trace

layers = keras.layers
SPEC = tf.TensorSpec([6], tf.float64)
X = np.linspace(0.1, 0.9, 6)


def image(x):
    return tf.reshape(tf.tile(x, [8]), [1, 4, 4, 3])


FUNCTIONS = {
    "a list of inputs": lambda x: tf.concat([x, x**2], 0) + tf.add_n([tf.tile(x, [2])] * 3),
    "stack": lambda x: tf.stack([x, 2 * x], axis=1),
    "several outputs": lambda x: tf.split(x, [1, 2, 3])[1] * tf.unstack(x)[4],
    "one output of several": lambda x: tf.math.top_k(x, 3)[0],
    "renamed arguments": lambda x: tf.expand_dims(x, 1) * tf.squeeze(x[None], 0),
    "a slice": lambda x: x[1:5:2] + tf.reverse(x, [0])[:2],
    "a list of numbers and a string": lambda x: tf.nn.max_pool2d(image(x), 3, 2, "SAME"),
    "padding": lambda x: tf.nn.conv2d(
        image(x), tf.ones([2, 2, 3, 1], x.dtype), 1, [[0, 0], [1, 0], [0, 1], [0, 0]]
    ),
    "a dtype": lambda x: tf.cast(tf.cast(x * 10, tf.int32), tf.float64),
    "a boolean": lambda x: tf.cumsum(x, exclusive=True, reverse=True),
    "an equation": lambda x: tf.einsum("i,j->ij", x, x),
    "a shape": lambda x: tf.ensure_shape(x, [6]) * 2,
    "an unknown shape": lambda x: tf.boolean_mask(x, x > 0.4),
    "no input": lambda x: tf.range(3.0) + tf.zeros([3]),
    "the input itself": lambda x: x,
    "integers": lambda x: tf.one_hot(tf.argmax(x), 6),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_replay_computes_what_the_function_does(function):
    program = trace(function, SPEC)
    for x in (X, X[::-1] ** 2):
        expected = function(tf.constant(x)).numpy()
        for replay in (program.replay, tf.function(program.replay, autograph=False)):
            got = replay(tf.constant(x)).numpy()
            assert got.dtype == expected.dtype
            assert np.allclose(got, expected, rtol=1e-15, atol=0)


def test_the_nest_of_outputs_is_kept():
    program = trace(lambda x: {"a": (x, None), "b": [2 * x]}, SPEC)
    result = program.replay(tf.constant(X))
    assert result["a"][1] is None
    assert (result["a"][0].numpy() == X).all()
    assert (result["b"][0].numpy() == 2 * X).all()


def test_nested_calls_are_inlined_and_a_body_called_twice_is_there_twice():
    @tf.function
    def inner(x):
        return tf.reduce_sum(x**3)

    @tf.function
    def outer(x):
        return inner(x) * inner(2 * x)

    program = trace(outer, SPEC)
    types = [node.op.type for node in program.nodes]
    assert not {"PartitionedCall", "StatefulPartitionedCall"} & set(types)
    assert types.count("Pow") == 2
    assert program.replay(tf.constant(X)).numpy() == outer(tf.constant(X)).numpy()


def test_a_body_that_was_differentiated_before_is_inlined_as_it_is_called():
    @tf.function
    def inner(x):
        return tf.sin(x) * tf.exp(x)

    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = inner(x)
    tape.gradient(value, x)
    program = trace(lambda x: 2 * inner(x), SPEC)
    assert np.allclose(program.replay(x).numpy(), 2 * np.sin(X) * np.exp(X), rtol=1e-15)


def test_captured_variables_are_what_they_were_at_the_trace():
    variable = tf.Variable(2.0, dtype=tf.float64)

    @tf.function
    def inner(x):
        return x * variable

    program = trace(lambda x: inner(x) + variable, SPEC)
    variable.assign(100.0)
    assert program.replay(tf.constant(X)).numpy().tolist() == (2 * X + 2).tolist()


def test_captured_tensors_stay():
    factor = tf.constant(np.arange(6.0))
    program = trace(lambda x: x * factor, SPEC)
    assert program.replay(tf.constant(X)).numpy().tolist() == (X * np.arange(6)).tolist()


def test_dead_operations_are_left_out():
    def function(x):
        tf.linalg.inv(tf.linalg.diag(x))
        return x * 2

    assert [node.op.type for node in trace(function, SPEC).nodes] == ["Mul"]


def test_a_part_runs_from_a_value_inside():
    def function(x):
        inner = tf.sin(x)
        return inner, tf.exp(inner) + 1

    program = trace(function, SPEC)
    inner, outer = program.outputs
    first, second = program.part(program.inputs, inner), program.part([inner], outer)
    between = first.replay(tf.constant(X))
    assert between.numpy().tolist() == np.sin(X).tolist()
    assert np.allclose(second.replay(tf.constant(X)).numpy(), np.exp(X) + 1, rtol=1e-15)


def test_unbound_values_are_those_that_a_part_lacks():
    def function(x):
        inner = tf.sin(x)
        return inner, inner * x

    program = trace(function, SPEC)
    inner, outer = program.outputs
    part = program.part([inner], outer)
    assert part.unbound() == set(program.inputs)
    assert not program.part([inner, *program.inputs], outer).unbound()


# --- what cannot be replayed ---


def assigning(w):
    variable = assigning.variable
    variable.assign_add(1.0)
    return w * variable


assigning.variable = tf.Variable(1.0, dtype=tf.float64)

REFUSED = {
    "random": (
        lambda w: w * tf.random.normal([2], dtype=tf.float64),
        "got the stateful operation RandomStandardNormal in .*; use tf.random.stateless_",
    ),
    "python": (
        lambda w: tf.ensure_shape(tf.py_function(lambda x: x**2, [w], tf.float64), [2]),
        "got the stateful operation EagerPyFunc",
    ),
    "assignment": (assigning, "expected a loss without side effects, got AssignAddVariableOp in"),
}


@pytest.mark.parametrize(("function", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_a_pure_function_is_refused(function, text):
    with pytest.raises(hvp.InputError, match=text):
        hvp.linearize_function(lambda w: tf.reduce_sum(function(w) ** 2), np.ones(2))


@pytest.mark.parametrize(
    ("call", "op"), [(tf.py_function, "EagerPyFunc"), (tf.numpy_function, "PyFunc")]
)
def test_python_without_a_shape_is_refused_by_name(call, op):
    """Its result has no shape: the loss would fail in another operation."""

    def layer(w):
        with tf.name_scope("outer"):
            return call(lambda x: x**2, [w], tf.float64)

    words = f"{op} in 'outer'.*; use operations of TensorFlow"
    for loss in (
        lambda w: layer(tf.reduce_sum(w)),
        lambda w: tf.reduce_sum(tf.keras.ops.softmax(layer(w))),
        lambda w: tf.function(layer)(tf.reduce_sum(w)),
    ):
        with pytest.raises(hvp.InputError, match=words):
            hvp.linearize_function(loss, np.ones(2))


def test_a_refused_assignment_has_assigned_nothing():
    with pytest.raises(hvp.InputError, match="side effects"):
        hvp.linearize_function(lambda w: tf.reduce_sum(assigning(w)), np.ones(2))
    assert assigning.variable.numpy() == 1.0


def test_a_generator_of_keras_that_counts_is_refused_with_advice():
    generator = keras.random.SeedGenerator(1)
    for seed in (None, generator):
        with pytest.raises(hvp.InputError, match="give a whole number as the seed"):
            hvp.linearize_function(
                lambda w, seed=seed: tf.reduce_sum(w * keras.random.normal([2], seed=seed)),
                np.ones(2, np.float32),
            )
    lin = hvp.linearize_function(
        lambda w: tf.reduce_sum(w**2 * keras.random.normal([2], dtype="float64", seed=1)),
        np.ones(2),
    )
    assert np.array_equal(lin.gradient(), lin.loss_and_gradient(lin.theta)[1])


@keras.saving.register_keras_serializable("tests")
class Noise(layers.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x), dtype=x.dtype)


def test_the_layer_that_cannot_be_replayed_is_named():
    noise = Noise(name="culprit", dtype="float64")
    model = sequential((3, 2), noise, layers.Flatten(), layers.Dense(1, dtype="float64"))
    with pytest.raises(hvp.InputError, match="in 'culprit'; "):
        hvp.linearize(model, (examples((3, 2)), np.zeros((7, 1))), "mse")


def test_axes_that_are_computed_from_ranks_are_constants():
    """‖A‖₂ takes its permutation from a loop over its axes, by differences of its values."""
    rng = np.random.default_rng(6)
    a, v = rng.normal(size=(2, 3, 3))

    def norm(a):
        return tf.linalg.norm(a, ord=2, axis=(0, 1))

    lin = hvp.linearize_function(norm, a)
    h = 1e-3
    weights = {-2: -1 / 12, -1: 16 / 12, 0: -30 / 12, 1: 16 / 12, 2: -1 / 12}
    bend = sum(c * np.linalg.norm(a + k * h * v, 2) for k, c in weights.items()) / h**2
    assert v.ravel() @ lin.hvp(v.ravel()) == pytest.approx(bend, rel=1e-6)
    program = trace(norm, tf.TensorSpec([3, 3], tf.float64))
    assert not any(node.bodies for node in program.nodes)


def test_a_branch_that_a_rank_chooses_is_taken():
    """`keras.ops.inner` asks for the ranks of its inputs: D² (wᵀw)² = 4 wᵀw I + 8 w wᵀ."""
    w = np.array([1.0, 2.0])
    lin = hvp.linearize_function(lambda w: tf.keras.ops.inner(w, w) ** 2, w)
    np.testing.assert_allclose(lin.hvp(np.eye(2)), 20 * np.eye(2) + 8 * np.outer(w, w))
    assert lin.findings == ()


@pytest.mark.parametrize("number", [-3, 0, 1, 7])
def test_a_constant_chooses_the_branch_that_tensorflow_takes(number):
    branches = [lambda w=w: w for w in (1.0, 2.0, 3.0)]

    def chosen(w):
        return tf.switch_case(tf.size(w) * number, branches) * tf.reduce_sum(w)

    program = trace(chosen, tf.TensorSpec([1], tf.float32))
    assert program.replay(tf.ones([1])) == tf.function(chosen)(tf.ones([1]))
    assert not any(node.bodies for node in program.nodes)


def test_integers_become_float64_without_a_detour_through_float32():
    number = 2**24 + 1  # float32 has no such number
    traced = trace(lambda n: tf.cast(n, tf.float32), tf.TensorSpec([], tf.int32))
    promoted = precision.promote(traced, tf.float64)
    assert tf.function(promoted.replay)(tf.constant(number)).numpy() == number


def test_a_replayed_operation_keeps_its_attributes_and_its_gradient():
    def function(x):
        return tf.nn.max_pool1d(x, 2, 2, "SAME") * tf.nn.leaky_relu(x[:, ::2], 0.25)

    x = tf.constant(np.random.default_rng(0).standard_normal((2, 6, 3)))
    program = trace(function, tf.TensorSpec(x.shape, x.dtype))

    @tf.function
    def slope(x, replayed):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = program.replay(x) if replayed else function(x)
        return y, tape.gradient(y, x)

    for found, expected in zip(slope(x, True), slope(x, False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-14)

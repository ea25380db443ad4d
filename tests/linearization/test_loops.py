"""Loops and branches: differentiated as they are, whatever number of steps they take."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import along, examples, flat, gradient, relative, sequential, variables_of
from support.sweep import sweep

import hvp
from hvp.autodiff import forward_mode
from hvp.autodiff.tracing import trace

layers = keras.layers
W = np.array([0.4, -0.3])


def loop(w):
    return tf.while_loop(lambda i, x: i < 3, lambda i, x: [i + 1, x * w], [0, w])[1]


def data_dependent(w):
    """As many steps as it takes to become small."""
    return tf.while_loop(
        lambda x: tf.reduce_sum(x**2) > 1e-2, lambda x: [tf.sin(x) * tf.cos(w)], [w]
    )[0]


def loop_in_a_loop(w):
    def outer(i, x):
        inner = tf.while_loop(lambda j, y: j < i, lambda j, y: [j + 1, tf.sin(y + w)], [0, x])[1]
        return [i + 1, inner * x]

    return tf.while_loop(lambda i, x: i < 3, outer, [0, w])[1]


def branch_in_a_loop(w):
    def step(i, x):
        return [i + 1, tf.cond(i % 2 == 0, lambda: tf.sin(x * w), lambda: x**2 + w)]

    return tf.while_loop(lambda i, x: i < 4, step, [0, w])[1]


def loop_in_a_branch(w):
    return tf.cond(w[0] > 0, lambda: loop(w), lambda: w)


def branch(w):
    return tf.cond(w[0] > 0, lambda: w**3, lambda: w)


def other_branch(w):
    return tf.cond(w[0] < 0, lambda: w**3, lambda: tf.exp(w))


def one_of_three(w):
    return tf.switch_case(tf.constant(1), [lambda: w, lambda: w**3, lambda: w**2])


def mapped(w):
    return tf.map_fn(lambda x: tf.sin(x) ** 2, w)


def scanned(w):
    return tf.scan(lambda a, x: tf.sin(a * x), tf.concat([w, w], 0), initializer=w[0])


def of_no_step(w):
    return tf.while_loop(lambda i, x: i < 0, lambda i, x: [i + 1, x * w], [0, w**2])[1]


def written(w):
    array = tf.TensorArray(tf.float64, 2)
    for i in range(2):
        array = array.write(i, tf.tanh(w[i]) * w)
    return tf.reshape(array.stack(), [-1])


def unstacked(w):
    return tf.TensorArray(tf.float64, 2).unstack(tf.sin(w) * w[0]).read(1)


def joined(w):
    array = tf.TensorArray(tf.float64, 2, infer_shape=False)
    return tf.ensure_shape(array.write(0, w**2).write(1, tf.sin(w)).concat(), [4])


def growing(w):
    def step(i, x):
        return i + 1, tf.concat([x, tf.sin(x[-1:] * w)], 0)

    shapes = tf.TensorShape([]), tf.TensorShape([None, 2])
    x = tf.while_loop(lambda i, x: i < 3, step, (0, w[None]), shape_invariants=shapes)[1]
    return tf.reshape(x, [8])


def counted(w):
    def goes_on(i):
        return tf.cast(i, tf.float64) < 3 * tf.reduce_sum(w**2) + 2

    return w**3 * tf.cast(tf.while_loop(goes_on, lambda i: (i + 1,), (0,))[0], tf.float64)


def exponential(w):
    return tf.reshape(tf.linalg.expm(tf.stack([w, w[::-1] ** 2])), [4])


FUNCTIONS = [
    loop, data_dependent, loop_in_a_loop, branch_in_a_loop, loop_in_a_branch, branch, other_branch,
    one_of_three, mapped, scanned, of_no_step, counted, exponential,
]  # fmt: skip
LISTS = [written, unstacked, joined]
ALWAYS = {"loop_in_a_branch", "written"}
CASES = sweep([*FUNCTIONS, *LISTS], ALWAYS, lambda function: function.__name__)


def loss(z):
    return tf.reduce_sum(z**2 * tf.exp(z))


@pytest.mark.parametrize("function", CASES)
def test_products_are_those_of_differences(function):
    lin = hvp.linearize_function(loss, W, outputs=function)
    variable, v = tf.Variable(W), np.array([0.7, 0.4])

    def slope():
        return gradient(lambda: loss(function(variable)), [variable])

    assert relative(lin.gradient(), slope()) < 1e-13
    assert relative(lin.hvp(v), along(slope, [variable], v)) < 1e-8
    assert relative(lin.jvp(v), along(lambda: function(variable).numpy(), [variable], v)) < 1e-8
    assert relative(lin.gnvp(v) + lin.residual_vp(v), lin.hvp(v)) < 1e-12
    assert relative(lin.hvp(np.eye(2)) @ v, lin.hvp(v)) < 1e-12
    what = "a list of tensors" if function in LISTS else "a loop or branch"
    is_known = function is one_of_three  # its branch is a constant
    assert any(what in finding.message for finding in lin.findings) != is_known
    assert len({str(finding) for finding in lin.findings}) == len(lin.findings)


@pytest.mark.parametrize("function", [*FUNCTIONS, *LISTS], ids=lambda f: f.__name__)
def test_a_replay_computes_what_the_function_does(function):
    program = trace(function, tf.TensorSpec([2], tf.float64))
    expected = function(tf.constant(W)).numpy()
    for replay in (program.replay, tf.function(program.replay, autograph=False)):
        assert np.allclose(replay(tf.constant(W)).numpy(), expected, rtol=1e-15, atol=0)


@pytest.mark.sweep
def test_a_loop_that_grows_what_it_carries_has_its_hessian():
    lin = hvp.linearize_function(lambda w: loss(growing(w)), W)
    variable, v = tf.Variable(W), np.array([0.7, 0.4])
    Hv = along(lambda: gradient(lambda: loss(growing(variable)), [variable]), [variable], v)
    assert relative(lin.hvp(v), Hv) < 1e-8


def test_products_with_lists_of_tensors_are_not_pushed_forward():
    with tf.Graph().as_default():
        x = tf.constant(W)
        z = written(x)
        with pytest.raises(NotImplementedError, match="branch or list"):
            forward_mode.push([z], [x], [x])


def test_a_loop_on_the_targets_alone_leaves_forward_mode_be():
    y = np.array([1.0, 2.0])

    def squares(z, batch):
        return tf.reduce_sum((z - tf.map_fn(tf.sin, batch[0])) ** 2)

    lin = hvp.linearize_function(
        squares, W, (y,), outputs=lambda w, batch: w**2, reduction="sum", ad="auto", jit=False
    )
    assert relative(lin.hvp(np.eye(2)), np.diag(12 * W**2 - 4 * np.sin(y))) < 1e-13
    assert lin.choices[0].order == "forward-over-reverse"


@pytest.mark.sweep
def test_the_mean_inside_a_variance_is_freed_inside_a_loop():
    def normalised(w):
        x = tf.stack([w[0], w[0] * w[1], tf.sin(w[1])])

        def step(i, x):
            mean, variance = tf.nn.moments(x, 0, keepdims=True)
            return [i + 1, (x - mean) / tf.sqrt(variance + 1e-3) + x**2]

        return tf.while_loop(lambda i, x: i < 2, step, [0, x])[1]

    lin = hvp.linearize_function(loss, W, outputs=normalised)
    variable, v = tf.Variable(W), np.array([0.7, 0.4])
    Hv = along(lambda: gradient(lambda: loss(normalised(variable)), [variable]), [variable], v)
    assert relative(lin.hvp(v), Hv) < 1e-8
    assert any("tf.nn.moments" in finding.message for finding in lin.findings)


def test_what_a_loop_holds_is_refused_by_its_name():
    def noisy(w):
        def step(i, x):
            return [i + 1, x + tf.random.normal([2], dtype=tf.float64)]

        return tf.while_loop(lambda i, x: i < 2, step, [0, w])[1]

    with pytest.raises(hvp.InputError, match="the stateful operation RandomStandardNormal"):
        hvp.linearize_function(loss, W, outputs=noisy)


def test_a_variable_read_in_a_loop_is_what_it_was():
    scale = tf.Variable(0.5, dtype=tf.float64)

    def scaled(w):
        return tf.while_loop(lambda i, x: i < 2, lambda i, x: [i + 1, x * w * scale], [0, w])[1]

    lin = hvp.linearize_function(loss, W, outputs=scaled)
    before = lin.hvp(W)
    scale.assign(100.0)
    assert (lin.hvp(W) == before).all()


def long_sequence(steps):
    model = sequential(
        (steps, 2), layers.LSTM(3, dtype="float64"), layers.Dense(1, dtype="float64")
    )
    for variable in model.trainable_variables:
        variable.assign(0.3 * variable)
    return model, examples((steps, 2), 2), np.ones((2, 1))


@pytest.mark.sweep
def test_a_sequence_of_a_thousand_steps_is_traced_as_one_of_ten():
    def nodes(steps):
        model, x, y = long_sequence(steps)
        lin = hvp.linearize(model, [(x, y)], "mse", jit=False)
        v = np.linspace(-1, 1, lin.size) + 0.3
        Hv = lin.hvp(v)
        (linear_map,) = lin._sums.traced.maps.values()
        variables = variables_of(model)

        @tf.function(autograph=False)
        def gradients():
            with tf.GradientTape() as tape:
                value = tf.reduce_mean((model(x) - y) ** 2)
            return tape.gradient(value, variables)

        def slope():
            return flat(gradients())

        assert relative(Hv, along(slope, variables, v)) < 1e-6
        return len(linear_map._linear.nodes)

    assert nodes(1000) == nodes(10)


def test_the_memory_that_loops_keep_is_counted():
    model, x, y = long_sequence(100)
    lin = hvp.linearize(model, [(x, y)], "mse", jit=False)
    lin.hvp(np.ones(lin.size))
    # Each step leaves its gates at least: 4 of them, for 2 examples and 3 units, in float64.
    assert lin.memory.kept > 100 * 4 * 2 * 3 * 8


@pytest.mark.sweep
def test_the_memory_that_branches_keep_is_counted():
    def positive(w, x):
        y = tf.tanh(x @ w)
        return tf.reduce_mean(tf.tanh(y @ w) ** 2)

    def either(w, x):
        return tf.cond(tf.reduce_sum(x) < 1e9, lambda: positive(w, x), lambda: w[0, 0] ** 2)

    w, x = examples((16,), 16), examples((16,), 1000)
    for ad in ("forward-over-reverse", "reverse-over-reverse"):
        options = {"reduction": "mean", "batch_size": 500, "ad": ad, "jit": False}
        kept = [
            hvp.linearize_function(loss, w, x, **options, cache=cache)
            for loss in (positive, either)
            for cache in ("auto", 500 * 16 * 8)
        ]
        for lin in kept:
            lin.hvp(lin.theta)
        # Two activations a batch, at least.
        assert all(lin.memory.kept >= 2 * 2 * 500 * 16 * 8 for lin in kept[::2])
        assert all(lin.memory.kept_batches == 0 for lin in kept[1::2])


@pytest.mark.sweep
def test_blocks_of_vectors_are_taken_one_by_one():
    model, x, y = long_sequence(10)
    lin = hvp.linearize(model, [(x, y)], "mse", jit=False)
    V = np.random.default_rng(0).standard_normal((lin.size, 4))
    each = np.stack([lin.hvp(v) for v in V.T], axis=1)
    assert relative(lin.hvp(V), each) < 1e-14


def test_forcing_forward_mode_on_a_loop_takes_the_other_order_and_says_so():
    lin = hvp.linearize_function(loss, W, outputs=loop, ad="forward-over-reverse")
    lin.hvp(W)
    assert lin.choices[0].order == "reverse-over-reverse"
    assert "differentiated by reverse-over-reverse" in str(lin.findings[0])
    assert flat([lin.theta]).tolist() == W.tolist()


def bisection(w):
    """The cube of the square root of w by halving an interval."""

    def halve(i, low, high):
        middle = (low + high) / 2
        is_below = middle**2 < w
        return i + 1, tf.where(is_below, middle, low), tf.where(is_below, high, middle)

    _, low, _ = tf.while_loop(lambda i, low, high: i < 40, halve, [0, tf.zeros_like(w), 1.0 + w])
    return tf.reduce_sum(low**3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loop_that_chooses_its_result_by_comparisons_is_refused(dtype):
    """TensorFlow's gradient is that of the ends of the interval: 0 and 1 times powers of a half."""
    with pytest.raises(hvp.InputError, match=r"as bisection does: .*gradient.* Newton steps"):
        hvp.linearize_function(bisection, np.array([2.0, 0.3], dtype))


def test_newton_steps_from_the_result_of_a_bisection_are_right():
    """x³ for x² = w is w^1.5, whose second derivative is 0.75/√w."""

    def polished(w):
        x = tf.stop_gradient(bisection(w[:1]) ** (1 / 3))
        for _ in range(2):
            x = x - (x**2 - w) / (2 * x)
        return tf.reduce_sum(x**3)

    lin = hvp.linearize_function(polished, np.array([2.0]))
    np.testing.assert_allclose(lin.hvp([1.0]), [0.75 / np.sqrt(2)], rtol=1e-9)


def test_a_loop_that_compares_numbers_and_is_smooth_between_is_verified():
    def step(i, x):
        return i + 1, tf.where(x > 0, tf.sin(x), 0.1 * x)

    def loss(w):
        return tf.reduce_sum(tf.while_loop(lambda i, x: i < 2, step, [0, w])[1])

    lin = hvp.linearize_function(loss, W)
    assert lin.certificate is not None
    x, s = W[0], np.sin(W[0])
    expected = -np.sin(s) * np.cos(x) ** 2 - np.cos(s) * np.sin(x)
    np.testing.assert_allclose(lin.hvp(np.ones(2)), [expected, 0.0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: tf.cond(w[0] > 0, lambda: tf.reduce_sum(w**3), lambda: tf.reduce_sum(w)),
        lambda w: tf.while_loop(lambda s: s < 20, lambda s: [s**2 + 2], [tf.reduce_sum(w)])[0],
    ],
    ids=["cond", "while_loop"],
)
def test_xla_on_request_is_refused_in_words(loss):
    lin = hvp.linearize_function(loss, np.array([0.5, 0.25]), jit=True)
    with pytest.raises(hvp.InputError, match=r"loops and branches .* leave jit out") as info:
        lin.hvp(np.ones(2))
    assert "variant" not in str(info.value)

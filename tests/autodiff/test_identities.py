"""What the identities rewrite, and what they must leave as it is."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.operations import call, drawn

import hvp
from hvp.autodiff import identities, tracing
from hvp.autodiff.op_types import OP_TYPES
from hvp.passes.pipeline import without_passes

W = np.array([[0.0, 0.0], [3.0, -4.0]])


def hessian(loss, w, **options):
    return hvp.linearize_function(loss, w, **options).hvp(np.eye(np.size(w)))


def kinds(function, *shape):
    """The types of operations of a function with the identities, and the places rewritten."""
    program = tracing.trace(function, tf.TensorSpec(shape, tf.float64))
    program, places = identities.apply_identities(program)
    return [node.op.type for node in program.nodes], places


@pytest.mark.parametrize("ad", ["forward-over-reverse", "reverse-over-reverse"])
@pytest.mark.parametrize(
    "cube",
    [
        lambda w: tf.norm(w, axis=1) ** 3,
        lambda w: tf.norm(w, axis=1) * tf.norm(w, axis=1) ** 2,
        lambda w: tf.reduce_sum(tf.square(w), 1) ** 1.5,
    ],
)
def test_the_cube_of_a_norm_is_flat_at_zero(cube, ad):
    """The Hessian of ‖x‖³ is 3(‖x‖ I + xxᵀ/‖x‖), and zero at x = 0."""
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(cube(w)), W, ad=ad)
    x = W[1]
    expected = np.zeros((4, 4))
    expected[2:, 2:] = 3 * (5 * np.eye(2) + np.outer(x, x) / 5)
    np.testing.assert_allclose(lin.hvp(np.eye(4)), expected, atol=1e-13)
    np.testing.assert_allclose(lin.gradient(), [0, 0, 45, -60], rtol=1e-14)
    assert lin.findings == ()


@pytest.mark.parametrize("ad", ["forward-over-reverse", "reverse-over-reverse"])
def test_even_functions_of_a_norm_are_smooth_at_zero(ad):
    """H of f(‖x‖) is (f′/‖x‖) (I - uuᵀ) + f″ uuᵀ with u = x/‖x‖, and f″(0) I at zero."""
    w = np.array([[0, 0], [3e-4, -4e-4], [0.3, 0.4], [3, -4.0]])
    y = np.array([0, 0.7, -2])

    def loss(params):
        w, y = params
        rows = tf.cos(2 * tf.norm(w, axis=1)) + tf.cosh(tf.norm(w, axis=1) / 2)
        return tf.reduce_sum(rows) + tf.reduce_sum(tf.cos(tf.abs(y)) + tf.cosh(tf.sqrt(y**2)))

    lin = hvp.linearize_function(loss, [w, y], ad=ad)
    expected, gradient = np.zeros((11, 11)), np.zeros(11)
    for i, x in enumerate(w):
        r, rows = np.linalg.norm(x), slice(2 * i, 2 * i + 2)
        bend = -4 * np.cos(2 * r) + np.cosh(r / 2) / 4
        u = x / r if r else x
        slope = -2 * np.sin(2 * r) + np.sinh(r / 2) / 2
        across = slope / r if r else bend
        expected[rows, rows] = across * (np.eye(2) - np.outer(u, u)) + bend * np.outer(u, u)
        gradient[rows] = slope * u
    expected[8:, 8:] = np.diag(np.cosh(y) - np.cos(y))
    gradient[8:] = np.sinh(y) - np.sin(y)
    np.testing.assert_allclose(lin.gradient(), gradient, rtol=1e-12, atol=1e-15)
    # The closed form itself has an error of ε/r from f′ at r = 5e-4.
    np.testing.assert_allclose(lin.hvp(np.eye(11)), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: tf.reduce_sum(tf.norm(w, axis=1)),
        lambda w: tf.reduce_sum(tf.abs(tf.complex(w[:, 0], w[:, 1]))),
        lambda w: tf.reduce_sum(tf.abs(w) ** 1.5),
        lambda w: tf.reduce_sum(tf.abs(w[0])) ** 1.5,
        lambda w: tf.reduce_sum(tf.nn.relu(w) ** 1.5),
        lambda w: tf.sin(tf.norm(w[0])),
    ],
)
@pytest.mark.parametrize("w", [W, np.zeros((2, 2))], ids=["a row", "all"])
def test_what_has_no_second_derivative_or_none_of_ours_is_refused(loss, w):
    with pytest.raises(hvp.InputError, match="NaN or infinity"):
        hessian(loss, w)


@pytest.mark.parametrize("jit", [False, True])
def test_functions_that_are_singular_at_zero_are_constant_where_relu_is(jit):
    """f(relu(w)): derivatives of f in closed form where w > 0, and zero where w < 0."""
    w = np.array([-1.3, -0.5, 0.7, 2.1])

    def loss(w):
        positive = tf.nn.relu(w)
        roots = tf.sqrt(2 * positive) + tf.nn.relu6(w) ** 1.5 + tf.sqrt(tf.reduce_sum(positive[:2]))
        return tf.reduce_sum(roots + tf.exp(-1 / positive) - tf.math.log(1 + tf.sqrt(positive)))

    x = w[2:]
    r = np.sqrt(x)
    slope = 1 / np.sqrt(2 * x) + 1.5 * r + np.exp(-1 / x) / x**2 - 1 / (2 * r * (1 + r))
    bend = -((2 * x) ** -1.5) + 0.75 / r + np.exp(-1 / x) * (1 - 2 * x) / x**4
    bend += (1 + 2 * r) / (4 * r**3 * (1 + r) ** 2)
    lin = hvp.linearize_function(loss, w, jit=jit)
    np.testing.assert_allclose(lin.gradient(), [0, 0, *slope], rtol=1e-12)
    np.testing.assert_allclose(lin.hvp(np.eye(4)), np.diag([0, 0, *bend]), rtol=1e-11)
    with pytest.raises(hvp.InputError, match=r"NaN or infinity from .* in batch 1"):
        hvp.linearize_function(loss, np.maximum(w, 0), jit=jit).hvp(np.ones(4))


@pytest.mark.parametrize(
    "function",
    [
        lambda w: tf.nn.relu(w) ** 2 / 3,
        lambda w: tf.math.log(tf.nn.relu(w) + 1e-3),
        lambda w: tf.sqrt(w[:, None] @ tf.nn.relu(w)[None]),
    ],
)
def test_rectifiers_before_smooth_functions_are_left(function):
    assert "Relu" in kinds(function, 3)[0]


def test_a_class_of_one_example_has_no_part_in_the_loss_of_the_circle():
    """Against central differences of the loss: errors of order h² and of rounding over h²."""
    labels, x = np.array([0, 0, 1, 2]), np.random.default_rng(0).normal(size=8)
    circle = keras.losses.Circle(gamma=4.0, dtype="float64")

    def loss(w):
        return circle(labels, tf.math.l2_normalize(tf.reshape(w, [4, 2]), 1))

    lin = hvp.linearize_function(loss, x)
    step, units = 1e-4, np.eye(8)

    def value(v):
        return float(loss(tf.constant(x + step * v)))

    slopes = [(value(u) - value(-u)) / (2 * step) for u in units]
    bends = [
        [
            (value(u + v) - value(u - v) - value(v - u) + value(-u - v)) / (4 * step**2)
            for u in units
        ]
        for v in units
    ]
    assert np.abs(slopes).max() > 0.1
    np.testing.assert_allclose(lin.gradient(), slopes, atol=2e-5)
    np.testing.assert_allclose(lin.hvp(units), bends, rtol=1e-5, atol=1e-4)


def test_sums_that_may_be_empty_of_an_infinite_slope_are_refused():
    """log(1 + exp(log Σ exp log w)) is log(1 + Σw): its slope at zero is one, not zero."""

    def loss(w):
        logs = tf.where(w < 1, tf.math.log(w), -np.inf)
        return tf.nn.softplus(tf.reduce_logsumexp(logs))

    with pytest.raises(hvp.InputError, match=r"Equal in .* at this point alone"):
        hessian(loss, np.zeros(2))


def test_a_power_of_a_root_is_written_without_it():
    found, places = kinds(lambda w: tf.norm(w, axis=1) ** 2, 3, 2)
    assert "Sqrt" not in found
    assert "Pow" not in found
    assert set(places.values()) == {"Sqrt"}


@pytest.mark.parametrize(
    "function",
    [
        lambda w: tf.sqrt(w) * w,
        lambda w: tf.abs(w),
        lambda w: tf.abs(w) * tf.sqrt(1 + w),
        lambda w: tf.exp(-tf.abs(w)),
        lambda w: tf.maximum(w, 0.0) + tf.abs(w),
        lambda w: tf.where(w > 0, w, tf.sin(w)),
        lambda w: tf.where(w > 0, tf.reduce_sum(tf.math.log(1 + w**2)), w),
        lambda w: (w * tf.constant([1.0, 2.0, 3.0], tf.float64) + 1)[1:],
        lambda w: (w * tf.math.rsqrt(1 + tf.reduce_sum(w * w, keepdims=True)))[1:],
        lambda w: tf.math.multiply_no_nan(w, tf.constant([0.0, 1.0, 2.0], tf.float64)),
    ],
)
def test_a_program_without_a_pattern_is_left(function):
    program = tracing.trace(function, tf.TensorSpec([3], tf.float64))
    assert identities.apply_identities(program) == (program, {})


def test_a_difference_at_a_tie_is_between_the_same_values():
    """Beside |x - y| in an exponential, a maximum of other values keeps its own condition."""
    found, _ = kinds(lambda w: tf.maximum(w[0], w[1]) + tf.exp(-tf.abs(w[0] - w[2])), 3)
    assert {"Maximum", "Abs"} <= set(found)


def test_the_other_uses_of_a_masked_value_stay():
    """The same root inside `where` and outside of it: the latter has no derivative."""
    w = np.array([0.0, 4.0])

    def chosen(w):
        return tf.reduce_sum(tf.where(w > 1, tf.sqrt(w), w))

    np.testing.assert_allclose(hessian(chosen, w), np.diag([0, -0.25 * 4**-1.5]))
    with pytest.raises(hvp.InputError, match="NaN or infinity"):
        hessian(lambda w: chosen(w) + tf.reduce_sum(tf.sqrt(w)), w)


def masked_by_value(y, z):
    return tf.where(tf.math.is_nan(y), tf.zeros_like(z), tf.square(y - z))


def masked_by_row(y, z):
    error = tf.reduce_mean((z - y) ** 2, axis=-1)
    return tf.where(tf.math.is_finite(tf.reduce_sum(y, -1)), error, tf.zeros_like(error))


def masked_loss_of_keras(y, z):
    error = keras.losses.mean_squared_error(y, z)
    return tf.where(tf.reduce_any(tf.math.is_nan(y), -1), tf.zeros_like(error), error)


MISSING = np.array([[0.3, np.nan], [1.0, -0.5], [np.nan, np.nan], [0.2, 2.0]])


@pytest.mark.parametrize("loss", [masked_by_value, masked_by_row, masked_loss_of_keras])
def test_targets_that_the_loss_leaves_out_may_be_missing(loss):
    """Least squares over what is there, in closed form; rows with a gap count by value alone."""
    x = np.random.default_rng(2).normal(size=(4, 3))
    w = np.arange(6.0).reshape(3, 2) / 3
    lin = hvp.linearize_function(
        lambda w, batch: tf.reduce_sum(loss(batch[1], batch[0] @ w)), w, (x, MISSING)
    )
    there = ~np.isnan(MISSING)
    if loss is not masked_by_value:
        there = np.repeat(there.all(1, keepdims=True) / 2, 2, axis=1)
    expected = np.zeros((3, 2, 3, 2))
    for k in range(2):
        expected[:, k, :, k] = 2 * (x.T * there[:, k]) @ x
    slope = 2 * x.T @ (there * (x @ w - np.nan_to_num(MISSING)))
    np.testing.assert_allclose(lin.gradient(), slope.ravel(), rtol=1e-12)
    np.testing.assert_allclose(lin.hvp(np.eye(6)), expected.reshape(6, 6), rtol=1e-12, atol=1e-14)


def test_missing_targets_of_a_model_are_left_out():
    def masked(y, z):
        loss = keras.ops.binary_crossentropy(y, z, from_logits=True)
        return keras.ops.sum(keras.ops.where(keras.ops.isnan(y), 0.0, loss), axis=-1)

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False)])
    x = np.random.default_rng(3).normal(size=(4, 3)).astype("float32")
    y = np.array([[0, np.nan], [1, 0], [np.nan, np.nan], [1, 1]], "float32")
    lin = hvp.linearize(model, (x, y), masked)
    p = 1 / (1 + np.exp(-(x @ model.get_weights()[0])))
    expected = np.zeros((3, 2, 3, 2))
    for k in range(2):
        expected[:, k, :, k] = (x.T * (p * (1 - p) * ~np.isnan(y))[:, k]) @ x / 4
    np.testing.assert_allclose(lin.hvp(np.eye(6)), expected.reshape(6, 6), atol=1e-6)
    np.testing.assert_allclose(lin.gnvp(np.eye(6)), expected.reshape(6, 6), atol=1e-6)


def test_a_missing_target_that_counts_is_refused():
    with pytest.raises(hvp.InputError, match="a finite loss, got nan"):
        hvp.linearize_function(
            lambda w, y: tf.reduce_sum(tf.where(y > 5, 0 * w, (y - w) ** 2)), np.ones(2), MISSING
        )


TARGETS = np.array([1.0, np.nan, 2.0, np.nan, 0.0, 1.0])
THERE = np.isfinite(TARGETS)
SELECTIONS = {
    "boolean_mask": lambda squares, y: tf.boolean_mask(squares, ~tf.math.is_nan(y)),
    "of a matrix": lambda squares, y: tf.boolean_mask(
        tf.reshape(squares, [3, 2]), tf.reshape(~tf.math.is_nan(y), [3, 2])
    ),
    "gather": lambda squares, y: tf.gather(squares, np.flatnonzero(THERE)),
    "gather_nd": lambda squares, y: tf.gather_nd(squares, np.argwhere(THERE)),
    "slices": lambda squares, y: tf.concat([squares[:1], squares[2:3], squares[-2:]], 0),
}


@pytest.mark.parametrize("data", [None, TARGETS], ids=["a constant", "a batch"])
@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
def test_targets_that_a_selection_leaves_out_may_be_missing(select, data):
    """The root of the mean of squares over what is there, in closed form."""
    w = np.array([0.3, 0.1, -0.5, 0.2, 0.9, -1.0])

    def loss(w, y=None):
        y = tf.constant(TARGETS) if y is None else y
        return tf.sqrt(tf.reduce_mean(select((w - y) ** 2, y)))

    lin = hvp.linearize_function(loss, w, data, jit=False)
    r = np.where(THERE, w - np.nan_to_num(TARGETS), 0)
    size = np.sqrt((r**2).sum() / 4)
    expected = np.diag(THERE / (4 * size)) - np.outer(r, r) / (16 * size**3)
    np.testing.assert_allclose(lin.hvp(np.eye(6)), expected, rtol=1e-13, atol=1e-16)
    np.testing.assert_allclose(lin.gradient(), r / (4 * size), rtol=1e-14)


@pytest.mark.parametrize(
    "select",
    [
        lambda x: x[1:],
        lambda x: tf.gather(x, [1, 2]),
        lambda x: tf.boolean_mask(x, [False, True, True]),
        lambda x: tf.math.multiply_no_nan(x, tf.constant([0.0, 1.0, 1.0], tf.float64)),
    ],
    ids=["slice", "gather", "mask", "multiply_no_nan"],
)
def test_an_infinite_entry_that_is_left_out_has_no_part(select):
    """log(w)/w beside its pole, with a divisor that is broadcast; TensorFlow's gradient is NaN."""
    w = np.array([0.0, 0.5, 2.0])

    def loss(w):
        return tf.reduce_sum(select(tf.math.log(w) / (w * tf.ones([1], w.dtype))))

    lin = hvp.linearize_function(loss, w, jit=False)
    np.testing.assert_allclose(
        lin.hvp(np.eye(3)),
        np.diag([0, *(2 * np.log(w[1:]) - 3) / w[1:] ** 3]),
        rtol=1e-13,
    )
    (finding,) = [f for f in lin.findings if f.severity == "different"]
    assert "gradients are NaN" in finding.message


def test_an_infinite_entry_that_is_selected_is_refused():
    with pytest.raises(hvp.InputError, match="a finite loss, got -inf"):
        hessian(lambda w: tf.reduce_sum(tf.math.log(w)[:2]), np.array([0.0, 0.5, 2.0]))
    with pytest.raises(
        hvp.InputError, match=r"NaN or infinity from .* mask NaN in the data before"
    ):
        hessian(lambda w: tf.reduce_sum(tf.sqrt(w)[:2]), np.array([0.0, 0.5, 2.0]))


def test_an_expression_that_uses_its_values_twice_is_read_once():
    """A walk along each of its 3^20 paths would not end."""

    def unrolled(x):
        for _ in range(20):
            x += 0.1 * x * tf.tanh(x)
        return tf.exp(x)[1:]

    found, places = kinds(unrolled, 3)
    assert found.count("Tanh") == 20
    assert set(places.values()) == {"Exp"}


def test_steps_on_a_grid_do_not_grow_without_end():
    """Each step takes three selections of the step before."""

    def steps(x):
        for _ in range(12):
            x = tf.exp(-x[1:-1]) + x[2:] * x[:-2]
        return x

    found, _ = kinds(steps, 40)
    assert len(found) < 3000


def test_identities_hold_in_loops_and_in_penalties():
    def loop(w):
        return tf.while_loop(
            lambda i, y: i < 3, lambda i, y: (i + 1, y + tf.norm(w) ** 2), [0, tf.norm(w) ** 2]
        )[1]

    np.testing.assert_allclose(hessian(loop, np.zeros(2)), 8 * np.eye(2))
    x, y = np.ones((4, 2)), np.zeros((4, 1))
    model = keras_model()
    lin = hvp.linearize(model, (x, y), "mse")
    expected = 2 * np.ones((2, 2)) + 2 * np.eye(2)
    np.testing.assert_allclose(lin.hvp(np.eye(2)), expected, atol=1e-12)


def keras_model():
    def squared_norm(kernel):
        return tf.norm(kernel) ** 2

    dense = keras.layers.Dense(
        1,
        use_bias=False,
        kernel_initializer="zeros",
        kernel_regularizer=squared_norm,
        dtype="float64",
    )
    return keras.Sequential([keras.Input((2,), dtype="float64"), dense])


def test_a_finding_says_where_fit_follows_another_gradient():
    def loss(w):
        return tf.reduce_sum(tf.maximum(w, 0.0) + tf.math.log1p(tf.exp(-tf.abs(w))))

    lin = hvp.linearize_function(loss, np.zeros(3))
    assert lin.gradient().tolist() == [0.5] * 3
    np.testing.assert_allclose(lin.hvp(np.eye(3)), np.eye(3) / 4)
    (finding,) = lin.findings
    assert finding.severity == "different"
    assert "TensorFlow's gradient" in finding.message
    assert hvp.linearize_function(loss, np.ones(3)).findings == ()


def safe_norm(w):
    """`tf.norm` as it is from TensorFlow 2.22 on."""
    s = tf.reduce_sum(w * w, keepdims=True)
    safe = tf.maximum(s, np.finfo(np.float64).tiny)
    root = tf.compat.v1.where(tf.equal(s, 0), tf.zeros_like(safe), tf.sqrt(safe))
    return tf.squeeze(root)


def test_a_root_that_is_constant_at_zero_is_a_root():
    lin = hvp.linearize_function(lambda w: safe_norm(w) ** 2 + tf.cos(safe_norm(w)), np.zeros(2))
    assert lin.hvp(np.eye(2)).tolist() == [[1, 0], [0, 1]]
    plain = hvp.linearize_function(safe_norm, np.array([3.0, 4.0]))
    assert plain.gradient() == pytest.approx([0.6, 0.8])
    assert plain.hvp(np.array([3.0, 4.0])) == pytest.approx(np.zeros(2), abs=1e-15)
    with pytest.raises(hvp.InputError):
        hvp.linearize_function(safe_norm, np.zeros(2)).hvp(np.ones(2))


def test_the_operation_without_a_derivative_is_named():
    for cube in (lambda n: n**3, lambda n: n * n * n):
        _, places = kinds(lambda w, cube=cube: cube(tf.math.reduce_euclidean_norm(w)), 3)
        assert set(places.values()) == {"EuclideanNorm"}


def test_a_zero_weight_does_not_hide_an_infinite_factor():
    """With parameters that are constants of the program: 0·∞ is NaN, with and without passes."""

    def loss(w):
        return tf.norm(w) - tf.sin(tf.norm(w))

    with pytest.raises(hvp.InputError, match="NaN or infinity"):
        hessian(loss, np.zeros(3))
    with without_passes(), pytest.raises(hvp.InputError, match="NaN or infinity"):
        hessian(loss, np.zeros(3))


ENTRYWISE = [kind for kind, row in OP_TYPES.items() if row.is_entrywise]


def inputs_of(kind):
    """The names of an operation's inputs; the rest are attributes with defaults."""
    attributes = ("name", "DstT", "Truncate", "alpha", "T")
    parameters = inspect.signature(getattr(tf.raw_ops, kind)).parameters
    return [name for name in parameters if name not in attributes]


@pytest.mark.parametrize("kind", ENTRYWISE)
def test_an_entrywise_operation_uses_the_same_entries_alone(kind):
    row = OP_TYPES[kind]
    names = inputs_of(kind)
    options = {"DstT": tf.float64} if kind == "Cast" else {}
    at = 0.5 if row.finite_at is None else row.finite_at
    values = [at + 0.1 * drawn(3, seed=i) ** 2 for i in range(len(names))]
    if kind == "SelectV2":
        values[0] = np.array([True, False, True])

    def apply(values):
        if kind == "AddN":
            return tf.raw_ops.AddN(inputs=list(values))
        return call(kind, *names, **options)(*map(tf.constant, values))

    whole = apply(values).numpy()
    each = [apply([v[i : i + 1] for v in values]).numpy()[0] for i in range(3)]
    np.testing.assert_allclose(whole, each, rtol=1e-15)


@pytest.mark.parametrize("kind", [k for k in ENTRYWISE if OP_TYPES[k].finite_at is not None])
def test_an_entrywise_operation_is_finite_where_its_row_says(kind):
    names = inputs_of(kind)
    point = tf.constant(OP_TYPES[kind].finite_at, tf.float64)
    with tf.GradientTape() as outer:
        outer.watch(point)
        with tf.GradientTape() as inner:
            inner.watch(point)
            # TensorFlow cannot differentiate the parameter of the gamma integrals twice.
            first = tf.stop_gradient(point) if kind.startswith("Igamma") else point
            given = [first] if len(names) == 1 else [first, point]
            value = call(kind, *names)(*given)
        slope = inner.gradient(value, point)
    found = [value, slope, outer.gradient(slope, point)]
    assert all(np.isfinite(t.numpy()) for t in found if t is not None)


def test_a_chain_of_choices_grows_by_their_branches_alone():
    """x ← where(c, f(x), g(x)), fifteen times: each branch is written once, not 2¹⁵ times."""

    def chain(x):
        for _ in range(15):
            x = tf.where(x > 0.2, 1 / (1 + x), tf.sqrt(0.5 + x))
        return tf.reduce_sum(x**2)

    def at(w):
        x = w
        for _ in range(15):
            x = 1 / (1 + x) if x > 0.2 else np.sqrt(0.5 + x)
        return x**2

    w, step = 0.9, 1e-3
    found, _ = kinds(chain, 2)
    assert len(found) < 500
    expected = (at(w + step) - 2 * at(w) + at(w - step)) / step**2
    np.testing.assert_allclose(hessian(chain, np.array([w])), [[expected]], rtol=1e-4, atol=1e-9)


def test_a_chain_of_smaller_values_is_written_a_limited_number_of_times():
    """Of q ← a - b/q, min(q, c) is written anew in each step, until it is too long."""

    def chain(w):
        q = w
        for _ in range(40):
            q = 2.0 - w / q
            q = tf.where(q <= 0.1, tf.minimum(q, -0.1), q)
        return tf.reduce_sum(q)

    found, _ = kinds(chain, 2)
    assert len(found) < 20_000

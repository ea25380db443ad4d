"""Points at which a program takes another piece than around them: right by identity, or refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.refused_batches import assert_refused_in_second_batch
from support.sweep import sweep

import hvp
from hvp.autodiff import isolated_points, tracing

WEIGHTS = np.array([0.0, 0.7, 0.3])


def diagonal(function, w):
    """Gradient and diagonal of H of a sum over entries, and the findings."""
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(function(w)), w, jit=False)
    products = lin.hvp(np.eye(len(w)))
    np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=1e-14)
    return lin.gradient(), np.diag(products), lin.findings


def nonzero(w):
    return tf.where(tf.equal(w, 0), tf.ones_like(w), w)


def chosen(value, other):
    """A function of w that has another formula at zero."""
    return lambda w: tf.where(tf.equal(w, 0), value(w), other(w))


def ones(w):
    return tf.ones_like(w)


def late_sigmoid(w):
    """A sigmoid whose condition comes after |w|, and is false at zero."""
    decaying = tf.exp(-tf.abs(w))
    return tf.where(w > 0, 1 / (1 + decaying), decaying / (1 + decaying))


def huber(w):
    clipped = tf.minimum(tf.abs(w), 0.5)
    return clipped**2 / 2 + (tf.abs(w) - clipped) / 2


def sinc(w):
    if not hasattr(keras.ops, "sinc"):
        pytest.skip("this Keras has no sinc")
    return keras.ops.sinc(w)


# Derivatives at zero, in closed form, of functions that are smooth there.
RIGHT = {
    "sigmoid with a late condition": (late_sigmoid, 1 / 4, 0),
    "keras.ops.sinc": (sinc, 0, -(np.pi**2) / 3),
    "keras.ops.hypot, squared": (lambda w: keras.ops.hypot(w, -w) ** 2, 0, 4),
    "cosine of keras.ops.hypot": (lambda w: tf.cos(keras.ops.hypot(w, 2 * w)), 0, -5),
    "sin(w)/w": (chosen(ones, lambda w: tf.sin(w) / nonzero(w)), 0, -1 / 3),
    "sin(w)/w, the other way round": (
        lambda w: tf.where(tf.not_equal(w, 0), tf.sin(nonzero(w)) / nonzero(w), ones(w)),
        0,
        -1 / 3,
    ),
    "sinh(2w)/2w": (chosen(ones, lambda w: tf.sinh(2 * w) / (2 * w)), 0, 4 / 3),
    "expm1(w)/w": (chosen(ones, lambda w: tf.math.expm1(w) / w), 1 / 2, 1 / 3),
    "log1p(w)/w": (chosen(ones, lambda w: tf.math.log1p(w) / nonzero(w)), -1 / 2, 2 / 3),
    "sin(w)/w with its Taylor polynomial": (
        chosen(lambda w: 1 - w**2 / 6, lambda w: tf.sin(w) / nonzero(w)),
        0,
        -1 / 3,
    ),
    "sigmoid": (
        lambda w: tf.where(
            w >= 0,
            1 / (1 + tf.exp(-tf.abs(w))),
            tf.exp(-tf.abs(w)) / (1 + tf.exp(-tf.abs(w))),
        ),
        1 / 4,
        0,
    ),
    "sigmoid, the other way round": (
        lambda w: tf.where(
            3 * w < 0,
            tf.exp(-tf.abs(w)) / (1 + tf.exp(-tf.abs(w))),
            1 / (1 + tf.exp(-tf.abs(-w))),
        ),
        1 / 4,
        0,
    ),
    "a clipped size": (lambda w: tf.minimum(tf.abs(w), 1.0) ** 2, 0, 2),
    "a clipped root": (lambda w: tf.minimum(tf.sqrt(w * w), 1.0) ** 2, 0, 2),
    "a root clipped from both sides": (
        lambda w: tf.clip_by_value(tf.sqrt(w**2 + w**4), -1.0, 2.0) ** 2,
        0,
        2,
    ),
    "Huber's loss by hand": (huber, 0, 1),
    "keras.activations.celu, from above": (keras.activations.celu, 1, 0),
    "an exponential unit and its other half": (
        lambda w: tf.nn.elu(w) + tf.where(w >= 0, tf.math.expm1(w), w),
        2,
        1,
    ),
    "exponential by maximum": (
        lambda w: tf.where(w > 0, tf.exp(tf.maximum(w, 0.0)), tf.exp(tf.minimum(w, 0.0))),
        1,
        1,
    ),
}


@pytest.mark.parametrize(
    "name",
    sweep(
        RIGHT,
        {
            "keras.ops.sinc",
            "keras.ops.hypot, squared",
            "sigmoid",
            "keras.activations.celu, from above",
            "an exponential unit and its other half",
        },
    ),
)
def test_functions_that_an_identity_makes_smooth(name):
    function, slope, bend = RIGHT[name]
    w = WEIGHTS
    gradient, curvature, _ = diagonal(function, w)
    np.testing.assert_allclose([gradient[0], curvature[0]], [slope, bend], atol=1e-14)
    step = 1e-4

    def value(w):
        return function(tf.constant(w)).numpy()

    above, below = value(w + step), value(w - step)
    np.testing.assert_allclose(gradient[1:], (above - below)[1:] / (2 * step), atol=1e-7)
    bends = (above - 2 * value(w) + below)[1:] / step**2
    np.testing.assert_allclose(curvature[1:], bends, atol=1e-6)


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["sin", "log1p"])
def test_quotients_have_all_digits_near_zero_and_far(name):
    """On [0, 1], sin(u)/u is the integral of cos(ut), and log(1 + u)/u that of 1/(1 + ut)."""
    w = np.array([1e-12, 1e-3, 0.09, 0.11, 0.49, 0.51, 2.0, 30.0])
    nodes, weights = np.polynomial.legendre.leggauss(200)
    t, weights = (nodes + 1) / 2, weights / 2
    u = w[:, None] * t
    if name == "sin":
        function = chosen(ones, lambda w: tf.sin(w) / nonzero(w))
        slopes, bends = -t * np.sin(u), -(t**2) * np.cos(u)
    else:
        function = chosen(ones, lambda w: tf.math.log1p(w) / nonzero(w))
        slopes, bends = -t / (1 + u) ** 2, 2 * t**2 / (1 + u) ** 3
    gradient, curvature, _ = diagonal(function, w)
    np.testing.assert_allclose(gradient, slopes @ weights, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(curvature, bends @ weights, rtol=1e-12, atol=1e-15)


def max_of_windows(x):
    return tf.nn.max_pool2d(x, [1, 2], 1, "VALID")


def both_ends(largest):
    """eᵃ + eᵇ of the larger and the smaller of w₀ and 2w₀, smooth and of slope 3 at zero."""

    def function(w):
        row = tf.reshape(w[:1] * tf.constant([1, 2], w.dtype), [1, 1, 2, 1])
        return tf.reduce_sum(tf.exp(largest(row)) + tf.exp(-largest(-row)))

    return function


def beside(smooth, kinked):
    """The first of two entries w₀ in a smooth function of kinks, the second in one with a kink."""
    return lambda w: (
        smooth(w[:1] * tf.ones([2], w.dtype))[0] + 3 * kinked(w[:1] * tf.ones([2], w.dtype))[1]
    )


def beside_in_windows(w):
    row = tf.reshape(w[:1] * tf.constant([1, 2, 1, 2], w.dtype), [1, 1, 4, 1])
    largest, least = (s * tf.nn.max_pool2d(s * row, [1, 2], [1, 2], "VALID") for s in (1, -1))
    ends = tf.exp(largest) + tf.exp(least)
    return ends[0, 0, 0, 0] + 3 * largest[0, 0, 1, 0]


REFUSED = {
    "a zero": (chosen(lambda w: w * 0, tf.sin), "Equal"),
    "(1 - cos w)/w²": (
        chosen(lambda w: ones(w) / 2, lambda w: (1 - tf.cos(w)) / nonzero(w) ** 2),
        "Equal",
    ),
    "a branch": (
        lambda w: tf.cond(tf.equal(w[0], 0), lambda: w[0] * 0, lambda: tf.sin(w[0]) + 0 * w[1]),
        "Equal",
    ),
    "a mask": (lambda w: w * tf.cast(tf.not_equal(w, 0), w.dtype), "NotEqual"),
    "a thin interval": (
        lambda w: tf.where(tf.abs(w) < 1e-9, ones(w), tf.cos(w)),
        "Less",
    ),
    "not a number": (
        lambda w: tf.where(tf.math.is_nan(tf.sin(w) / w), ones(w), tf.sin(w) / w),
        "IsNan",
    ),
    "the square of a norm": (
        lambda w: tf.where(
            tf.reduce_sum(w[:1] ** 2) > 0,
            tf.sin(tf.sqrt(tf.reduce_sum(nonzero(w[:1]) ** 2))) ** 2,
            0 * w[0],
        ),
        "Greater",
    ),
    "the end of a domain": (chosen(lambda w: 0 * w, lambda w: w * tf.math.log(nonzero(w))), "Eq"),
    "divide_no_nan": (lambda w: tf.math.divide_no_nan(w**3, w), "DivNoNan"),
    "reciprocal_no_nan": (lambda w: tf.math.reciprocal_no_nan(w) * w**2, "DivNoNan"),
    "xdivy": (lambda w: tf.math.xdivy(w**3, w), "Xdivy"),
    "a symmetric logarithm": (lambda w: tf.sign(w) * tf.math.log1p(tf.abs(w)), "Sign"),
    "a shifted size": (lambda w: (tf.abs(w) + 1) ** 2 - 2 * tf.abs(w), "Abs"),
    "Fair's loss": (lambda w: tf.abs(w) - tf.math.log1p(tf.abs(w)), "Abs"),
    "two rectifiers": (lambda w: tf.sin(tf.nn.relu(w) - tf.nn.relu(-2 * w) / 2), "Relu"),
    "clips to both sides": (
        lambda w: tf.clip_by_value(w, 0.0, 9.0) + tf.clip_by_value(w, -9.0, 0.0),
        "M..imum",
    ),
    "a clip and a rectifier": (lambda w: tf.nn.relu6(w) - tf.nn.relu(-2 * w) / 2, "Relu6"),
    "leaky rectifiers": (lambda w: tf.nn.leaky_relu(w) - tf.nn.leaky_relu(-w), "LeakyRelu"),
    "kinks of shifted values": (
        lambda w: tf.maximum(w[:, None] + 1, 1.0)[:, 0] + tf.minimum(w, 0.0),
        "M..imum",
    ),
    "kinks of functions of one value": (
        lambda w: tf.nn.relu(tf.tanh(w)) - tf.tanh(tf.nn.relu(-w)),
        "Relu",
    ),
    "rectifiers of both signs in a row": (
        lambda w: tf.einsum(
            "ki,k->i", tf.nn.relu(tf.stack([w, -w])), tf.constant([1, -1], w.dtype)
        ),
        "Relu",
    ),
    "rectifiers of a part": (
        lambda w: tf.concat([tf.nn.relu(w)[:2] - tf.nn.relu(-w[:2]), w[2:]], 0),
        "Relu",
    ),
    "exponential units of both signs": (lambda w: tf.nn.elu(w) + tf.nn.elu(-w), "Elu"),
    "the square of a range": (
        lambda w: w + (tf.reduce_max(w[:1] * [1, 3]) - tf.reduce_min(w[:1] * [1, 3])) ** 2,
        "M",
    ),
    "the larger of two squares": (
        lambda w: w + tf.reduce_max(tf.stack([w[:1] ** 2, 2 * w[:1] ** 2], 1), 1),
        "Max",
    ),
    "the largest and the smallest of windows": (
        lambda w: w + both_ends(max_of_windows)(w),
        "MaxPool",
    ),
    "the largest and the smallest of windows, with their places": (
        lambda w: w + both_ends(lambda x: tf.nn.max_pool_with_argmax(x, [1, 2], 1, "VALID")[0])(w),
        "MaxPoolWithArgmax",
    ),
    "the largest and the smallest of segments": (
        lambda w: w + both_ends(lambda x: tf.math.segment_max(tf.reshape(x, [-1]), [0, 0]))(w),
        "SegmentMax",
    ),
    "the largest and the smallest of unsorted segments": (
        lambda w: (
            w
            + both_ends(lambda x: tf.math.unsorted_segment_max(tf.reshape(x, [-1]), [1, 1], 2)[1:])(
                w
            )
        ),
        "UnsortedSegmentMax",
    ),
    "rectifiers that cancel beside one that does not": (
        lambda w: (
            w + beside(lambda x: tf.sin(tf.nn.relu(x) - tf.nn.relu(-2 * x) / 2), tf.nn.relu)(w)
        ),
        "Relu",
    ),
    "sizes that cancel beside one that does not": (
        lambda w: w + beside(lambda x: tf.abs(x) - tf.math.log1p(tf.abs(x)), tf.abs)(w),
        "Abs",
    ),
    "windows that cancel beside one that does not": (
        lambda w: w + beside_in_windows(w),
        "MaxPool",
    ),
    "max + min": (lambda w: tf.sin(tf.maximum(w, 3 * w * w) + tf.minimum(w, 3 * w * w)), "Maximum"),
}


def in_loop(step):
    """The sum of a function over three iterations."""
    return lambda w: tf.while_loop(
        lambda i, total: i < 3, lambda i, total: (i + 1, total + step(w)), (0, tf.zeros_like(w))
    )[1]


def iterated(step):
    """A function of its own result."""
    return lambda w: tf.while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, step(x)), (0, w))[1]


hole = chosen(lambda w: 0 * w, tf.sin)
REFUSED |= {
    "in a loop": (in_loop(hole), "Equal"),
    "in the second iteration": (lambda w: iterated(lambda x: hole(x) / 2)(w) + 0 * w, "Equal"),
    "in a loop in a loop": (in_loop(iterated(hole)), "Equal"),
    "in a scan": (lambda w: tf.scan(lambda a, x: a + hole(x), w, tf.zeros([], w.dtype)), "Equal"),
    "in a branch": (lambda w: tf.cond(w[1] > 0, lambda: hole(w), lambda: w), "Equal"),
    "in one of three": (
        lambda w: tf.switch_case(tf.cast(10 * w[1], tf.int32) // 6, [lambda: w, lambda: hole(w)]),
        "Equal",
    ),
    "exp(-|x|) of a square": (lambda w: tf.math.bessel_i0e(w**2), "BesselI0e"),
    "kinks in a loop": (in_loop(lambda w: tf.nn.relu(w) - tf.nn.relu(-w)), "Relu"),
}
OFTEN = {
    "the largest and the smallest of windows",
    "rectifiers that cancel beside one that does not",
    "clips to both sides",
    "in a loop",
    "in a branch",
    "a zero",
    "a branch",
    "divide_no_nan",
    "max + min",
    "the end of a domain",
}


def require_refused(name, dtype):
    function, kind = REFUSED[name]

    def loss(w):
        return tf.reduce_sum(function(w) * tf.constant([1, 0.3, 2], w.dtype))

    message = rf"got {kind}.* at this point alone, in batch 1; write"
    with pytest.raises(hvp.InputError, match=message):
        hvp.linearize_function(loss, WEIGHTS.astype(dtype), jit=False)
    hvp.linearize_function(loss, WEIGHTS.astype(dtype) + 0.2, jit=False)


@pytest.mark.parametrize("name", sweep(REFUSED, OFTEN))
def test_a_piece_at_a_point_is_refused_by_operation(name):
    require_refused(name, "float64")


# Near zero (1 - cos w)/w² has no digits in float32: it is compared in float64 too.
@pytest.mark.parametrize("name", sweep(REFUSED, {"(1 - cos w)/w²"}))
def test_a_piece_at_a_point_is_refused_in_float32(name):
    require_refused(name, "float32")


# What has its true derivatives, or is one-sided at a kink as documented: gradients at zero.
ACCEPTED = {
    "a Taylor polynomial on an interval": (
        lambda w: tf.where(
            tf.abs(w) < 1e-2,
            1 - w / 2 + w**2 / 6 - w**3 / 24,
            (1 - tf.exp(-w)) / tf.where(tf.abs(w) < 1e-2, ones(w), w),
        ),
        -1 / 2,
    ),
    "a rectifier": (lambda w: tf.where(w > 0, w, 0 * w), 0),
    "rectifiers of both signs": (lambda w: tf.nn.relu(w) + 2 * tf.nn.relu(-w), 0),
    "rectifiers of both signs in a row": (
        lambda w: tf.nn.relu(tf.concat([w, -w], 0))[:3] + 2 * tf.nn.crelu(w)[3:],
        0,
    ),
    "rectifiers of parts": (
        lambda w: tf.concat([tf.nn.relu(w[:1]), -tf.nn.relu(-w[1:2]), tf.nn.relu(w[2:])], 0),
        0,
    ),
    "log Σ exp of equal entries": (
        lambda w: (
            tf.reduce_max([w, 0 * w], 0)
            + tf.math.log(tf.reduce_sum(tf.exp([w, 0 * w] - tf.reduce_max([w, 0 * w], 0)), 0))
        ),
        1 / 2,
    ),
    "the largest and the smallest": (
        lambda w: 0 * w + tf.reduce_max(w[:1] * [1, 2]) + tf.reduce_min(w[:1] * [1, 2]),
        9,
    ),
    "the largest of equal entries": (lambda w: tf.reduce_max([w, 0 * w], 0), 1 / 2),
    "squares of rectifiers": (lambda w: tf.nn.relu(w) ** 2 + 2 * tf.nn.relu(-w) ** 2, 0),
    "the square of the largest entry": (lambda w: tf.reduce_max([w, 0 * w], 0) ** 2, 0),
    "a norm that is zero": (
        lambda w: tf.where(tf.equal(w, 0), 0 * w, tf.sqrt(tf.where(tf.equal(w, 0), ones(w), w**2))),
        0,
    ),
    "a sign": (lambda w: 2 * w + tf.sign(w) + tf.cast(tf.not_equal(w, 0), w.dtype), 2),
    "a symmetric logarithm by its sides": (
        lambda w: tf.where(w >= 0, tf.math.log1p(w), -tf.math.log1p(-w)),
        1,
    ),
    "both sides of a condition": (
        lambda w: tf.where(w >= 0, tf.exp(-w), 1 - tf.sin(w)) + tf.cast(w < 0, w.dtype),
        -1,
    ),
    "a dead unit": (
        lambda w: (
            tf.math.divide_no_nan(w, tf.nn.relu(w - 1)) + chosen(ones, tf.sin)(tf.nn.relu(w - 1))
        ),
        0,
    ),
    "a clip": (lambda w: tf.clip_by_value(w, 0.0, 9.0), 1),
    "rectifiers in a loop": (in_loop(lambda w: tf.nn.relu(w) + 2 * tf.nn.relu(-w)), 0),
    "a Taylor polynomial in a loop": (
        in_loop(lambda w: tf.where(tf.abs(w) < 1e-2, w - w**3 / 6, tf.sin(w))),
        3,
    ),
    "a loop that ends by its values": (
        lambda w: tf.while_loop(lambda x: x[1] > 0.1, lambda x: (x / 2 + 0 * hole(w[1:2]),), (w,))[
            0
        ],
        1 / 8,
    ),
    "an absolute value": (lambda w: tf.abs(w) + 2 * w, 2),
    "Huber's loss of Keras": (
        lambda w: keras.losses.Huber(reduction=None)(0 * w[:, None], w[:, None]),
        0,
    ),
    "softsign": (tf.nn.softsign, 1),
    "exp(-|x|) of a factor": (lambda w: tf.math.bessel_i1e(w), 1 / 2),
    "exp(-|x|) that cancels": (lambda w: tf.math.bessel_i1e(w) * tf.exp(tf.abs(w)), 1 / 2),
    "a clipped norm": (lambda w: tf.clip_by_norm(w[:1], 5.0) + 0 * w, 3),
}
ACCEPTED_OFTEN = {
    "a Taylor polynomial on an interval",
    "rectifiers of both signs",
    "the largest of equal entries",
    "a norm that is zero",
    "a symmetric logarithm by its sides",
    "both sides of a condition",
    "a dead unit",
    "a clip",
    "rectifiers in a loop",
    "an absolute value",
    "softsign",
}


@pytest.mark.parametrize("dtype", sweep(["float64", "float32"], {"float64"}))
@pytest.mark.parametrize("name", sweep(ACCEPTED, ACCEPTED_OFTEN))
def test_what_is_no_piece_at_a_point_is_accepted(name, dtype):
    function, slope = ACCEPTED[name]
    gradient, _, _ = diagonal(function, WEIGHTS.astype(dtype))
    assert gradient[0] == pytest.approx(slope, abs=1e-6)


POLES = {
    "1/w": (tf.math.reciprocal_no_nan, "DivNoNan"),
    "1/w²": (lambda w: tf.math.divide_no_nan(tf.ones_like(w), w**2), "DivNoNan"),
    "1/w beside a large loss": (lambda w: 1e4 + tf.math.reciprocal_no_nan(w), "DivNoNan"),
    "1/|w|": (lambda w: tf.math.reciprocal_no_nan(tf.abs(w)), "DivNoNan"),
    "1/w where w is not zero": (chosen(tf.zeros_like, lambda w: 1 / nonzero(w)), "Equal"),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", POLES)
def test_a_pole_that_is_left_out_at_its_point_is_refused(name, dtype):
    function, operation = POLES[name]
    with pytest.raises(hvp.InputError, match=f"{operation}.*tends to infinity, in batch 1"):
        diagonal(function, WEIGHTS.astype(dtype))


def test_a_pole_of_a_dead_unit_is_accepted():
    """There the loss is zero all around."""
    _, second, _ = diagonal(lambda w: tf.math.reciprocal_no_nan(tf.nn.relu(w - 0.5)), WEIGHTS)
    np.testing.assert_allclose(second, [0, 2 / 0.2**3, 0], rtol=1e-12)


ENTROPIES = {
    "w log w": lambda w: tf.math.xlogy(w, w),
    "w log(1 + (w - 1))": lambda w: tf.math.xlog1py(w, w - 1),
    "w log w²": lambda w: tf.math.xlogy(w, w**2),
    "w² log w²": lambda w: tf.math.xlogy(w**2, w**2),
}


@pytest.mark.parametrize("name", ENTROPIES)
def test_an_infinite_curvature_of_an_entropy_is_refused(name):
    with pytest.raises(hvp.InputError, match=r"Xlog.*y.* at this point alone"):
        diagonal(ENTROPIES[name], WEIGHTS)


def test_a_logarithm_outside_its_domain_counts_nothing_where_its_factor_is_zero():
    gradient, second, _ = diagonal(lambda w: tf.math.xlog1py(w, [-2.0, 1, 2]), WEIGHTS)
    np.testing.assert_allclose(gradient, np.log([1, 2, 3]), rtol=1e-12)
    np.testing.assert_array_equal(second, 0)


def test_an_entropy_of_a_dead_unit_is_accepted():
    def entropy(w):
        unit = tf.nn.relu(w - 0.5)
        return tf.math.xlogy(unit, unit)

    _, second, _ = diagonal(entropy, WEIGHTS)
    np.testing.assert_allclose(second, [0, 1 / 0.2, 0], rtol=1e-12)


@pytest.mark.sweep
def test_a_power_of_zero_is_refused_where_its_exponent_is_zero():
    """0ᵖ is 0 for p > 0 and infinite for p < 0."""
    base = tf.constant([0.0, 2.0], tf.float64)

    def loss(p):
        return tf.reduce_sum(base**p)

    with pytest.raises(hvp.InputError, match=r"got Pow .* in batch 1; keep an exponent"):
        hvp.linearize_function(loss, np.zeros(2))
    lin = hvp.linearize_function(loss, np.array([0.5, 0.0]))
    np.testing.assert_allclose(lin.hvp(np.ones(2)), [0, np.log(2) ** 2])
    constant = hvp.linearize_function(lambda w: tf.reduce_sum(w**0 + w**2), np.zeros(2))
    np.testing.assert_allclose(constant.hvp(np.ones(2)), [2, 2])


@pytest.mark.parametrize("seed", range(3))
def test_kinks_of_many_signs_are_accepted(seed):
    """Concatenated rectifiers of units that are zero, each with a weight of its own."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 40))

    def loss(w):
        return tf.reduce_sum(a * tf.nn.relu(w) + b * tf.nn.relu(-w))

    assert not hvp.linearize_function(loss, np.zeros(40)).hvp(np.ones(40)).any()


def test_conditions_on_data_are_not_checked():
    def loss(w, x):
        masked = tf.where(tf.equal(x, 0), 0 * x, x * w)
        return tf.reduce_sum(tf.math.divide_no_nan(masked**2, x))

    x = np.array([[0.0], [2.0]])
    lin = hvp.linearize_function(loss, np.ones(1), x, reduction="sum")
    np.testing.assert_allclose(lin.hvp(np.ones(1)), [4.0])
    spec = tf.TensorSpec([1], tf.float64)
    program = tracing.trace(loss, spec, tf.TensorSpec([2, 1], tf.float64))
    assert isolated_points.families(program, program.inputs[:1]) == []
    assert isolated_points.families(program, program.inputs)


class Quotient(keras.layers.Layer):
    def call(self, x):
        return tf.math.divide_no_nan(1 - tf.cos(x), x)


def test_a_test_in_lower_precision_is_checked():
    """A cast to float32, as Keras's nansum has it."""
    lin = hvp.linearize_function(lambda w: keras.ops.nansum(w**2), np.array([1.0, 2.0]))
    np.testing.assert_allclose(lin.hvp(np.eye(2)), 2 * np.eye(2))


def test_the_refusal_names_layer_and_batch():
    layer = Quotient(dtype="float64", name="quotient")
    assert_refused_in_second_batch(layer, "DivNoNan", np.ones((1, 2)))


def test_a_penalty_is_checked():
    def penalty(kernel):
        return tf.reduce_sum(tf.math.divide_no_nan(kernel**3, kernel))

    dense = keras.layers.Dense(
        1, use_bias=False, kernel_initializer="zeros", kernel_regularizer=penalty, dtype="float64"
    )
    model = keras.Sequential([keras.Input((2,), dtype="float64"), dense])
    with pytest.raises(hvp.InputError, match=r"DivNoNan in .* in the penalty"):
        hvp.linearize(model, (np.ones((4, 2)), np.zeros((4, 1))), "mse")

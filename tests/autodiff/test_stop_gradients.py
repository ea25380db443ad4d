"""The StopGradient of tf.nn.moments goes, a user's own stays.

The nested tape on a user's own function honours every StopGradient, central differences of the
gradient none of those that leave the gradient as it is.
"""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import (
    differenced_hessian,
    examples,
    gradient,
    hessian,
    hessian_along,
    moments_are_falsified,
    randomised,
    relative,
    sequential,
    squared_loss,
    variables_of,
)
from support.sweep import sweep

import hvp

layers = keras.layers
F64 = {"dtype": "float64"}


def attention() -> keras.Model:
    i = keras.Input((4, 6), **F64)
    a = layers.MultiHeadAttention(2, 3, name="attention", **F64)(i, i)
    h = layers.LayerNormalization(name="norm1", **F64)(layers.Add(**F64)([i, a]))
    f = layers.Dense(6, **F64)(layers.Dense(5, "gelu", name="feed", **F64)(h))
    h = layers.LayerNormalization(name="norm2", **F64)(layers.Add(**F64)([h, f]))
    z = layers.Dense(2, name="head", **F64)(layers.GlobalAveragePooling1D(**F64)(h))
    return randomised(keras.Model(i, z, name="net"), scale=0.4)


def dense_and(*norm: keras.Layer) -> keras.Model:
    tanh = layers.Activation("tanh", **F64)
    return sequential((4,), layers.Dense(6, **F64), *norm, tanh, layers.Dense(2, **F64))


def conv_and(*norm: keras.Layer) -> keras.Model:
    conv = layers.Conv2D(4, 2, **F64)
    tail = [layers.Activation("tanh", **F64), layers.Flatten(**F64), layers.Dense(2, **F64)]
    return sequential((4, 4, 1), conv, *norm, *tail)


NETWORKS = {
    "layer norm": (lambda: dense_and(layers.LayerNormalization(**F64)), False),
    "group norm": (lambda: conv_and(layers.GroupNormalization(2, **F64)), False),
    "layer norm over images": (
        lambda: conv_and(layers.LayerNormalization(axis=[1, 2, 3], **F64)),
        False,
    ),
    "batch norm, training": (lambda: dense_and(layers.BatchNormalization(**F64)), True),
    "attention": (attention, False),
}


@pytest.mark.sweep
@pytest.mark.parametrize(("build", "training"), NETWORKS.values(), ids=NETWORKS)
def test_normalised_networks_match_central_differences(build, training):
    model = build()
    x = examples(model.input_shape[1:], 5)
    y = examples((2,), 5)
    loss = keras.losses.MeanSquaredError(dtype="float64")
    lin = hvp.linearize(model, (x, y), loss, training=training)
    v = examples((lin.size,), 1)[0]
    expected = hessian_along(
        lambda: squared_loss(y, model(x, training=training)), variables_of(model), v
    )
    assert relative(lin.hvp(v), expected) < 1e-8
    assert relative(lin.gnvp(v) + lin.residual_vp(v), expected) < 1e-8
    found = any("StopGradient of tf.nn.moments removed" in f.message for f in lin.findings)
    assert found == moments_are_falsified()


def test_the_finding_names_the_layer():
    model = attention()
    lin = hvp.linearize(model, (examples((4, 6), 5), examples((2,), 5)), "mse")
    places = [f.layer for f in lin.findings if "StopGradient" in f.message]
    assert [place.split("/")[-1] for place in places] == [
        "norm1",
        "norm2",
    ] * moments_are_falsified()


# --- written by hand ---

W = np.random.default_rng(5).standard_normal((3, 4))


def product_of(function):
    return hvp.linearize_function(function, W).hvp(np.eye(12))


def moments(w, axes, keepdims):
    mean, variance = tf.nn.moments(w, axes, keepdims=keepdims)
    return tf.reduce_sum(tf.math.log(variance + 0.1) * (1 + mean))


@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize("axes", [[0], [1], [0, 1], [-1]])
def test_second_derivatives_of_moments_are_those_of_the_variance(axes, keepdims):
    variable = tf.Variable(W)
    expected = differenced_hessian(lambda: moments(variable, axes, keepdims), [variable])
    assert relative(product_of(lambda w: moments(w, axes, keepdims)), expected) < 1e-8


def squares_around(centre, axes):
    def function(w):
        inside = tf.math.squared_difference(w, tf.stop_gradient(centre(w)))
        return tf.reduce_sum(tf.math.log(tf.reduce_mean(inside, axes) + 0.1))

    return function


def mean(axes):
    return lambda w: tf.reduce_mean(w, axes, keepdims=True)


def doubly_used(w):
    stopped = tf.stop_gradient(tf.reduce_mean(w, 1, keepdims=True))
    variance = tf.reduce_mean(tf.math.squared_difference(w, stopped), 1)
    return tf.reduce_sum(variance**2) + tf.reduce_sum(stopped * w)


def summed(w):
    centred = tf.math.squared_difference(w, tf.stop_gradient(tf.reduce_mean(w, 1, keepdims=True)))
    return tf.reduce_sum(tf.reduce_mean(centred, 1) ** 2) + tf.reduce_sum(centred**2)


def cubed(w):
    centred = w - tf.stop_gradient(tf.reduce_mean(w, 1, keepdims=True))
    return tf.reduce_sum(tf.reduce_mean(centred**3, 1) ** 2)


OWN = {
    "a detached factor": lambda w: tf.reduce_sum(w**2 * tf.stop_gradient(w**3)),
    "a detached branch": lambda w: tf.reduce_sum(tf.sin(w) * w + tf.stop_gradient(tf.cos(w) * w)),
    "a mean over other axes": squares_around(mean(0), 1),
    "a mean over fewer axes": squares_around(mean(1), [0, 1]),
    "another mean": squares_around(lambda w: tf.reduce_mean(w**2, 1, keepdims=True), 1),
    "a maximum": squares_around(lambda w: tf.reduce_max(w, 1, keepdims=True), 1),
    "the mean, used once more": doubly_used,
    "the squares, used once more": summed,
    "cubes": cubed,
}


@pytest.mark.parametrize(
    "name", sweep(OWN, {"a detached factor", "another mean", "a maximum", "cubes"})
)
def test_a_users_own_stop_gradient_stays(name):
    function = OWN[name]
    variable = tf.Variable(W)
    expected = hessian(lambda: function(variable), [variable])
    assert relative(product_of(function), expected) < 1e-12
    lin = hvp.linearize_function(function, W)
    assert not [f for f in lin.findings if "StopGradient" in f.message]


def test_a_users_stop_gradient_beside_moments_stays():
    def function(w):
        variance = tf.nn.moments(w, [1])[1]
        return tf.reduce_sum(tf.math.log(variance) * tf.stop_gradient(variance**2))

    def held_fixed(w):
        return tf.reduce_sum(tf.math.log(tf.math.reduce_variance(w, 1)) * held)

    variable, held = tf.Variable(W), tf.constant(np.var(W, axis=1) ** 2)
    expected = differenced_hessian(lambda: held_fixed(variable), [variable])
    assert relative(product_of(function), expected) < 1e-8


# --- against the values of the loss alone ---


def by_differences(loss, point):
    """vᵀ∇L and vᵀHv by fourth-order differences, for the v that comes with them, and the products.

    They share no derivative with TensorFlow, whose gradient of these losses may be wrong.
    """
    run = tf.function(loss, autograph=False)

    def at(t):
        parts = np.split(t, np.cumsum([p.size for p in point])[:-1])
        pairs = zip(parts, point, strict=True)
        return float(run([tf.constant(a.reshape(p.shape)) for a, p in pairs]))

    theta = np.concatenate([p.ravel() for p in point])
    v = np.random.default_rng(2).normal(size=theta.size)
    v /= np.linalg.norm(v)
    h = 1e-3
    near, far = (at(theta + s * v) - at(theta - s * v) for s in (h, 2 * h))
    bends = [16 * (at(theta + h * v) + at(theta - h * v)), at(theta + 2 * h * v)]
    curved = (bends[0] - bends[1] - at(theta - 2 * h * v) - 30 * at(theta)) / (12 * h**2)
    return v, (8 * near - far) / (12 * h), curved


def assert_right(loss, point):
    point = [np.asarray(p, float) for p in point]
    lin = hvp.linearize_function(loss, point)
    v, slope, curved = by_differences(loss, point)
    assert v @ lin.gradient() == pytest.approx(slope, rel=1e-6, abs=1e-9)
    assert v @ lin.hvp(v) == pytest.approx(curved, rel=1e-4, abs=1e-7)
    return lin


def different(lin):
    return [f.message for f in lin.findings if f.severity == "different"]


draws = np.random.default_rng(0)
X6, Y6 = tf.constant(draws.normal(size=(6, 4))), tf.constant(draws.normal(size=(6, 2)))
NORMALISATIONS = {
    "batch": lambda: layers.BatchNormalization(**F64),
    "layer": lambda: layers.LayerNormalization(**F64),
    "group": lambda: layers.GroupNormalization(2, **F64),
    "root mean square": lambda: layers.RMSNormalization(**F64),
}


def normalised(norm):
    """A network of parameters and examples, in training, and parameters."""
    tanh = layers.Activation("tanh", **F64)
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="float64"),
            layers.Dense(6, **F64),
            NORMALISATIONS[norm](),
            tanh,
            layers.Dense(2, **F64),
        ]
    )

    def network(params, x):
        return model.stateless_call(list(params), model.non_trainable_variables, x, training=True)[
            0
        ]

    drawn = np.random.default_rng(3)
    return network, [0.2 + 0.6 * drawn.normal(size=v.shape) for v in model.trainable_variables]


def inner_step(network):
    """The loss after a step of gradient descent on other examples (MAML)."""

    def loss(params):
        with tf.GradientTape() as tape:
            tape.watch(params)
            inner = tf.reduce_mean((network(params, X6) - Y6) ** 2)
        slopes = tape.gradient(inner, params)
        moved = [p - 0.1 * slope for p, slope in zip(params, slopes, strict=True)]
        return tf.reduce_mean((network(moved, X6[::-1]) - Y6) ** 2)

    return loss


def gradient_penalty(network):
    def loss(params):
        with tf.GradientTape() as tape:
            tape.watch(X6)
            values = network(params, X6)
        return tf.reduce_mean((tf.norm(tape.gradient(values, X6), axis=1) - 1) ** 2)

    return loss


def jacobian_penalty(network):
    def loss(params):
        with tf.GradientTape() as tape:
            tape.watch(X6)
            values = network(params, X6)
        return tf.reduce_mean(tape.batch_jacobian(values, X6) ** 2)

    return loss


def tangent_penalty(network):
    def loss(params):
        with tf.autodiff.ForwardAccumulator(X6, tf.cos(X6)) as forward:
            values = network(params, X6)
        return tf.reduce_mean(forward.jvp(values) ** 2)

    return loss


INNER = [
    ("batch", inner_step),
    ("batch", gradient_penalty),
    ("batch", tangent_penalty),
    ("layer", inner_step),
    ("layer", gradient_penalty),
    ("layer", jacobian_penalty),
    ("group", gradient_penalty),
    ("group", jacobian_penalty),
    ("root mean square", gradient_penalty),
]


ALWAYS = {"layer-gradient_penalty", "batch-gradient_penalty"}


@pytest.mark.parametrize("case", sweep(INNER, ALWAYS, lambda case: f"{case[0]}-{case[1].__name__}"))
def test_derivatives_through_a_normalisation_inside_the_loss_are_those_of_its_values(case):
    norm, inner = case
    network, point = normalised(norm)
    loss = inner(network)
    lin = assert_right(loss, point)
    variables = [tf.Variable(p) for p in point]
    followed = tf.function(lambda: loss([v.read_value() for v in variables]), autograph=False)
    is_followed = relative(gradient(followed, variables), lin.gradient()) < 1e-8
    assert is_followed is not any("tf.nn.moments" in message for message in different(lin))


IMAGES = tf.constant(draws.normal(size=(2, 3, 3, 2)), tf.float32)


@pytest.mark.sweep
@pytest.mark.parametrize("is_training", [True, False])
def test_a_gradient_penalty_through_fused_batch_normalisation(is_training):
    statistics = {} if is_training else {"mean": [0.1, 0.2], "variance": [1.5, 0.7]}

    def penalty(images, w, scale, offset, normalise):
        with tf.GradientTape() as tape:
            tape.watch(images)
            value = tf.reduce_sum(tf.sin(normalise(images @ w, scale, offset)))
        return tf.reduce_sum(tape.gradient(value, images) ** 2)

    def fused(x, scale, offset):
        return tf.compat.v1.nn.fused_batch_norm(
            x, scale, offset, is_training=is_training, epsilon=1e-3, **statistics
        )[0]

    def written_out(x, scale, offset):
        kind = x.dtype
        mean, variance = (tf.constant(s, kind) for s in statistics.values() or ([0, 0], [0, 0]))
        if is_training:
            mean = tf.reduce_mean(x, [0, 1, 2])
            variance = tf.reduce_mean((x - mean) ** 2, [0, 1, 2])
        return (x - mean) * tf.math.rsqrt(variance + 1e-3) * scale + offset

    point = [draws.normal(size=(2, 2)), np.array([1.5, 0.7]), np.array([0.3, -0.2])]
    singles = [p.astype(np.float32) for p in point]
    lin = hvp.linearize_function(lambda p: penalty(IMAGES, *p, fused), singles)
    wide = tf.cast(IMAGES, tf.float64)
    expected = assert_right(lambda p: penalty(wide, *p, written_out), point)
    v = draws.normal(size=8)
    assert relative(lin.gradient(), expected.gradient()) < 1e-4
    assert relative(lin.hvp(v), expected.hvp(v)) < 1e-4


# --- the stop_gradients of TensorFlow and Keras that change nothing ---


def after_a_step(function):
    """The function after a step of gradient descent along it."""

    def moved(params):
        (w,) = params
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = tf.reduce_sum(function(w) ** 2)
        return tf.reduce_sum(function(w - 0.3 * tape.gradient(value, w)) ** 2)

    return moved


def softmax(w):
    powers = tf.exp(w - tf.stop_gradient(tf.reduce_max(w, -1, keepdims=True)))
    return powers / tf.reduce_sum(powers, -1, keepdims=True)


def masked(w):
    return tf.where([True, False, True, True], w, -np.inf)


SAMPLED = (
    tf.constant([1, 3], tf.int64),
    tf.fill([2, 1], tf.constant(0.5, tf.float64)),
    tf.constant([0.5, 0.4], tf.float64),
)


def sampled(loss):
    def function(params):
        labels = tf.constant([[0], [2]], tf.int64)
        values = loss(params[0], params[1], labels, X6[:2], 2, 5, sampled_values=SAMPLED)
        return tf.reduce_sum(values**2)

    return function, [draws.normal(size=(5, 4)), draws.normal(size=5)]


def of(function):
    return lambda params: tf.reduce_sum(function(params[0]) ** 2), [W]


def normalised_moments(w):
    return tf.nn.normalize_moments(*tf.nn.sufficient_statistics(w, [1])[:3], None)[1]


HARMLESS = {
    "log-sum-exp": of(lambda w: tf.reduce_logsumexp(w, axis=1)),
    "log-sum-exp of large numbers": of(lambda w: tf.reduce_logsumexp(900 * w, axis=1)),
    "log-sum-exp, masked": of(lambda w: tf.reduce_logsumexp(masked(w), axis=1)),
    "log-sum-exp of Keras": of(lambda w: keras.ops.logsumexp(w, 1)),
    "log-sum-exp after a step": (after_a_step(lambda w: tf.reduce_logsumexp(w, 1)), [W]),
    "softmax": of(softmax),
    "softmax after a step": (after_a_step(softmax), [W]),
    "sampled softmax": sampled(tf.nn.sampled_softmax_loss),
    "noise-contrastive estimation": sampled(tf.nn.nce_loss),
    "weighted moments": of(lambda w: tf.nn.weighted_moments(w, [1], tf.exp(w))[1]),
    "normalised moments": of(normalised_moments),
    "variance": of(lambda w: keras.ops.var(w, 1)),
    "moments of Keras": of(lambda w: keras.ops.moments(w, 1)[1]),
    "unit norm": of(lambda w: tf.sin(tf.nn.l2_normalize(w, 1))),
    "unit norm of Keras": of(lambda w: tf.sin(keras.ops.normalize(w, 1))),
    "clipping by norm": of(lambda w: tf.sin(tf.clip_by_norm(w, 1.0))),
}


@pytest.mark.sweep
@pytest.mark.parametrize(("loss", "point"), HARMLESS.values(), ids=HARMLESS)
def test_a_stop_gradient_that_changes_nothing_is_no_finding(loss, point):
    assert not different(assert_right(loss, point))


# --- those that make a constant of what `fit` takes for one ---


def loop_without_gradient(w):
    return tf.while_loop(
        lambda i, a: i < 3, lambda i, a: (i + 1, tf.sin(a)), (0, w), back_prop=False
    )[1]


def old_cross_entropy(w):
    return tf.compat.v1.nn.softmax_cross_entropy_with_logits(labels=tf.nn.softmax(w), logits=w**2)


def in_a_loop(w):
    return tf.while_loop(
        lambda i, a: i < 3, lambda i, a: (i + 1, tf.stop_gradient(w) * tf.sin(a)), (0, w)
    )[1]


CONSTANT = {
    "a loop without gradient": lambda w: tf.reduce_sum(loop_without_gradient(w) * w),
    "labels of the old cross-entropy": lambda w: tf.reduce_sum(old_cross_entropy(w)),
    "inside a loop": lambda w: tf.reduce_sum(in_a_loop(w)),
    "the user's own": lambda w: tf.reduce_sum(tf.stop_gradient(w**2) * w),
}


@pytest.mark.parametrize("function", CONSTANT.values(), ids=CONSTANT)
def test_a_stop_gradient_that_matters_is_a_finding_with_its_size(function):
    (message,) = different(hvp.linearize_function(function, W))
    size = float(re.search(r"which differs by (\S+) of its size without it", message).group(1))
    variable = tf.Variable(W)
    followed = gradient(tf.function(lambda: function(variable), autograph=False), [variable])
    v, slope, _ = by_differences(lambda params: function(params[0]), [W])
    assert size > 0.01
    assert abs(v @ followed - slope) > 1e-3


def test_a_stop_gradient_that_changes_second_derivatives_alone_is_a_finding():
    def adapted(params):
        return tf.reduce_sum((tf.stop_gradient(params[0]) @ params[1] + 1) ** 2)

    lin = hvp.linearize_function(adapted, [W, np.zeros((4, 2))])
    (message,) = different(lin)
    assert "which is the same without it" in message


def positive_alone(w, x):
    return tf.nn.relu(x) * tf.stop_gradient(w) * w


def positive_alone_in_a_loop(w, x):
    def step(i, _):
        return i + 1, positive_alone(w, x)

    return tf.while_loop(lambda i, _: i < 1, step, (0, x * w))[1]


@pytest.mark.parametrize("function", [positive_alone, positive_alone_in_a_loop])
def test_a_stop_gradient_that_matters_on_a_later_batch_is_a_finding(function):
    x = np.array([[-1.0], [-2], [-3], [-1], [1], [2], [5], [6], [7]])
    lin = hvp.linearize_function(
        lambda w, x: tf.reduce_sum(function(w, x) + x * w**2),
        np.array([1.0, 2.0]),
        x,
        reduction="sum",
        batch_size=2,
    )
    (message,) = different(lin)
    assert "without it on batch 3" in message


def test_batch_renormalisation_is_a_finding():
    model = dense_and(layers.BatchNormalization(renorm=True, name="renorm", **F64))
    lin = hvp.linearize(model, (examples((4,), 5), examples((2,), 5)), "mse", training=True)
    found = [f for f in lin.findings if f.op == "StopGradient" and f.severity == "different"]
    assert {f.layer for f in found} == {"renorm"}
    assert len(found) == 2


def test_spectral_normalisation_is_refused_in_training():
    model = sequential((4,), layers.SpectralNormalization(layers.Dense(3, **F64), **F64))
    data = examples((4,), 5), examples((3,), 5)
    hvp.linearize(model, data, "mse")
    with pytest.raises(hvp.InputError, match="assigned by its layer; pass training=False"):
        hvp.linearize(model, data, "mse", training=True)

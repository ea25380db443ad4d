"""The StopGradient of tf.nn.moments goes, a user's own stays.

The nested tape on a user's own function honours every StopGradient, central differences of the
gradient none of those that leave the gradient as it is.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import (
    differenced_hessian,
    examples,
    hessian,
    hessian_along,
    randomised,
    relative,
    sequential,
    squared_loss,
    variables_of,
)

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
    assert any("StopGradient of tf.nn.moments removed" in f.message for f in lin.findings)


def test_the_finding_names_the_layer():
    model = attention()
    lin = hvp.linearize(model, (examples((4, 6), 5), examples((2,), 5)), "mse")
    places = [f.layer for f in lin.findings if "StopGradient" in f.message]
    assert len(places) == 2
    assert "norm1" in places[0]
    assert "norm2" in places[1]


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


@pytest.mark.parametrize("function", OWN.values(), ids=OWN)
def test_a_users_own_stop_gradient_stays(function):
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


@pytest.mark.parametrize("name", ["LayerNormalization", "GroupNormalization"])
def test_a_gradient_penalty_through_a_normalisation_is_that_of_the_loss(name):
    options = {"groups": 1} if name == "GroupNormalization" else {}
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="float64"),
            keras.layers.Dense(5, dtype="float64"),
            getattr(keras.layers, name)(dtype="float64", **options),
            keras.layers.Activation("tanh", dtype="float64"),
            keras.layers.Dense(1, dtype="float64"),
        ]
    )
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(6, 4)))
    point = [0.2 + 0.6 * rng.normal(size=v.shape) for v in model.trainable_variables]

    def loss(params):
        with tf.GradientTape() as tape:
            tape.watch(x)
            values = model.stateless_call(list(params), model.non_trainable_variables, x)[0]
        slopes = tape.gradient(values, x)
        return tf.reduce_mean((tf.norm(slopes, axis=1) - 1) ** 2)

    def at(t):
        parts = np.split(t, np.cumsum([p.size for p in point])[:-1])
        pairs = zip(parts, point, strict=True)
        return float(run([tf.constant(a.reshape(p.shape)) for a, p in pairs]))

    run = tf.function(loss, autograph=False)
    lin = hvp.linearize_function(loss, point)
    theta, v = lin.theta, rng.normal(size=lin.size)
    v /= np.linalg.norm(v)
    h = 1e-3
    near, far = (at(theta + s * v) - at(theta - s * v) for s in (h, 2 * h))
    slope = (8 * near - far) / (12 * h)
    bends = [16 * (at(theta + h * v) + at(theta - h * v)), at(theta + 2 * h * v)]
    curved = (bends[0] - bends[1] - at(theta - 2 * h * v) - 30 * at(theta)) / (12 * h**2)
    assert v @ lin.gradient() == pytest.approx(slope, rel=1e-7)
    assert v @ lin.hvp(v) == pytest.approx(curved, rel=1e-5)
    assert any("tf.nn.moments" in f.message for f in lin.findings if f.severity == "different")


def test_the_stop_gradient_of_a_log_sum_exp_is_no_finding():
    lin = hvp.linearize_function(
        lambda w: tf.reduce_sum(tf.reduce_logsumexp(w, axis=1)), np.ones((2, 3))
    )
    assert lin.findings == ()

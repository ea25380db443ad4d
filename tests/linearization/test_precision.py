"""Models of lower precision evaluated in float64, whatever casts they hold."""

import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import (
    LABELS,
    conv_net,
    dense_net,
    examples,
    hessian_along,
    norm_net,
    relative,
    sequential,
    softmax_loss,
    variables_of,
)
from support.sweep import sweep

import hvp

layers, losses = keras.layers, keras.losses
F32, F64 = "float32", "float64"
X = examples((4,), dtype=F32)
REAL = np.random.default_rng(4).standard_normal((7, 3)).astype(F32)
LOGITS = losses.SparseCategoricalCrossentropy(from_logits=True)
PRODUCTS = ("hvp", "gnvp")


def direction(lin):
    return np.random.default_rng(6).standard_normal(lin.size) + 0.5


def linearize(model, data, loss=LOGITS, **options):
    """Without trying what is fastest, which takes longer than all else."""
    return hvp.linearize(model, [data], loss, jit=False, **options)


def agree(lin, other, tolerance, products=PRODUCTS):
    v = direction(lin)
    assert abs(lin.loss() - other.loss()) < tolerance * abs(other.loss())
    assert relative(lin.gradient(), other.gradient()) < tolerance
    for name in products:
        assert relative(getattr(lin, name)(v), getattr(other, name)(v)) < tolerance, name


def different(lin):
    return [finding for finding in lin.findings if finding.severity == "different"]


def test_the_gradient_of_pooled_volumes_is_measured_in_float64_where_its_kernel_has_none():
    def loss(w):
        z = tf.cast(w, F32)
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = tf.reduce_sum(tf.sin(tf.nn.max_pool3d(z, 2, 2, "VALID")))
        return tf.cast(tf.reduce_sum(tape.gradient(value, z) ** 3), w.dtype)

    lin = hvp.linearize_function(loss, np.random.default_rng(0).normal(size=(1, 4, 4, 4, 1)))
    assert all("computes in float32" in finding.message for finding in different(lin))
    assert different(lin)


# --- float32 ---


def closed_net(dtype):
    return dense_net(dtype=dtype, last="softmax")


def lstm_net(dtype, unroll):
    lstm = layers.LSTM(2, unroll=unroll, dtype=dtype)
    return sequential((3, 2), lstm, layers.Dense(3, dtype=dtype), dtype=dtype)


def batch_norm_net(dtype):
    model = sequential(
        (4,),
        layers.Dense(4, dtype=dtype),
        layers.BatchNormalization(dtype=dtype, name="norm"),
        layers.Dense(3, "gelu", dtype=dtype),
        dtype=dtype,
    )
    norm = model.get_layer("norm")
    norm.moving_mean.assign([0.3, -0.1, 0.2, 0.7])
    norm.moving_variance.assign([0.5, 1.7, 0.9, 1.2])
    return model


def attention_net(dtype):
    inputs = keras.Input((3, 4), dtype=dtype)
    attended = layers.MultiHeadAttention(2, 2, dtype=dtype)(inputs, inputs, use_causal_mask=True)
    outputs = layers.Dense(3, dtype=dtype)(layers.Flatten(dtype=dtype)(attended))
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(0.7 * rng.standard_normal(variable.shape))
    return model


NETS = {
    "dense": dense_net,
    "a closing softmax": closed_net,
    "convolution and pooling": conv_net,
    "layer normalisation": norm_net,
    "batch normalisation": batch_norm_net,
    "attention": attention_net,
    "LSTM": functools.partial(lstm_net, unroll=False),
    "LSTM, unrolled": functools.partial(lstm_net, unroll=True),
}


def pair(build):
    """The network in float32, and in float64 with the same weights."""
    model, twin = build(dtype=F32), build(dtype=F64)
    twin.set_weights(model.get_weights())
    return model, twin


def inputs(model):
    return examples(model.input_shape[1:], dtype=F32)


@functools.cache
def promoted(name):
    """A network built in float32 and evaluated in float64, and the same built in float64."""
    model, twin = pair(NETS[name])
    x = inputs(model)
    loss = "sparse_categorical_crossentropy" if "softmax" in name else LOGITS
    lin = linearize(model, (x, LABELS), loss, dtype="float64")
    return lin, linearize(twin, (x.astype(F64), LABELS), loss)


@pytest.mark.sweep
@pytest.mark.parametrize(
    "name", sweep(NETS, {"dense", "convolution and pooling", "layer normalisation"})
)
def test_products_are_those_of_the_network_built_in_float64(name):
    lin, other = promoted(name)
    agree(lin, other, 1e-7)
    assert not different(lin)


@pytest.mark.parametrize("name", ["dense", "convolution and pooling", "layer normalisation"])
def test_hessian_is_gauss_newton_plus_residual_to_the_last_digits(name):
    lin, _ = promoted(name)
    v = direction(lin)
    H, G, R = lin.hvp(v), lin.gnvp(v), lin.residual_vp(v)
    assert np.linalg.norm(H - G - R) < 1e-13 * (np.linalg.norm(H) + np.linalg.norm(G))


@pytest.mark.sweep
def test_fisher_and_jacobian_are_those_of_the_network_built_in_float64():
    lin, other = promoted("dense")
    agree(lin, other, 1e-7, ["fisher_vp", "empirical_fisher_vp", "jvp"])
    v, u = direction(lin), np.arange(21.0)
    assert relative(lin.fisher_vp(v, 2, 1), other.fisher_vp(v, 2, 1)) < 1e-7
    assert relative(lin.vjp(u), other.vjp(u)) < 1e-7
    assert abs(u @ lin.jvp(v) - v @ lin.vjp(u)) < 1e-13 * np.linalg.norm(u) * np.linalg.norm(
        lin.jvp(v)
    )


def test_the_model_is_left_as_it_is():
    model = dense_net(dtype=F32)
    before = [w.tobytes() for w in model.get_weights()]
    lin = linearize(model, (X, LABELS), dtype="float64")
    v = direction(lin)
    assert lin.dtype == lin.theta.dtype == lin.hvp(v).dtype == np.float64
    assert (lin.theta == np.concatenate([w.ravel() for w in model.get_weights()])).all()
    assert [w.tobytes() for w in model.get_weights()] == before
    assert {w.dtype for w in model.trainable_variables} == {F32}
    assert model(X).dtype == tf.float32
    single = linearize(model, (X, LABELS))
    assert single.dtype == single.hvp(v).dtype == np.float32
    assert 1e-9 < relative(single.hvp(v), lin.hvp(v)) < 1e-4


def test_products_are_those_of_differences():
    model, twin = pair(dense_net)
    lin = linearize(model, (X, LABELS), dtype="float64")
    x, v = X.astype(F64), direction(lin)
    expected = hessian_along(lambda: softmax_loss(LABELS, twin(x)), variables_of(twin), v)
    assert relative(lin.hvp(v), expected) < 1e-9


@pytest.mark.sweep
def test_weights_penalties_and_ragged_batches_are_taken_along():
    def build(dtype):
        return dense_net(dtype=dtype, kernel_regularizer=keras.regularizers.L2(0.25))

    weights = np.random.default_rng(9).uniform(0.1, 2, 7).astype(F32)
    lin, other = (
        hvp.linearize(
            model,
            (X.astype(kind), LABELS, weights.astype(kind)),
            LOGITS,
            batch_size=4,
            jit=False,
            dtype="float64",
        )
        for kind, model in zip((F32, F64), pair(build), strict=True)
    )
    agree(lin, other, 1e-7)
    agree(lin.block("dense2"), other.block("dense2"), 1e-7, ["hvp"])
    V = np.random.default_rng(1).standard_normal((lin.size, 2))
    assert relative(lin.hvp(V), np.stack([lin.hvp(v) for v in V.T], axis=1)) < 1e-13


def test_data_keep_their_digits():
    """Keras would round inputs and targets of float64 to float32."""
    x, y = examples((4,)), np.random.default_rng(4).standard_normal((7, 3))
    model, twin = pair(dense_net)
    lin = linearize(model, (x, y), "mse", dtype="float64")
    agree(lin, linearize(twin, (x, y), "mse"), 1e-12)


DROPPING = {
    "Dropout": lambda dtype: layers.Dropout(0.4, seed=3, dtype=dtype),
    "GaussianDropout": lambda dtype: layers.GaussianDropout(0.4, seed=3, dtype=dtype),
}


def dropping_net(make):
    first, last = layers.Dense(6, "tanh", dtype=F32), layers.Dense(3, dtype=F32)
    return sequential((4,), first, make(F32), last, dtype=F32)


@pytest.mark.sweep
@pytest.mark.parametrize("make", DROPPING.values(), ids=DROPPING)
def test_random_layers_draw_what_they_draw_in_float32(make):
    options = {"training": True}
    lin = linearize(dropping_net(make), (X, LABELS), dtype="float64", **options)
    agree(lin, linearize(dropping_net(make), (X, LABELS), **options), 1e-4)
    inference = linearize(dropping_net(make), (X, LABELS))
    assert relative(lin.gradient(), inference.gradient()) > 1e-2


@pytest.mark.sweep
def test_a_loop_with_dropout_draws_what_it_draws_in_float32():
    def linearized(**options):
        model = recurrent_net(dropout=0.4, recurrent_dropout=0.3, seed=3)
        return linearize(model, (inputs(model), LABELS), training=True, **options)

    agree(linearized(dtype="float64"), linearized(), 1e-4, ["hvp"])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: tf.random.stateless_normal([5], [1, 2]),
        lambda: tf.random.stateless_truncated_normal([5], [1, 2]),
        lambda: tf.random.stateless_parameterized_truncated_normal(
            [5], [1, 2], 0.0, 1.0, -2.0, 2.0
        ),
    ],
    ids=["normal", "truncated", "parameterised"],
)
def test_numbers_are_drawn_as_in_float32(draw):
    lin = hvp.linearize_function(
        lambda w: tf.reduce_sum(draw() * w**2), tf.ones(5), jit=False, dtype="float64"
    )
    assert relative(lin.hvp(np.ones(5)), 2 * draw().numpy().astype(F64)) < 1e-15


def test_an_operation_without_float64_is_refused_by_its_name():
    sound = tf.reshape(tf.range(12.0), [12, 1])

    def loss(w):
        volumes = tf.raw_ops.AudioSpectrogram(input=sound, window_size=4, stride=4)
        return tf.reduce_sum(volumes[0, :, 0] * w**2)

    with pytest.raises(hvp.InputError, match="has in float64, got AudioSpectrogram"):
        hvp.linearize_function(loss, tf.ones(3), dtype="float64").hvp(np.ones(3))


def test_a_model_in_float64_is_as_it_was():
    data = X.astype(F64), LABELS
    lin = linearize(dense_net(), data, dtype="float64")
    agree(lin, linearize(dense_net(), data), 1e-14)


def test_a_linearization_in_float32_can_turn_to_float64():
    lin = linearize(dense_net(dtype=F32), (X, LABELS))
    agree(lin.in_float64(), linearize(dense_net(dtype=F32), (X, LABELS), dtype="float64"), 1e-14)
    assert lin.dtype == np.float32


# --- bfloat16 and float16 ---


def in_policy(model, policy):
    """The network computed in another precision, its weights in float32."""

    def clone(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": policy})

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def mixed_net(policy, **options):
    return in_policy(dense_net(dtype=F32, **options), policy)


@pytest.mark.sweep
def test_products_of_mixed_bfloat16_are_finite_and_reported_as_different():
    lin = linearize(mixed_net("mixed_bfloat16"), (X, LABELS))
    v = direction(lin)
    assert lin.dtype == lin.theta.dtype == np.float32
    for name in (*PRODUCTS, "residual_vp", "fisher_vp", "empirical_fisher_vp"):
        found = getattr(lin, name)(v)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
    exact = linearize(mixed_net(F32), (X, LABELS))
    assert 1e-4 < relative(lin.hvp(v), exact.hvp(v)) < 0.1
    slope = exact.gradient()
    measured = np.linalg.norm(lin.gradient() - slope) / np.linalg.norm(slope)
    assert different(lin)
    for finding in different(lin):
        assert "computes in bfloat16" in finding.message
        match = re.search("differs from that in float64 by (.*) of its size", finding.message)
        assert measured / 4 < float(match[1]) < measured * 4
        assert 'dtype="float64"' in finding.remedy
    assert {f.layer for f in different(lin)} == {"dense1", "dense2", "dense3"}


@pytest.mark.sweep
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_in_float64_is_the_float32_network_in_float64(policy):
    model = mixed_net(policy)
    lin = linearize(model, (X, LABELS), dtype="float64")
    assert not different(lin)
    assert lin.dtype == np.float64
    agree(lin, linearize(mixed_net(F32), (X, LABELS), dtype="float64"), 1e-12)
    agree(lin, linearize(mixed_net(F32), (X, LABELS)), 1e-5)
    assert {v.dtype for v in model.trainable_variables} == {F32}
    assert model(X).dtype == policy.removeprefix("mixed_")


@pytest.mark.sweep
def test_weights_in_another_precision_are_kept_once_and_not_once_a_batch():
    def product_and_memory(size, cache="auto"):
        wide = layers.Dense(64, "tanh", dtype=F32), layers.Dense(64, "tanh", dtype=F32)
        net = in_policy(sequential((4,), *wide, layers.Dense(3), dtype=F32), "mixed_bfloat16")
        options = {"dtype": "float64", "jit": False, "batch_size": size, "cache": cache}
        lin = hvp.linearize(net, (X, LABELS), LOGITS, **options)
        return lin.hvp(lin.theta), lin.memory

    (once, whole), (apart, many) = product_and_memory(len(X)), product_and_memory(1)
    assert many.kept_batches == len(X)
    assert 64 * 64 * 8 < many.kept < 3 * 64 * 64 * 8
    assert abs(many.kept - whole.kept) < 64 * 64 * 8
    assert relative(apart, once) < 1e-12
    anew, none = product_and_memory(1, cache=0)
    assert none.kept == 0
    assert relative(anew, once) < 1e-12


@pytest.mark.sweep
def test_a_closing_softmax_in_mixed_precision_has_the_same_hessian_and_fisher():
    """The loss is computed from the probabilities, since their precision is changed in between."""
    loss = "sparse_categorical_crossentropy"
    lin = linearize(mixed_net("mixed_bfloat16", last="softmax"), (X, LABELS), loss, dtype="float64")
    exact = linearize(mixed_net(F32, last="softmax"), (X, LABELS), loss, dtype="float64")
    agree(lin, exact, 1e-9, ["hvp", "fisher_vp"])


STACKS = {
    "convolution and pooling": ("mixed_float16", conv_net),
    "layer normalisation": ("mixed_float16", norm_net),
    "batch normalisation": ("mixed_bfloat16", batch_norm_net),
    "attention": ("mixed_bfloat16", attention_net),
}


@pytest.mark.sweep
@pytest.mark.parametrize(("policy", "build"), STACKS.values(), ids=STACKS)
def test_layers_in_mixed_precision_are_exact_in_float64(policy, build):
    twin = build(dtype=F32)
    data = inputs(twin), LABELS
    lin = linearize(in_policy(twin, policy), data, dtype="float64")
    agree(lin, linearize(twin, data, dtype="float64"), 1e-5)


def recurrent_net(**options):
    rnn = layers.SimpleRNN(2, dtype=F32, **options)
    return sequential((3, 2), rnn, layers.Dense(3, dtype=F32), dtype=F32)


@pytest.mark.sweep
def test_loops_in_mixed_bfloat16_are_reported_and_exact_in_float64():
    twin = recurrent_net()
    model, data = in_policy(twin, "mixed_bfloat16"), (inputs(twin), LABELS)
    rough = linearize(model, data)
    assert np.isfinite(rough.hvp(direction(rough))).all()
    assert any("bfloat16" in finding.message for finding in different(rough))
    lin = linearize(model, data, dtype="float64")
    agree(lin, linearize(twin, data, dtype="float64"), 1e-5, ["hvp"])


def test_layers_in_float16_are_refused():
    with pytest.raises(
        hvp.InputError, match=r'got float16 in .*dense1.*pass dtype="float64"'
    ) as info:
        linearize(mixed_net("mixed_float16"), (X, LABELS))
    assert "\n" not in str(info.value)


def test_a_function_in_float16_is_refused_by_the_operation_where_it_begins():
    def loss(w):
        return tf.cast(tf.reduce_sum(tf.cast(w, tf.float16) ** 3), tf.float32)

    message = "float16 in 'the function' from Cast on, .*; pass dtype=\"float64\""
    with pytest.raises(hvp.InputError, match=message):
        hvp.linearize_function(loss, W)
    lin = hvp.linearize_function(loss, W, dtype="float64")
    assert relative(lin.hvp(np.ones(3)), 6 * W.astype(float)) < 1e-12


def test_parameters_of_two_precisions_are_named():
    model = sequential((4,), layers.Dense(3, dtype="float64", name="dense"))
    model.get_layer("dense").enable_lora(2)
    names = ["dense/lora_kernel_a", "dense/lora_kernel_b"]  # Keras makes them in its own precision
    message = rf"got float32 in {', '.join(names)} and float64 in dense/bias; .*dtype=\"float64\""
    with pytest.raises(hvp.InputError, match=message):
        linearize(model, (X, LABELS))
    lin = linearize(model, (X, LABELS), dtype="float64")
    assert lin.dtype == np.float64


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_in_half_precision_are_taken_in_float64_alone(dtype):
    model, twin = in_policy(dense_net(dtype=F32), dtype), dense_net(dtype=F32)
    assert {v.dtype for v in model.trainable_variables} == {dtype}
    twin.set_weights([np.asarray(w, F32) for w in model.get_weights()])
    message = rf'all float32 or all float64, got {dtype}; .* pass dtype="float64"'
    with pytest.raises(hvp.InputError, match=message):
        linearize(model, (X, LABELS))
    lin = linearize(model, (X, LABELS), dtype="float64")
    agree(lin, linearize(twin, (X, LABELS), dtype="float64"), 1e-12)


# --- functions ---

W = np.array([0.3, -1.2, 0.7], F32)
A = np.array([[2.0, 0.5, 0.1], [0.5, 1.5, -0.3], [0.1, -0.3, 3.0]])


def quartic(w):
    """(wᵀAw)²/4: ∇ = q Aw and H = q A + 2 Aw wᵀA with q = wᵀAw."""
    return tf.tensordot(w, tf.linalg.matvec(tf.constant(A, w.dtype), w), 1) ** 2 / 4


def test_a_function_of_float32_is_its_closed_form():
    lin = hvp.linearize_function(quartic, W, dtype="float64", jit=False)
    w, B = W.astype(F64), A.astype(F32).astype(F64)
    Bw, q = B @ w, w @ B @ w
    assert lin.dtype == np.float64
    assert relative(lin.gradient(), q * Bw) < 1e-14
    assert relative(lin.hvp(np.eye(3)), q * B + 2 * np.outer(Bw, Bw)) < 1e-14
    exact = A @ w
    assert relative(lin.hvp(np.eye(3)), w @ exact * A + 2 * np.outer(exact, exact)) < 1e-7
    single = hvp.linearize_function(quartic, W, jit=False)
    assert single.dtype == np.float32


@pytest.mark.parametrize("lower", [tf.float32, tf.bfloat16, tf.float16])
def test_casts_inside_a_function_are_lifted(lower):
    def outputs(w):
        return tf.cast(tf.sin(tf.cast(w, lower)), w.dtype)

    def loss(z):
        return tf.reduce_sum(z**4)

    for dtype in (F32, F64):
        w = W.astype(dtype)
        lin = hvp.linearize_function(loss, w, outputs=outputs, dtype="float64", jit=False)
        s, c = np.sin(w.astype(F64)), np.cos(w.astype(F64))
        G, H = 12 * s**2 * c**2, 12 * s**2 * c**2 - 4 * s**4
        assert relative(lin.gnvp(np.eye(3)), np.diag(G)) < 1e-14
        assert relative(lin.hvp(np.eye(3)), np.diag(H)) < 1e-14
        assert not different(lin)


def test_casts_to_integers_stay():
    def loss(w):
        return tf.reduce_sum(w**2 * tf.cast(tf.cast(3.7 * w, tf.int32), w.dtype))

    lin = hvp.linearize_function(loss, W, dtype="float64", jit=False)
    assert relative(lin.hvp(np.eye(3)), 2 * np.diag([1.0, -4.0, 2.0])) < 1e-14


def test_data_and_variables_of_a_function_are_lifted():
    frozen = tf.Variable(np.float32(0.1))
    x = np.linspace(0.1, 0.9, 5).astype(F32)

    def loss(w, batch):
        return tf.reduce_mean(tf.sin(frozen * w[0] * batch))

    options = {"dtype": "float64", "reduction": "mean", "batch_size": 2, "jit": False}
    lin = hvp.linearize_function(loss, [np.float32(0.7)], x, **options)
    scale = np.float64(frozen.numpy()) * x.astype(F64)
    expected = -np.mean(scale**2 * np.sin(scale * np.float64(np.float32(0.7))))
    assert lin.num_batches > 1
    assert abs(lin.hvp(np.ones(1))[0] / expected - 1) < 1e-14


def test_float32_inside_float64_is_reported_as_different():
    def loss(w):
        return tf.cast(tf.reduce_sum(tf.sin(tf.cast(w, tf.float32))), w.dtype)

    lin = hvp.linearize_function(loss, W.astype(F64) / 3, jit=False)
    (finding,) = different(lin)
    assert "computes in float32: the gradient differs from that in float64 by " in finding.message


def test_an_operation_without_float64_inside_float64_is_differentiated_as_traced():
    def loss(w):
        largest, _ = tf.math.approx_max_k(tf.cast(w, tf.float32), 2)
        return tf.reduce_sum(tf.cast(largest, w.dtype) ** 3)

    w = np.array([0.25, 0.125, -0.5, 0.75])
    lin = hvp.linearize_function(loss, w, jit=False)
    (finding,) = different(lin)
    assert "computes in float32: how far the gradient is from that in float64" in finding.message
    assert "dtype=" not in finding.remedy
    np.testing.assert_array_equal(lin.hvp(np.ones(4)), [1.5, 0, 0, 4.5])
    with pytest.raises(hvp.InputError, match=r"float64, got ApproxTopK .* leave dtype= out"):
        hvp.linearize_function(loss, w, dtype="float64")


@pytest.mark.parametrize("options", [{}, {"dtype": "float64"}], ids=str)
@pytest.mark.parametrize("kind", [F32, F64])
def test_bits_are_those_of_the_precision_that_the_loss_casts_to(kind, options):
    def loss(w):  # as keras.ops.signbit has it
        bits = tf.bitcast(tf.cast(w, tf.float32), tf.int32)
        return tf.reduce_sum(tf.where(bits < 0, w**2, w**3))

    # In float64 a vector of two would have 2 x 2 such bits.
    lin = hvp.linearize_function(loss, np.array([0.5, -0.25], kind), jit=False, **options)
    np.testing.assert_allclose(lin.hvp(np.ones(2, kind)), [3, 2], rtol=1e-6)


# --- refused ---


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "double", "", 64, np.float64])
def test_other_precisions_are_refused(dtype):
    with pytest.raises(hvp.InputError, match=r'^expected dtype="float64" or None, got ') as info:
        hvp.linearize(dense_net(dtype=F32), (X, LABELS), LOGITS, dtype=dtype)
    assert "\n" not in str(info.value)
    with pytest.raises(hvp.InputError, match=r'^expected dtype="float64" or None, got '):
        hvp.linearize_function(quartic, W, dtype=dtype)


@pytest.mark.parametrize("dtype", [None, "float64"])
@pytest.mark.parametrize("kind", ["int32", "complex64"])
def test_parameters_that_are_no_reals_are_refused(kind, dtype):
    with pytest.raises(hvp.InputError, match=f"all float32 or all float64, got {kind}"):
        hvp.linearize_function(tf.reduce_sum, np.ones(3, kind), dtype=dtype)
    with pytest.raises(hvp.InputError, match=f"all float32 or all float64, .*{kind} in "):
        hvp.linearize_function(lambda w: w[0][0], [W, np.ones(3, kind)], dtype=dtype)


def test_parameters_of_several_precisions_are_taken_in_float64_alone():
    def loss(w):
        return tf.reduce_sum(tf.cast(w[0], tf.float64) ** 2 * tf.sin(w[1]))

    params = [W, np.array([0.1, 0.2, 0.3])]
    with pytest.raises(
        hvp.InputError, match=r'got float32 in param0 and float64 in param1; .*dtype="float64"'
    ):
        hvp.linearize_function(loss, params)
    lin = hvp.linearize_function(loss, params, dtype="float64", jit=False)
    w, s, c = W.astype(F64), np.sin(params[1]), np.cos(params[1])
    expected = np.block(
        [[np.diag(2 * s), np.diag(2 * w * c)], [np.diag(2 * w * c), np.diag(-s * w**2)]]
    )
    assert relative(lin.hvp(np.eye(6)), expected) < 1e-14


@pytest.mark.parametrize("options", [{}, {"dtype": "float64"}], ids=["later", "from the start"])
def test_a_sum_over_batches_in_float32_is_taken_in_float64(options):
    """Its halves differ from the whole by the rounding of float32, which is no mixing."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((300, 4)).astype(F32), rng.standard_normal(4).astype(F32)
    lin = hvp.linearize_function(
        lambda w, x: tf.reduce_sum(tf.linalg.matvec(x, w) ** 4),
        w, x, reduction="sum", batch_size=100, **options,
    )  # fmt: skip
    exact = lin if options else lin.in_float64()
    x, w = x.astype(F64), w.astype(F64)
    z = x @ w
    assert exact.loss() == pytest.approx(np.sum(z**4), rel=1e-13)
    expected = x.T @ (12 * z[:, None] ** 2 * x)
    assert relative(exact.hvp(np.eye(4)), expected) < 1e-13


def test_a_loss_that_mixes_examples_is_refused_in_float64_too():
    x = np.random.default_rng(0).standard_normal((300, 4)).astype(F32)
    with pytest.raises(hvp.InputError, match="a batch whose halves give"):
        hvp.linearize_function(
            lambda w, x: tf.reduce_sum(tf.linalg.matvec(x, w)) ** 2,
            np.ones(4, F32), x, reduction="sum", batch_size=100, dtype="float64",
        )  # fmt: skip

"""The objective is the one that `fit` minimises, whatever the batches."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import (
    LABELS,
    along,
    cut,
    dense_net,
    examples,
    flat,
    gauss_newton,
    hessian,
    kept_precision,
    relative,
    sequential,
    softmax_loss,
    variables_of,
)
from support.sweep import sweep

import hvp
from hvp.errors import MixedExamplesError

layers, losses = keras.layers, keras.losses
X, ONEHOT = examples((4,)), np.eye(3)[LABELS]
REAL = np.random.default_rng(8).standard_normal((7, 3))
WEIGHTS = np.random.default_rng(9).uniform(0.1, 2, 7)
F64 = "float64"
COMMON = {"batch_size": 7, "epochs": 1, "shuffle": False, "verbose": 0}


@pytest.fixture
def float64_keras():
    """Keras losses and `fit` compute in the global precision, the library in the model's."""
    with kept_precision("float64"):
        yield


def step_of_fit(model, loss, y, weights=None, x=X):
    """The change that one step of SGD with rate 1 on all examples makes, negated, and the loss."""
    before = flat(model.get_weights())
    model.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=True)
    history = model.fit(x, y, sample_weight=weights, **COMMON).history
    return before - flat(model.get_weights()), history["loss"][0]


def quartic(y, z):
    return tf.reduce_mean((z - y) ** 4, axis=-1)


class Own(losses.Loss):
    def call(self, y, z):
        return tf.reduce_sum((y - z) ** 2 * tf.abs(y), axis=-1)


LOSSES = {
    "labels": (losses.SparseCategoricalCrossentropy(from_logits=True, dtype=F64), LABELS),
    "a column of labels": (
        losses.SparseCategoricalCrossentropy(from_logits=True, dtype=F64),
        LABELS[:, None],
    ),
    "smoothed": (
        losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1, dtype=F64),
        ONEHOT,
    ),
    "a string": ("mean_squared_error", REAL),
    "another string": ("log_cosh", REAL),
    "a Keras function": (losses.huber, REAL),
    "a function": (quartic, REAL),
    "a class of one's own": (Own(dtype=F64), REAL),
    "a sum": (losses.MeanSquaredError(reduction="sum", dtype=F64), REAL),
    "a weighted mean": (
        losses.MeanSquaredError(reduction="mean_with_sample_weight", dtype=F64),
        REAL,
    ),
}


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("name", sweep(LOSSES, {"labels", "a function", "a weighted mean"}))
def test_loss_and_gradient_are_those_of_fit(float64_keras, name, weights):
    loss, y = LOSSES[name]
    model = dense_net()
    lin = hvp.linearize(model, (X, y) if weights is None else (X, y, weights), loss, batch_size=3)
    assert lin.num_batches == 3
    value, gradient = lin.loss(), lin.gradient()
    expected, expected_value = step_of_fit(model, loss, y, weights)
    assert relative(gradient, expected) < 1e-10
    assert abs(value - expected_value) < 1e-12 * abs(expected_value)


@pytest.mark.parametrize(
    ("last", "loss", "y"),
    [
        ("softmax", "sparse_categorical_crossentropy", LABELS),
        pytest.param("softmax", "categorical_crossentropy", ONEHOT, marks=pytest.mark.sweep),
        ("sigmoid", "binary_crossentropy", ONEHOT),
    ],
)
def test_loss_and_gradient_are_those_of_fit_with_a_closing_activation(float64_keras, last, loss, y):
    model = dense_net(last=last)
    lin = hvp.linearize(model, (X, y), loss, batch_size=3)
    v = examples((lin.size,), 1)[0]

    def gradient_of_fit():
        weights = model.get_weights()
        step, _ = step_of_fit(model, loss, y)
        model.set_weights(weights)
        return step

    assert relative(lin.gradient(), gradient_of_fit()) < 1e-10
    expected = along(gradient_of_fit, variables_of(model), v)
    assert relative(lin.hvp(v), expected) < 1e-8


def test_the_outputs_of_a_closing_softmax_are_its_logits():
    closed, linear = dense_net(last="softmax"), dense_net()
    lin = hvp.linearize(closed, (X, LABELS), "sparse_categorical_crossentropy")
    expected = gauss_newton(
        lambda: linear(X), lambda z: softmax_loss(LABELS, z), variables_of(linear)
    )
    assert relative(lin.gnvp(np.eye(lin.size)), expected) < 1e-11
    whole = hessian(lambda: softmax_loss(LABELS, linear(X)), variables_of(linear))
    assert relative(lin.hvp(np.eye(lin.size)), whole) < 1e-11
    assert any("the outputs of G are the logits" in f.message for f in lin.findings)


def test_the_outputs_of_a_softmax_before_squares_are_the_probabilities():
    model = dense_net(last="softmax")
    lin = hvp.linearize(model, (X, ONEHOT), "mean_squared_error")
    expected = gauss_newton(
        lambda: model(X), lambda z: tf.reduce_mean((z - ONEHOT) ** 2), variables_of(model)
    )
    assert relative(lin.gnvp(np.eye(lin.size)), expected) < 1e-11


def regularised():
    l2 = keras.regularizers.L1L2(l1=0.25, l2=0.5)
    return dense_net(kernel_regularizer=l2, bias_regularizer=keras.regularizers.L2(0.125))


@pytest.mark.sweep
def test_penalties_count_once_and_belong_to_hessian_and_gauss_newton(float64_keras):
    plain = hvp.linearize(dense_net(), (X, REAL), "mse")
    model = regularised()
    lin = hvp.linearize(model, (X, REAL), "mse", batch_size=3)
    curvature = np.zeros(lin.size)
    curvature[:16], curvature[16:20] = 1.0, 0.25
    V = np.eye(lin.size)
    assert relative(lin.hvp(V) - plain.hvp(V), np.diag(curvature)) < 1e-12
    assert relative(lin.gnvp(V) - plain.gnvp(V), np.diag(curvature)) < 1e-12
    assert relative(lin.residual_vp(V), plain.residual_vp(V)) < 1e-12
    assert relative(lin.block("dense1").hvp(V[:20, :20]), lin.hvp(V)[:20, :20]) < 1e-12
    assert relative(lin.block("dense3").hvp(V[:12, :12]), plain.hvp(V)[35:, 35:]) < 1e-12
    value, gradient = lin.loss(), lin.gradient()
    expected, expected_value = step_of_fit(model, "mse", REAL)
    assert relative(gradient, expected) < 1e-10
    assert abs(value - expected_value) < 1e-12


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight"])
def test_weights_one_a_loss_value_are_those_of_fit(float64_keras, reduction):
    dense = layers.Dense(3, "tanh", dtype="float64")
    model = sequential((4,), layers.Reshape((2, 2)), dense, layers.Dense(2, dtype="float64"))
    y, weights = examples((2, 2)), np.random.default_rng(0).uniform(0.1, 2, (7, 2))
    loss = losses.MeanSquaredError(reduction=reduction, dtype=F64)
    gradient = hvp.linearize(model, (X, y, weights), loss, batch_size=3).gradient()
    assert relative(gradient, step_of_fit(model, loss, y, weights)[0]) < 1e-10


def test_the_loss_is_computed_in_the_models_precision_not_in_kerass():
    assert keras.config.floatx() == "float32"
    model = dense_net()
    lin = hvp.linearize(model, (X, REAL), "mse")
    assert abs(lin.loss() - np.mean((model(X).numpy() - REAL) ** 2)) < 1e-14


@pytest.mark.sweep
def test_the_compiled_loss_is_taken_where_none_is_given():
    for loss, y in LOSSES.values():
        model = dense_net()
        model.compile("sgd", loss)
        compiled, given = hvp.linearize(model, (X, y)), hvp.linearize(model, (X, y), loss)
        assert compiled.loss() == given.loss()


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("reduction", "weights"),
    [("sum_over_batch_size", None), ("sum", WEIGHTS), ("mean_with_sample_weight", WEIGHTS)],
)
def test_ragged_batches_are_one_whole(reduction, weights):
    model = dense_net()
    data = (X, REAL) if weights is None else (X, REAL, weights)
    loss = losses.MeanSquaredError(reduction=reduction)
    whole = hvp.linearize(model, [data], loss)
    v = examples((whole.size,), 1)[0]
    for batches, count in (
        (cut(data, (3, 3, 1)), 3),
        (tf.data.Dataset.from_tensor_slices(data).batch(3), 3),
        (tuple(data), 4),
    ):
        lin = hvp.linearize(model, batches, loss, batch_size=2)
        assert (lin.num_batches, lin.num_examples) == (count, 7)
        assert abs(lin.loss() - whole.loss()) < 1e-14 * whole.loss()
        for name in ("hvp", "gnvp"):
            assert relative(getattr(lin, name)(v), getattr(whole, name)(v)) < 1e-13
        assert relative(lin.gradient(), whole.gradient()) < 1e-13


def test_accuracy_counts_right_classes_over_ragged_batches():
    model = dense_net()
    right = np.mean(np.argmax(model(X), -1) == LABELS)
    sparse, onehot = (LOSSES[name][0] for name in ("labels", "smoothed"))
    assert hvp.linearize(model, (X, LABELS), sparse, batch_size=3).accuracy == right
    assert hvp.linearize(model, (X, LABELS[:, None]), sparse, batch_size=3).accuracy == right
    assert hvp.linearize(model, (X, ONEHOT), onehot, batch_size=3).accuracy == right
    assert hvp.linearize(model, (X, REAL), "mse").accuracy is None


# --- functions ---


def outputs(w, batch):
    return tf.linalg.matvec(batch[0], w)


def sum_of_squares(z, batch):
    return tf.reduce_sum((z - batch[1]) ** 2)


def mean_of_squares(z, batch):
    return tf.reduce_mean((z - batch[1]) ** 2)


@pytest.mark.parametrize("sizes", [(7,), (3, 3, 1)])
@pytest.mark.parametrize(
    ("loss", "reduction", "divisor"), [(sum_of_squares, "sum", 1), (mean_of_squares, "mean", 7)]
)
def test_linear_regression_has_twice_the_gram_matrix(loss, reduction, divisor, sizes):
    w, y = np.ones(4), REAL[:, 0]
    lin = hvp.linearize_function(loss, w, cut((X, y), sizes), outputs=outputs, reduction=reduction)
    expected = 2 * X.T @ X / divisor
    assert relative(lin.hvp(np.eye(4)), expected) < 1e-14
    assert relative(lin.gnvp(np.eye(4)), expected) < 1e-14
    assert not lin.residual_vp(np.eye(4)).any()
    assert relative(lin.jvp(np.eye(4)), X) < 1e-14
    assert relative(lin.gradient(), 2 * X.T @ (X @ w - y) / divisor) < 1e-14
    assert abs(lin.loss() - np.sum((X @ w - y) ** 2) / divisor) < 1e-13


def test_softmax_regression_has_its_closed_form():
    """H = Σ_n (diag p_n - p_n p_nᵀ) ⊗ x_n x_nᵀ / N, the weights taken class by class."""
    W = np.random.default_rng(2).standard_normal((3, 4))

    def loss(z, batch):
        return tf.reduce_mean(tf.reduce_logsumexp(z, -1) - tf.reduce_sum(z * batch[1], -1))

    lin = hvp.linearize_function(
        loss,
        W,
        (X, ONEHOT),
        outputs=lambda w, batch: tf.matmul(batch[0], w, transpose_b=True),
        reduction="mean",
        batch_size=3,
    )
    p = np.exp(X @ W.T)
    p /= p.sum(1, keepdims=True)
    expected = sum(
        np.kron(np.diag(q) - np.outer(q, q), np.outer(x, x)) for q, x in zip(p, X, strict=True)
    )
    assert lin.num_batches == 3
    assert relative(lin.hvp(np.eye(12)), expected / 7) < 1e-13
    assert relative(lin.gnvp(np.eye(12)), expected / 7) < 1e-13
    assert not lin.residual_vp(np.eye(12)).any()


@pytest.mark.parametrize(
    "data", [X, {"x": X}, (X,), tf.constant(X)], ids=lambda d: type(d).__name__
)
def test_batches_of_any_nest_reach_the_function(data):
    def loss(w, batch):
        (x,) = tf.nest.flatten(batch)
        return tf.reduce_sum(tf.linalg.matvec(x, w) ** 2)

    lin = hvp.linearize_function(loss, np.ones(4), data, reduction="sum", batch_size=3)
    assert relative(lin.hvp(np.eye(4)), 2 * X.T @ X) < 1e-14


def test_one_parameter_is_given_as_it_is_and_a_list_as_a_list():
    hvp.linearize_function(lambda w: w[0] * w[1], np.ones(2))
    lin = hvp.linearize_function(lambda p: p[0][0] * p[1][1], [np.ones(2), np.ones(2)])
    assert lin.hvp(np.array([0.0, 0, 0, 1])).tolist() == [1, 0, 0, 0]


def test_without_outputs_there_are_no_rows():
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(w**2), np.ones(2))
    with pytest.raises(hvp.InputError, match="give linearize_function outputs="):
        _ = lin.num_outputs


# --- bad input ---

NAN = np.where(np.arange(7) == 2, np.nan, 1.0)


def square(w, batch=None):
    return tf.reduce_sum(w**2)


BAD_FUNCTIONS = {
    "a vector": (
        lambda: hvp.linearize_function(lambda w: w, np.ones(2)),
        r"a scalar loss, got .*2",
    ),
    "not finite": (
        lambda: hvp.linearize_function(lambda w: square(w) / 0, np.ones(2)),
        "expected a finite loss, got inf",
    ),
    "a NaN": (
        lambda: hvp.linearize_function(lambda w: square(tf.math.log(w)), -np.ones(2)),
        "expected a finite loss, got nan",
    ),
    "nothing": (lambda: hvp.linearize_function(lambda w: None, np.ones(2)), "None values not"),
    "no parameter": (lambda: hvp.linearize_function(square, []), "at least one parameter, got an"),
    "integers": (
        lambda: hvp.linearize_function(square, np.ones(2, int)),
        "expected parameters all float32 or all float64, got int64; cast",
    ),
    "half precision": (
        lambda: hvp.linearize_function(square, np.ones(2, np.float16)),
        "got float16; cast them before",
    ),
    "two precisions": (
        lambda: hvp.linearize_function(
            lambda p: square(p[0]), [np.ones(2), np.ones(2, np.float32)]
        ),
        "got float32 in param1 and float64 in param0; cast them",
    ),
    "no reduction": (
        lambda: hvp.linearize_function(lambda w, b: square(w), np.ones(2), [(X,), (X,)]),
        'expected reduction="sum" or "mean" with several batches, got 2 batches and no reduction',
    ),
    "no reduction, bare arrays": (
        lambda: hvp.linearize_function(lambda w, b: square(w), np.ones(2), [X, X]),
        "got 2 batches and no reduction",
    ),
    "an unknown reduction": (
        lambda: hvp.linearize_function(square, np.ones(2), X, reduction="max"),
        'expected reduction "sum" or "mean", got \'max\'',
    ),
    "complex outputs": (
        lambda: hvp.linearize_function(
            lambda z: tf.abs(z[0]), np.ones(2), outputs=lambda w: tf.complex(w, w)
        ),
        "expected outputs= to return real numbers, got complex128",
    ),
    "outputs of a shape that is not known": (
        lambda: hvp.linearize_function(
            tf.reduce_sum, np.ones(2), outputs=lambda w: tf.boolean_mask(w, w > 0)
        ),
        r"expected outputs whose shape follows from that of the batch, got the shape \(None,\)",
    ),
    "a complex loss": (
        lambda: hvp.linearize_function(lambda w: tf.complex(w[0], w[1]), np.ones(2)),
        "expected the loss to return real numbers, got complex128",
    ),
    "two outputs": (
        lambda: hvp.linearize_function(square, np.ones(2), outputs=lambda w: [w, w]),
        "expected outputs= to return one tensor, got list",
    ),
}


@pytest.mark.parametrize(("call", "text"), BAD_FUNCTIONS.values(), ids=BAD_FUNCTIONS)
def test_a_bad_function_is_one_clear_line(call, text):
    with pytest.raises(hvp.InputError, match=text):
        call()


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


class OwnLoss(keras.Sequential):
    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs)


class OwnCall(losses.Loss):
    def __call__(self, y, z, sample_weight=None):
        return tf.reduce_mean(y - z)


def single(layer, kind=keras.Sequential):
    return kind([keras.Input((4,)), layer])


def compiled(model, loss=None, **options):
    model.compile("sgd", loss, **options)
    return model


def two_outputs():
    i = keras.Input((4,))
    return keras.Model(i, [layers.Dense(3)(i), layers.Dense(3)(i)], name="two")


def two_named_outputs():
    i = keras.Input((4,))
    return keras.Model(i, {"a": layers.Dense(3)(i), "b": layers.Dense(3)(i)}, name="two")


def masked():
    stack = [layers.Reshape((4, 1)), layers.Masking(), layers.Dense(3, name="dense1")]
    return keras.Sequential([keras.Input((4,)), *stack], name="masked")


def frozen():
    model = dense_net()
    model.trainable = False
    return model


MSE = "mse"
BAD_MODELS = {
    "no model": (lambda: "model.keras", MSE, REAL, "expected a Keras model, got str"),
    "not built": (
        lambda: keras.Sequential([layers.Dense(3)], name="raw"),
        MSE,
        REAL,
        "expected a built model, got 'raw' without variables; call it once",
    ),
    "frozen": (frozen, MSE, REAL, "expected a model with trainable variables, got none; unfreeze"),
    "half": (
        lambda: single(layers.Dense(3, dtype="float16")),
        MSE,
        REAL,
        "expected parameters all float32 or all float64, got float16",
    ),
    "no loss": (
        dense_net,
        None,
        REAL,
        "expected a loss, got 'net' compiled without one; pass loss=",
    ),
    "compiled without": (lambda: compiled(dense_net()), None, REAL, "expected a loss, got 'net'"),
    "unknown loss": (dense_net, "squares", REAL, "expected a loss that Keras knows, got 'squares'"),
    "a number": (dense_net, 3, REAL, "expected a Keras loss, its name or a function, got 3"),
    "two losses": (
        dense_net,
        [MSE, MSE],
        REAL,
        "expected one loss for the output .*, got 2 of them, of which fit takes the first alone",
    ),
    "compiled with two losses": (
        lambda: compiled(dense_net(), [MSE, "mae"]),
        None,
        REAL,
        "expected one loss for the output .*, got 2 of them, of which fit takes the first alone",
    ),
    "loss weights for some outputs": (
        lambda: compiled(two_named_outputs(), {"a": MSE, "b": MSE}, loss_weights={"a": 0.5}),
        None,
        {"a": REAL, "b": REAL},
        "expected a loss weight for each output with a loss, as fit does, got none for 'b'",
    ),
    "a model of tf_keras": (
        lambda: type("Functional", (), {"__module__": "tf_keras.src.engine.functional"})(),
        MSE,
        REAL,
        "expected a model of Keras 3, got Functional, a model of tf_keras .Keras 2.; build it with",
    ),
    "no reduction": (
        dense_net,
        losses.MeanSquaredError(reduction=None),
        REAL,
        "expected a scalar loss, got reduction=None",
    ),
    "own call": (dense_net, OwnCall(), REAL, "got OwnCall.__call__ overridden; override call"),
    "own step": (
        lambda: compiled(single(layers.Dense(3), OwnStep), MSE),
        None,
        REAL,
        "got OwnStep.train_step overridden; pass loss=, or use hvp.linearize_function",
    ),
    "two outputs": (
        two_outputs,
        MSE,
        REAL,
        "expected targets for the outputs dense.*, got one for all; give one per output",
    ),
    "an unknown output": (
        two_outputs,
        {"other": MSE},
        (REAL, REAL),
        r"expected losses for the outputs dense.*, got \['other'\]",
    ),
    "labels too high": (
        dense_net,
        "sparse_categorical_crossentropy",
        LABELS + 1,
        "expected labels from 0 to 2, as the model has 3 outputs, got labels from 1 to 3",
    ),
    "labels below zero": (
        dense_net,
        "sparse_categorical_crossentropy",
        LABELS - 1,
        "got labels from -1 to 1; number the classes from 0",
    ),
    "targets of another shape": (
        dense_net,
        MSE,
        REAL[:, :2],
        r"expected y of shape \(N, 3\), by the model's outputs and its loss, got .* \(N, 2\)",
    ),
    "targets of another shape, for a loss of one's own": (
        dense_net,
        lambda y, z: tf.reduce_mean((y - z) ** 2, axis=-1),
        REAL[:, :2],
        "batches of shape .7, 4., .7, 2.",
    ),
    "class numbers, not one-hot": (
        dense_net,
        "categorical_crossentropy",
        LABELS,
        r"expected one-hot y of shape \(N, 3\).*got y of shape \(N,\), class numbers; "
        "use the loss sparse_categorical_crossentropy, or",
    ),
    "one-hot, not class numbers": (
        dense_net,
        losses.SparseCategoricalCrossentropy(from_logits=True),
        ONEHOT,
        r"expected class numbers as y.*got y of shape \(N, 3\), one-hot; "
        r"use CategoricalCrossentropy\(from_logits=True\), or",
    ),
    "lengths that differ": (
        dense_net,
        MSE,
        REAL[:5],
        r"arrays of one length, got lengths \[5, 7\]",
    ),
    "a NaN": (dense_net, MSE, np.outer(NAN, np.ones(3)), "got NaN or infinity in example 2"),
}


@pytest.mark.parametrize(("build", "loss", "y", "text"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_bad_model_loss_or_target_is_one_clear_line(build, loss, y, text):
    with pytest.raises(hvp.InputError, match=text):
        hvp.linearize(build(), (X, y), loss)


BAD_DATA = {
    "no targets": ((X,), "expected batches .x, y., got x alone"),
    "a single array": (X, "got x alone"),
    "inputs of another shape": (
        (X[:, :3], REAL),
        r"expected x of shape \(N, 4\), as the model takes it, got \(N, 3\)",
    ),
    "nothing": ([], "expected at least one batch, got an empty data set"),
    "no example": ((X[:0], REAL[:0]), "expected at least one example, got an empty data set"),
    "read once": (((X, REAL) for _ in range(1)), "a generator, which can be read only once"),
    "weights without a sum": (
        (X, REAL, 0 * WEIGHTS),
        "expected weights and masks with a positive sum, got 0.0",
    ),
    "weights of another shape": ((X, REAL, np.ones((7, 2, 2))), "expected sample weights of shape"),
    "weights with a NaN": ((X, REAL, NAN), "got NaN or infinity in example 2"),
    "a NaN in a later batch": ([(X, REAL), (X, REAL * NAN[:, None])], "in example 2"),
}


@pytest.mark.parametrize(("data", "text"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_one_clear_line(data, text):
    loss = losses.MeanSquaredError(reduction="mean_with_sample_weight")
    with pytest.raises(hvp.InputError, match=text):
        hvp.linearize(dense_net(), data, loss)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        ({"a": X, "b": X}, r"expected x of shape \(N, 3\), as the model takes it, got \(N, 4\)"),
        ({"a": X, "c": X}, "expected an x for each of the inputs a, b, got 1 of 2"),
        ([X], "expected an x for each of the inputs a, b, got 1 of 2"),
    ],
)
def test_several_inputs_of_other_shapes_or_names_are_one_clear_line(x, text):
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    model = keras.Model([a, b], layers.Dense(3)(layers.Concatenate()([a, b])))
    with pytest.raises(hvp.InputError, match=text):
        hvp.linearize(model, (x, REAL), "mse")


def test_labels_outside_in_a_later_batch_are_seen():
    with pytest.raises(hvp.InputError, match="got labels from 1 to 3"):
        hvp.linearize(
            dense_net(), [(X, LABELS), (X, LABELS + 1)], "sparse_categorical_crossentropy"
        )


def test_a_loss_of_a_whole_batch_is_refused_for_several():
    # One number a batch: neither a Dice loss nor a mean adds up to that of all examples.
    def mean_of_all(y, z):
        return tf.reduce_mean((z - y) ** 4)

    model = dense_net()
    hvp.linearize(model, [(X, REAL)], mean_of_all)
    for loss in (mean_of_all, losses.Dice()):
        with pytest.raises(hvp.InputError, match="a sum over examples, or a single batch"):
            hvp.linearize(model, (X, ONEHOT), loss, batch_size=3)


def test_a_loss_of_rounded_parameters_says_how_to_go_straight_through():
    @tf.custom_gradient
    def rounded(x):
        return tf.round(x), lambda dy: dy

    w = np.array([0.4, 1.6])
    with pytest.raises(hvp.InputError, match=r"no parameter reaches.*straight-through"):
        hvp.linearize_function(lambda w: tf.reduce_sum(rounded(w) ** 2), w)
    # As the message says: the loss is Σ (x + c)² with c held constant.
    lin = hvp.linearize_function(
        lambda w: tf.reduce_sum((w + tf.stop_gradient(tf.round(w) - w)) ** 2), w
    )
    np.testing.assert_allclose(lin.gradient(), 2 * np.round(w), atol=1e-12)
    np.testing.assert_allclose(lin.hvp(np.eye(2)), 2 * np.eye(2))


class AcrossExamples(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def within_capacity(x):
    # Of the examples that choose one of two experts, the first two alone reach it.
    choice = keras.ops.one_hot(keras.ops.argmax(x[:, :2], -1), 2, dtype="float64")
    place = keras.ops.sum(keras.ops.cumsum(choice, axis=0) * choice, axis=-1, keepdims=True)
    return keras.ops.where(place <= 2, x, 0.0)


ACROSS_EXAMPLES = {
    "minus the mean": lambda x: x - keras.ops.mean(x, axis=0, keepdims=True),
    "sorted": lambda x: keras.ops.sort(x, axis=0),
    "the one before": lambda x: x + keras.ops.roll(x, 1, axis=0),
    "attention": lambda x: keras.ops.softmax(x @ keras.ops.transpose(x)) @ x,
    "minus the first": lambda x: x - x[:1],
    "the best example": lambda x: x + keras.ops.take(x, keras.ops.argmax(x[:, 0]), axis=0),
    "capacity": within_capacity,
}


@pytest.mark.parametrize(
    "name", sweep(ACROSS_EXAMPLES, {"minus the mean", "attention", "capacity"})
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_layer_that_mixes_examples_is_refused_for_several_batches(name, batch_size):
    function = ACROSS_EXAMPLES[name]
    # Oracle: the layer itself, whose result for one example depends on the others.
    assert relative(function(X)[3:6], function(X[3:6])) > 1e-3
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4), AcrossExamples(function), layers.Dense(3)]
    )
    with pytest.raises(MixedExamplesError, match="a layer or a loss that computes across"):
        hvp.linearize(model, (X, REAL), "mse", batch_size=batch_size)
    hvp.linearize(model, (X, REAL), "mse")


def test_a_loss_of_the_worst_examples_is_refused_for_several_batches():
    def worst(y, z):
        return keras.ops.top_k(keras.ops.mean((z - y) ** 2, -1), 8)[0]

    with pytest.raises(MixedExamplesError, match="any number of examples, or a single batch"):
        hvp.linearize(dense_net(), [(np.vstack([X, X]), np.vstack([REAL, REAL]))] * 2, worst)


def test_a_loss_of_pairs_is_refused_where_the_first_batch_has_no_pair():
    def of_pairs(y, z):
        same = keras.ops.cast(y == keras.ops.transpose(y), z.dtype)
        distance = keras.ops.sum((z[:, None] - z[None]) ** 2, -1)
        return keras.ops.sum(same * distance, -1)

    labels = np.array([0, 1, 2, 0, 1, 2, 0])[:, None]
    with pytest.raises(MixedExamplesError, match="a sum or a mean over examples"):
        hvp.linearize(dense_net(), (X, labels), of_pairs, batch_size=3)


def test_rounding_in_low_precision_does_not_count_as_mixing():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(64, "tanh", dtype="mixed_bfloat16"), layers.Dense(3)]
    )
    x = np.random.default_rng(0).standard_normal((64, 4)).astype("float32")
    lin = hvp.linearize(model, (x, np.zeros((64, 3), "float32")), "mse", batch_size=16)
    assert lin.num_batches == 4


@pytest.mark.parametrize("loss", ["mse", "a loss that fails"])
def test_the_model_keeps_the_losses_of_its_last_call(loss):
    class Added(layers.Layer):
        def call(self, x):
            self.add_loss(tf.reduce_mean(x**2))
            return x

    inner = keras.Sequential([layers.Dense(3, activity_regularizer="l2"), Added()])
    model = sequential((4,), inner, layers.Dense(3, kernel_regularizer="l2"), Added())
    model(X)
    before = model.losses
    assert len(before) == 4

    def failing(y, z):
        raise ValueError("as a loss of a user may")

    with contextlib.nullcontext() if loss == "mse" else pytest.raises(hvp.InputError):
        hvp.linearize(model, (X, REAL), failing if loss != "mse" else loss, jit=False)
    assert all(now is then for now, then in zip(model.losses[:3], before[:3], strict=True))
    np.testing.assert_array_equal(model.losses, before)
    model(X + 1)  # a call of the user's own starts anew, without more losses
    assert len(model.losses) == 4
    assert model.losses[0] != before[0]

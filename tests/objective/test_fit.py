"""The gradient is the step that `fit` takes with plain SGD, rate 1, on one full batch."""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import cut, flat, kept_precision, relative
from support.sweep import sweep

import hvp

layers, losses = keras.layers, keras.losses
RNG = np.random.default_rng(11)
X = RNG.standard_normal((6, 4))
SEQUENCES = RNG.standard_normal((6, 5, 3))
SEQUENCES[1, 2:] = SEQUENCES[4, 3:] = 0.0
TOKENS = np.array([[1, 2, 3, 0, 0], [4, 1, 0, 0, 0], [2, 2, 2, 2, 2]] * 2)
REAL = RNG.standard_normal((6, 3))
CLASSES = np.array([0, 2, 1, 2, 0, 1])
ONEHOT = np.eye(3)[CLASSES]
SIGNS = np.sign(REAL)
SHARES = RNG.uniform(0.2, 2.0, 6)


class F64:
    """Keras's losses in float64."""

    def __class_getitem__(cls, name):
        return functools.partial(getattr(losses, name), dtype="float64")


@pytest.fixture(autouse=True)
def precision():
    with kept_precision("float64"):
        yield


def step(model, x, y=None, weights=None, **options):
    """What one step of `fit` over all the data takes from the trainable weights."""
    before = flat([v.numpy() for v in model.trainable_variables])
    count = len(tf.nest.flatten(x)[0])
    common = {"batch_size": count, "epochs": 1, "shuffle": False, "verbose": 0}
    model.fit(x, y, sample_weight=weights, **common, **options)
    return before - flat([v.numpy() for v in model.trainable_variables])


def compiled(model, loss=None, **options):
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign(0.5 * rng.standard_normal(variable.shape) + 0.1)
    model.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=True, **options)
    return model


def chain(shape, *stack, **options):
    return keras.Sequential([keras.Input(shape, **options), *stack], name="net")


def plain(last=None, **options):
    return chain((4,), layers.Dense(5, "tanh", **options), layers.Dense(3, last))


def holds(model, data, *, batch_sizes=(4, 6), tolerance=1e-10, fit=None, **options):
    """Whatever the batches, the gradient is the step of fit, and Hv is the same."""
    lins = [hvp.linearize(model, data, batch_size=size, **options) for size in batch_sizes]
    gradients = [lin.gradient() for lin in lins]
    if len(lins) > 1:
        v = np.random.default_rng(0).standard_normal(lins[0].size)
        first, second = (lin.hvp(v) for lin in lins)
        assert relative(first, second) < 1e-9
    expected = step(model, *data, **(fit or {}))
    assert np.abs(expected).max() > 0
    for gradient in gradients:
        assert relative(gradient, expected) < tolerance


# --- every loss of Keras, by class and by name ---

PROBABILITIES = {
    "sparse_categorical_crossentropy": CLASSES,
    "categorical_crossentropy": ONEHOT,
    "categorical_focal_crossentropy": ONEHOT,
    "kl_divergence": np.full((6, 3), 0.2) + 0.4 * ONEHOT,
    "poisson": np.abs(REAL),
    "mean_squared_logarithmic_error": np.abs(REAL),
    "mean_absolute_percentage_error": REAL + 3,
}
SIGMOIDS = {"binary_crossentropy": ONEHOT, "binary_focal_crossentropy": ONEHOT}
LINEAR = {
    "mean_squared_error": REAL,
    "mean_absolute_error": REAL,
    "cosine_similarity": REAL,
    "huber": REAL,
    "log_cosh": REAL,
    "hinge": SIGNS,
    "squared_hinge": SIGNS,
    "categorical_hinge": ONEHOT,
}
NAMED = {
    **{name: ("softmax", y) for name, y in PROBABILITIES.items()},
    **{name: ("sigmoid", y) for name, y in SIGMOIDS.items()},
    **{name: (None, y) for name, y in LINEAR.items()},
}
BY_NAME = {
    "sparse_categorical_crossentropy",
    "binary_crossentropy",
    "cosine_similarity",
    "mean_absolute_error",
}
BY_CLASS = {"categorical_crossentropy", "poisson", "binary_focal_crossentropy", "huber"}


@pytest.mark.parametrize("name", sweep(NAMED, BY_NAME))
def test_a_loss_by_its_name(name):
    last, y = NAMED[name]
    holds(compiled(plain(last), name), (X, y))


def classes_by_function():
    """The loss classes of Keras by the function that each computes."""
    classes = {found for _, found in inspect.getmembers(losses, inspect.isclass)}
    return {each().fn: each for each in classes - {losses.Loss}}


@pytest.mark.parametrize("name", sweep(NAMED, BY_CLASS))
def test_a_loss_by_its_class_as_it_comes(name):
    last, y = NAMED[name]
    loss = classes_by_function()[getattr(losses, name)](dtype="float64")
    holds(compiled(plain(last), loss), (X, y), batch_sizes=(4,))


CLASSES_OF_LOSSES = {
    "labels, logits": (F64["SparseCategoricalCrossentropy"](from_logits=True), None, CLASSES),
    "labels, probabilities": (F64["SparseCategoricalCrossentropy"](), "softmax", CLASSES),
    "ignored class": (
        F64["SparseCategoricalCrossentropy"](from_logits=True, ignore_class=1), None, CLASSES),
    "smoothed": (
        F64["CategoricalCrossentropy"](from_logits=True, label_smoothing=0.2), None, ONEHOT),
    "smoothed probabilities": (
        F64["CategoricalCrossentropy"](label_smoothing=0.2), "softmax", ONEHOT),
    "binary, smoothed": (
        F64["BinaryCrossentropy"](from_logits=True, label_smoothing=0.2), None, ONEHOT),
    "focal": (F64["CategoricalFocalCrossentropy"](from_logits=True), None, ONEHOT),
    "binary focal": (
        F64["BinaryFocalCrossentropy"](from_logits=True, apply_class_balancing=True), None, ONEHOT),
    "sum": (F64["MeanSquaredError"](reduction="sum"), None, REAL),
    "weighted mean": (F64["MeanSquaredError"](reduction="mean_with_sample_weight"), None, REAL),
    "huber": (F64["Huber"](0.3), None, REAL),
    "generalized": (F64["CategoricalGeneralizedCrossEntropy"](0.3), "softmax", CLASSES),
    "a class, not an instance": (losses.LogCosh, None, REAL),
}  # fmt: skip
OPTIONS = {
    "labels, probabilities",
    "ignored class",
    "smoothed",
    "sum",
    "weighted mean",
    "a class, not an instance",
}


@pytest.mark.parametrize("weights", sweep(["unweighted", "weighted"], {"weighted"}))
@pytest.mark.parametrize("name", sweep(CLASSES_OF_LOSSES, OPTIONS))
def test_a_loss_by_its_class(name, weights):
    loss, last, y = CLASSES_OF_LOSSES[name]
    model = compiled(plain(last), loss() if isinstance(loss, type) else loss)
    holds(model, (X, y, SHARES) if weights == "weighted" else (X, y), batch_sizes=(4,))


WHOLE = {
    "dice": (F64["Dice"](), ONEHOT),
    "tversky": (F64["Tversky"](), ONEHOT),
    "circle": (F64["Circle"](), CLASSES),
    "along the examples": (F64["CosineSimilarity"](axis=0), REAL),
    "by name": ("dice", ONEHOT),
    "by name, too": ("tversky", ONEHOT),
    "by its name": ("circle", CLASSES),
    "a function of the user": (lambda y, z: losses.huber(y, z - z[::-1]), REAL),
}


@pytest.mark.sweep
@pytest.mark.parametrize(("loss", "y"), WHOLE.values(), ids=WHOLE)
def test_a_loss_of_a_whole_batch_is_taken_in_one_alone(loss, y):
    model = compiled(plain("softmax"), loss)
    holds(model, (X, y), batch_sizes=(6,))
    with pytest.raises(hvp.InputError, match="or a single batch"):
        hvp.linearize(model, (X, y), batch_size=4)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("loss", sweep(["Dice", "Tversky"], {"Dice"}))
def test_a_loss_of_a_whole_batch_is_weighed_by_the_weights_of_the_examples(loss, reduction):
    model = compiled(plain("softmax"), F64[loss](reduction=reduction))
    holds(model, (X, ONEHOT, SHARES), batch_sizes=(6,))


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["class", "name"])
def test_the_labels_of_a_sequence(kind):
    """Keras computes them in single precision."""
    loss = "ctc" if kind == "name" else F64["CTC"]()
    model = compiled(chain((5, 3), layers.Dense(4, "softmax")), loss)
    labels = np.array([[1, 2], [3, 3], [2, 1], [1, 3], [2, 2], [3, 1]])
    lin = hvp.linearize(model, (SEQUENCES, labels), batch_size=4)
    assert relative(lin.gradient(), step(model, SEQUENCES, labels)) < 1e-5
    assert not [f for f in lin.findings if "gradient is not" in f.message]


def test_every_loss_of_keras_is_held():
    by_class = {"categorical_generalized_cross_entropy"}  # has no name
    held = NAMED.keys() | by_class | {"circle", "ctc", "dice", "tversky"}
    functions = {found for _, found in inspect.getmembers(losses, inspect.isfunction)}
    functions -= {losses.deserialize, losses.get, losses.serialize}
    assert {function.__name__ for function in functions} == held
    assert set(classes_by_function()) == functions


# --- weights and masks ---


TARGETS = {"flat": CLASSES, "column": CLASSES[:, None], "onehot": ONEHOT}


@pytest.mark.parametrize("kind", sweep(TARGETS, {"flat", "onehot"}))
def test_class_weights(kind):
    y = TARGETS[kind]
    loss = "categorical_crossentropy" if kind == "onehot" else "sparse_categorical_crossentropy"
    weights = {0: 0.5, 2: 3.0}
    model = compiled(plain("softmax"), loss)
    holds(model, (X, y), class_weight=weights, fit={"class_weight": weights})


def test_class_weights_are_sample_weights_to_the_last_digit():
    model = compiled(plain("softmax"), "sparse_categorical_crossentropy")
    weights = {0: 0.1, 1: 0.7, 2: 1 / 3}
    shares = np.array([weights[c] for c in CLASSES])
    lins = [
        hvp.linearize(model, (X, CLASSES), class_weight=weights),
        hvp.linearize(model, (X, CLASSES, shares)),
    ]
    assert relative(lins[0].gradient(), lins[1].gradient()) < 1e-15


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_weights_by_time_step(reduction):
    y, shares = RNG.standard_normal((6, 5, 2)), RNG.uniform(0.2, 2, (6, 5))
    model = chain((5, 3), layers.Dense(2, "tanh"))
    holds(compiled(model, F64["MeanSquaredError"](reduction)), (SEQUENCES, y, shares))


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_weights_by_sequence(reduction):
    y, shares = RNG.standard_normal((6, 5, 2)), SHARES[:, None]
    model = compiled(chain((5, 3), layers.Dense(2, "tanh")), F64["MeanSquaredError"](reduction))
    holds(model, (SEQUENCES, y, shares), batch_sizes=(4,))


class StepLoss(losses.Loss):
    def call(self, y, z):
        return tf.reduce_sum((y - z) ** 4, axis=-1)


@pytest.mark.parametrize("loss", [StepLoss(dtype="float64"), "mse"], ids=["own", "of Keras"])
def test_weights_by_sequence_are_a_column_as_in_fit(loss):
    y = RNG.standard_normal((6, 5, 2))
    model = compiled(chain((5, 3), layers.Dense(2, "tanh")), loss)
    holds(model, (SEQUENCES, y, SHARES[:, None]), batch_sizes=(4,))
    with pytest.raises(tf.errors.InvalidArgumentError):
        step(model, SEQUENCES, y, SHARES)
    with pytest.raises(hvp.InputError, match=r"shape \(3, 5\) or \(3, 1\), as fit does, got"):
        hvp.linearize(model, (SEQUENCES, y, SHARES), batch_size=4)


def test_a_regulariser_that_keras_cannot_compute_is_refused():
    options = {"kernel_regularizer": keras.regularizers.OrthogonalRegularizer(0.1)}
    double, single = (
        chain((4,), layers.Dense(3, dtype=kind, **options)) for kind in ("float64", "float32")
    )
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError), match="Mul"):
        step(compiled(double, "mse"), X, REAL)
    with pytest.raises(hvp.InputError, match='use float32 layers and pass dtype="float64"'):
        hvp.linearize(double, (X, REAL))
    compiled(single, "mse")
    assert hvp.linearize(single, (X, REAL), dtype="float64").hvp(np.ones(15)).shape == (15,)


def test_weights_from_a_dataset():
    data = (X, REAL, SHARES)
    model = compiled(plain(), "mse")
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(4)
    gradient = hvp.linearize(model, dataset).gradient()
    assert relative(gradient, step(model, *data)) < 1e-10


def masking(last):
    return chain((5, 3), layers.Masking(), last, layers.Dense(2))


@pytest.mark.sweep
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_masked_sequences(reduction, weighted):
    y = RNG.standard_normal((6, 5, 2))
    data = (SEQUENCES, y, RNG.uniform(0.2, 2, (6, 5))) if weighted else (SEQUENCES, y)
    model = masking(layers.Dense(3, "tanh"))
    holds(compiled(model, F64["MeanSquaredError"](reduction)), data)


def test_masked_sequences_with_an_ignored_class():
    loss = F64["SparseCategoricalCrossentropy"](from_logits=True, ignore_class=1)
    y = np.arange(30).reshape(6, 5) % 3
    model = chain((5, 3), layers.Masking(), layers.Dense(3, "tanh"))
    holds(compiled(model, loss), (SEQUENCES, y), batch_sizes=(4,))


@pytest.mark.parametrize("unroll", sweep([False, True], {"False"}))
def test_masked_recurrent_layers(unroll):
    model = masking(layers.LSTM(3, return_sequences=True, unroll=unroll))
    holds(compiled(model, "mse"), (SEQUENCES, RNG.standard_normal((6, 5, 2))), batch_sizes=(4,))


def test_an_embedding_with_a_mask():
    model = chain(
        (5,),
        layers.Embedding(5, 3, mask_zero=True),
        layers.GRU(3, return_sequences=True),
        layers.Dense(3, "softmax"),
        dtype="int32",
    )
    y = RNG.integers(0, 3, (6, 5))
    holds(compiled(model, "sparse_categorical_crossentropy"), (TOKENS, y), batch_sizes=(4,))


# --- penalties ---


def test_penalties_on_weights():
    model = plain(kernel_regularizer="l2", bias_regularizer=keras.regularizers.L1L2(0.1, 0.2))
    holds(compiled(model, "mse"), (X, REAL))


@pytest.mark.sweep
def test_penalties_on_activities():
    model = plain(activity_regularizer=keras.regularizers.L2(0.3))
    holds(compiled(model, "mse"), (X, REAL))


class Adding(layers.Layer):
    def __init__(self, reduce, **options):
        super().__init__(**options)
        self.reduce = reduce

    def call(self, x):
        self.add_loss(0.1 * self.reduce(x**4))
        return x


def test_add_loss():
    model = chain((4,), layers.Dense(5, "tanh"), Adding(keras.ops.mean), layers.Dense(3))
    holds(compiled(model, "mse"), (X, REAL))


def test_add_loss_alone_needs_no_targets():
    model = compiled(chain((4,), layers.Dense(5, "tanh"), Adding(keras.ops.mean)))
    gradient = hvp.linearize(model, (X,), batch_size=4).gradient()
    assert relative(gradient, step(model, X)) < 1e-10


def test_an_added_sum_is_taken_in_a_single_batch_alone():
    model = compiled(
        chain((4,), layers.Dense(5, "tanh"), Adding(keras.ops.sum), layers.Dense(3)), "mse"
    )
    with pytest.raises(hvp.InputError, match="a sum or a mean over examples"):
        hvp.linearize(model, (X, REAL), batch_size=4)
    holds(model, (X, REAL), batch_sizes=(6,))


# --- architectures ---


def two_outputs():
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, "tanh")(inputs)
    return keras.Model(
        inputs, [layers.Dense(3, name="a")(hidden), layers.Dense(3, "softmax", name="b")(hidden)]
    )


OUTPUTS = {
    "lists": (["mse", "sparse_categorical_crossentropy"], [0.3, 2.0], [REAL, CLASSES]),
    "dicts": (
        {"a": "mse", "b": "sparse_categorical_crossentropy"},
        {"a": 0.3, "b": 2.0},
        {"a": REAL, "b": CLASSES},
    ),
    "one loss for both": ("mse", None, [REAL, ONEHOT]),
    "one output without": ([None, "categorical_crossentropy"], None, [REAL, ONEHOT]),
    "different divisors": (
        [
            F64["MeanSquaredError"]("sum"),
            F64["CategoricalCrossentropy"](),
        ],
        [0.1, 1.0],
        [REAL, ONEHOT],
    ),
}


@pytest.mark.parametrize("name", sweep(OUTPUTS, {"different divisors", "one output without"}))
def test_several_outputs(name):
    loss, weights, y = OUTPUTS[name]
    model = compiled(two_outputs(), loss, loss_weights=weights)
    y = tuple(y) if isinstance(y, list) else y
    holds(model, (X, y))


def test_several_outputs_with_weights_of_their_own():
    model = compiled(two_outputs(), ["mse", "categorical_crossentropy"])
    holds(model, (X, (REAL, ONEHOT), (SHARES, SHARES[::-1].copy())))


def test_several_inputs():
    first, second = keras.Input((4,), name="first"), keras.Input((3,), name="second")
    joined = layers.Concatenate()([layers.Dense(3, "tanh")(first), second])
    model = keras.Model([first, second], layers.Dense(3)(joined))
    holds(compiled(model, "mse"), ((X, REAL), REAL))
    model = keras.Model({"first": first, "second": second}, layers.Dense(3)(joined))
    holds(compiled(model, "mse"), ({"first": X, "second": REAL}, REAL))


def test_nested_and_shared():
    inner = chain((4,), layers.Dense(4, "tanh"))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(inner(inner(inputs))))
    holds(compiled(model, "mse"), (X, REAL))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(4, "tanh"), layers.Dense(3)

    def call(self, x, training=False):
        return self.second(self.first(x))


class OwnLoss(Subclassed):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        extra = sum(self.losses) if self.losses else 0.0
        return keras.ops.mean((y - y_pred) ** 4) + 0.1 * keras.ops.mean(self.first(x) ** 2) + extra


@pytest.mark.parametrize("kind", [Subclassed, OwnLoss])
def test_subclassed(kind):
    model = kind()
    model(X)
    holds(compiled(model, "mse"), (X, REAL))


def test_frozen_layers():
    model = plain()
    model.layers[0].trainable = False
    holds(compiled(model, "mse"), (X, REAL))


def test_ragged_batches_count_what_they_hold():
    y = RNG.standard_normal((6, 5, 2))
    model = compiled(masking(layers.Dense(3, "tanh")), "mse")
    whole = hvp.linearize(model, [(SEQUENCES, y)])
    lin = hvp.linearize(model, cut((SEQUENCES, y), (1, 4, 1)))
    v = np.ones(lin.size)
    assert relative(lin.hvp(v), whole.hvp(v)) < 1e-12
    assert relative(lin.gnvp(v), whole.gnvp(v)) < 1e-12

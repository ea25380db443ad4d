"""Fisher matrices: exact and by draws, and that of the data's own targets."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import (
    LABELS,
    cut,
    dense_net,
    examples,
    jacobian,
    randomised,
    relative,
    sequential,
    squared_loss,
    variables_of,
)
from scipy.sparse.linalg import LinearOperator

import hvp

layers, losses = keras.layers, keras.losses
F64 = "float64"
X, ONEHOT = examples((4,)), np.eye(3)[LABELS]
REAL = np.random.default_rng(8).standard_normal((7, 3))
WEIGHTS = np.random.default_rng(9).uniform(0.1, 2, 7)
SIZES = (3, 3, 1)
TOLERANCE = 1e-11


# --- dense matrices in NumPy ---


def softmax(z):
    powers = np.exp(z - z.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def categorical(z):
    """diag(p) - ppᵀ for each example: what the cross-entropy of logits z has for its Hessian."""
    p = softmax(z)
    return p[..., None] * np.eye(z.shape[-1]) - p[..., :, None] * p[..., None, :]


def bernoulli(z):
    p = sigmoid(z)
    return (p * (1 - p) / z.shape[-1])[..., None] * np.eye(z.shape[-1])


def gaussian(z):
    return np.broadcast_to(2 / z.shape[-1] * np.eye(z.shape[-1]), (*z.shape, z.shape[-1]))


def sandwich(model, curvature, factors=None, x=X):
    """Σ f JᵀΛJ over the vectors that the outputs are made of, Λ and f being those of each."""
    z = model(x).numpy()
    blocks = curvature(z).reshape(-1, z.shape[-1], z.shape[-1])
    J = jacobian(lambda: model(x), variables_of(model)).reshape(*blocks.shape[:2], -1)
    f = np.full(len(blocks), 1 / len(blocks)) if factors is None else factors
    return np.einsum("n,nap,nab,nbq->pq", f, J, blocks, J)


def outer_products(model, values, factors, x=X):
    """Σ f ∇ℓ∇ℓᵀ over the loss values of the outputs."""
    gradients = jacobian(lambda: values(model(x)), variables_of(model))
    return np.einsum("n,np,nq->pq", np.broadcast_to(factors, len(gradients)), *[gradients] * 2)


def dense(product, lin):
    return product(np.eye(lin.size))


def batches(*data, sizes=SIZES):
    return cut(data, sizes)


# --- the exact matrix ---

CANONICAL = {
    "labels from logits": (
        None,
        losses.SparseCategoricalCrossentropy(from_logits=True),
        LABELS,
        categorical,
    ),
    "labels": ("softmax", "sparse_categorical_crossentropy", LABELS, categorical),
    "one-hot from logits": (
        None,
        losses.CategoricalCrossentropy(from_logits=True),
        ONEHOT,
        categorical,
    ),
    "one-hot": ("softmax", "categorical_crossentropy", ONEHOT, categorical),
    "binary from logits": (None, losses.BinaryCrossentropy(from_logits=True), ONEHOT, bernoulli),
    "binary": ("sigmoid", losses.BinaryCrossentropy(), ONEHOT, bernoulli),
    "squares": (None, "mean_squared_error", REAL, gaussian),
}


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(("last", "loss", "y", "curvature"), CANONICAL.values(), ids=CANONICAL)
def test_fisher_is_the_dense_matrix_of_the_outputs_own_distribution(
    last, loss, y, curvature, weights
):
    data = (X, y) if weights is None else (X, y, weights)
    lin = hvp.linearize(dense_net(last=last), batches(*data), loss)
    factors = np.ones(7) / 7 if weights is None else weights / 7
    expected = sandwich(dense_net(), curvature, factors)
    assert relative(dense(lin.fisher_vp, lin), expected) < TOLERANCE


@pytest.mark.parametrize(("last", "loss", "y"), [c[:3] for c in CANONICAL.values()], ids=CANONICAL)
def test_fisher_is_gauss_newton_for_canonical_links(last, loss, y):
    lin = hvp.linearize(dense_net(last=last), batches(X, y, WEIGHTS), loss)
    assert relative(dense(lin.fisher_vp, lin), dense(lin.gnvp, lin)) < TOLERANCE


@pytest.mark.parametrize(
    ("reduction", "divisor"),
    [("sum", 1.0), ("sum_over_batch_size", 7.0), ("mean_with_sample_weight", WEIGHTS.sum())],
)
def test_fisher_is_divided_as_the_loss_is(reduction, divisor):
    loss = losses.BinaryCrossentropy(from_logits=True, reduction=reduction)
    lin = hvp.linearize(dense_net(), batches(X, ONEHOT, WEIGHTS), loss)
    expected = sandwich(dense_net(), bernoulli, WEIGHTS / divisor)
    assert relative(dense(lin.fisher_vp, lin), expected) < TOLERANCE


def test_penalties_are_no_part_of_either_matrix():
    def penalised(**options):
        return hvp.linearize(dense_net(**options), batches(X, REAL), "mean_squared_error")

    plain = penalised()
    weight = penalised(kernel_regularizer=keras.regularizers.L2(0.5))
    activity = penalised(activity_regularizer=keras.regularizers.L2(0.5))
    for lin in (weight, activity):
        assert relative(dense(lin.fisher_vp, lin), dense(plain.fisher_vp, plain)) < TOLERANCE
        E = dense(plain.empirical_fisher_vp, plain)
        assert relative(dense(lin.empirical_fisher_vp, lin), E) < TOLERANCE
    difference = dense(weight.gnvp, weight) - dense(weight.fisher_vp, weight)
    expected = np.zeros_like(difference)
    expected[:16, :16] = np.eye(16)  # dense1/kernel, of ½‖w‖²
    assert np.abs(difference - expected).max() < TOLERANCE


def clipped_tanh(a):
    return tf.clip_by_value(0.5 + 0.3 * tf.tanh(a), 0.01, 0.99)


def powers(a):
    return tf.exp(0.5 * a)


def test_fisher_of_probabilities_of_ones_own_is_not_gauss_newton():
    model = dense_net(last=clipped_tanh)
    lin = hvp.linearize(model, batches(X, ONEHOT), losses.BinaryCrossentropy())

    def curvature(p):
        return (1 / (p * (1 - p) * 3))[..., None] * np.eye(3)

    F = dense(lin.fisher_vp, lin)
    assert relative(F, sandwich(model, curvature)) < TOLERANCE
    p = model(X).numpy()
    observed = (ONEHOT / p**2 + (1 - ONEHOT) / (1 - p) ** 2) / 3
    G = dense(lin.gnvp, lin)
    assert relative(G, sandwich(model, lambda _: observed[..., None] * np.eye(3))) < TOLERANCE
    assert relative(F, G) > 0.1


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "sparse_categorical_crossentropy"])
def test_fisher_of_outputs_that_are_normalised_by_the_loss_is_that_of_the_logits(loss):
    """p = z/Σz with z = exp(a): the Fisher matrix is that of softmax(a), G is another."""
    # Small enough that Keras clips none of the outputs.
    model = dense_net(last=lambda a: tf.exp(0.1 * a - 3.0))
    lin = hvp.linearize(model, batches(X, LABELS if "sparse" in loss else ONEHOT), loss)
    F = dense(lin.fisher_vp, lin)
    expected = sandwich(dense_net(), lambda a: 0.01 * categorical(0.1 * a))
    assert relative(F, expected) < TOLERANCE
    assert relative(F, dense(lin.gnvp, lin)) > 0.1


@pytest.mark.parametrize(
    ("build", "loss", "curvature"),
    [(losses.BinaryCrossentropy, "binary", bernoulli), (losses.MeanSquaredError, "mse", gaussian)],
    ids=["binary", "squares"],
)
def test_targets_of_one_output_may_lack_its_axis(build, loss, curvature):
    model = sequential((4,), layers.Dense(3, "tanh", dtype=F64), layers.Dense(1, dtype=F64))
    loss = build(from_logits=True) if loss == "binary" else build()
    lin = hvp.linearize(model, batches(X, (LABELS > 0).astype(F64)), loss)
    expected = sandwich(model, curvature)
    assert relative(dense(lin.fisher_vp, lin), expected) < TOLERANCE
    assert np.isfinite(lin.fisher_vp(np.ones(lin.size), 2)).all()


def test_fisher_takes_the_mean_over_all_steps_of_a_sequence():
    model, x, y = sequences()
    lin = hvp.linearize(model, batches(x, y), losses.SparseCategoricalCrossentropy(True))
    expected = sandwich(model, categorical, x=x)
    assert relative(dense(lin.fisher_vp, lin), expected) < TOLERANCE


def test_fisher_leaves_out_steps_that_are_masked():
    model, x, y = sequences(layers.Masking(dtype=F64))
    x[2, 3:], x[5, 1:] = 0, 0
    mask = (x != 0).any(axis=-1).ravel()
    lin = hvp.linearize(model, batches(x, y), losses.SparseCategoricalCrossentropy(True))
    expected = sandwich(model, categorical, mask / mask.sum(), x=x)
    assert relative(dense(lin.fisher_vp, lin), expected) < TOLERANCE
    E = outer_products(model, label_values(y), mask / mask.sum(), x=x)
    assert relative(dense(lin.empirical_fisher_vp, lin), E) < TOLERANCE


def test_fisher_leaves_out_classes_that_are_ignored():
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    y = np.where(LABELS == 1, -1, LABELS)
    lin = hvp.linearize(dense_net(), batches(X, y), loss)
    factors = (y >= 0) / (y >= 0).sum()
    assert relative(dense(lin.fisher_vp, lin), sandwich(dense_net(), categorical, factors)) < 1e-11
    E = outer_products(dense_net(), label_values(np.maximum(y, 0)), factors)
    assert relative(dense(lin.empirical_fisher_vp, lin), E) < TOLERANCE


CLASS_WEIGHT = {0: 5.0, 1: 0.5}


def test_fisher_weighs_examples_by_the_class_that_they_have():
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    lin = hvp.linearize(dense_net(), batches(X, LABELS), loss, class_weight=CLASS_WEIGHT)
    factors = np.array([CLASS_WEIGHT.get(k, 1.0) for k in LABELS]) / 7
    assert relative(dense(lin.fisher_vp, lin), sandwich(dense_net(), categorical, factors)) < 1e-11
    E = outer_products(dense_net(), label_values(LABELS), factors)
    assert relative(dense(lin.empirical_fisher_vp, lin), E) < TOLERANCE


def forked():
    """Two outputs, one of classes and one of numbers, weighted as compiled."""
    inputs = keras.Input((4,), dtype=F64)
    hidden = layers.Dense(3, "tanh", dtype=F64)(inputs)
    heads = [layers.Dense(n, dtype=F64, name=name)(hidden) for n, name in ((3, "a"), (2, "b"))]
    model = randomised(keras.Model(inputs, heads))
    loss = [losses.SparseCategoricalCrossentropy(from_logits=True), "mean_squared_error"]
    model.compile(loss=loss, loss_weights=[0.3, 2.0])
    return model


def test_matrices_of_several_outputs_are_the_weighted_sums():
    model, y = forked(), (LABELS, REAL[:, :2])
    lin = hvp.linearize(model, [(X[:4], (y[0][:4], y[1][:4])), (X[4:], (y[0][4:], y[1][4:]))])
    a, b = (keras.Model(model.inputs, output) for output in model.outputs)
    variables = variables_of(model)
    Ja, Jb = (jacobian(lambda m=m: m(X), variables).reshape(7, -1, lin.size) for m in (a, b))
    p = categorical(a(X).numpy())
    expected = 0.3 / 7 * np.einsum("nap,nab,nbq->pq", Ja, p, Ja)
    expected += 2.0 / 7 * np.einsum("nap,naq->pq", Jb, Jb)  # 2/C with C = 2
    assert relative(dense(lin.fisher_vp, lin), expected) < TOLERANCE
    ga = jacobian(lambda: label_values(LABELS)(a(X)), variables)
    gb = jacobian(lambda: tf.reduce_mean((b(X) - y[1]) ** 2, -1), variables)
    E = 0.3 / 7 * ga.T @ ga + 2.0 / 7 * gb.T @ gb
    assert relative(dense(lin.empirical_fisher_vp, lin), E) < TOLERANCE


def test_fisher_over_some_parameters_is_a_block_of_the_whole():
    lin = hvp.linearize(dense_net(), batches(X, LABELS), CANONICAL["labels from logits"][1])
    inside = slice(20, 35)
    for name in ("fisher_vp", "empirical_fisher_vp"):
        whole, block = (dense(getattr(over, name), over) for over in (lin, lin.block("dense2")))
        assert relative(block, whole[inside, inside]) < TOLERANCE
    whole, block = (
        dense(lambda v, o=o: o.fisher_vp(v, 2, 5), o) for o in (lin, lin.block("dense2"))
    )
    assert relative(block, whole[inside, inside]) < TOLERANCE


SMOOTHED = {
    "one-hot": (losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3), categorical),
    "binary": (losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.3), bernoulli),
}


@pytest.mark.parametrize(("loss", "curvature"), SMOOTHED.values(), ids=SMOOTHED)
def test_smoothing_changes_no_hessian_in_the_logits(loss, curvature):
    lin = hvp.linearize(dense_net(), batches(X, ONEHOT), loss)
    assert relative(dense(lin.fisher_vp, lin), sandwich(dense_net(), curvature)) < TOLERANCE


# --- by draws ---

COPIES = 300
DRAWN = {
    **{name: case[:3] for name, case in CANONICAL.items()},
    "labels in a column": (None, CANONICAL["labels from logits"][1], LABELS[:, None]),
    "binary of ones own": (clipped_tanh, losses.BinaryCrossentropy(), ONEHOT),
    "one-hot of ones own": (powers, losses.CategoricalCrossentropy(), ONEHOT),
    # fails: draws are cast to the targets' type, so Gaussian ones are cut to whole numbers
    "squares of whole numbers": (None, "mean_squared_error", 3 * ONEHOT.astype(int)),
    # fails: the smoothing is applied to what is drawn, whose scores are then too small
    **{f"{name}, smoothed": (None, loss, ONEHOT) for name, (loss, _) in SMOOTHED.items()},
    # fails: Keras takes the logits of a closing sigmoid for those of a softmax
    "labels after a sigmoid": ("sigmoid", losses.SparseCategoricalCrossentropy(), LABELS),
}


def copied(*data):
    """The same examples many times: the same matrix, with as many more draws."""
    return tuple(np.concatenate([a] * COPIES) for a in data)


def scores_of_the_mean(lin, num_samples, seeds=6):
    """How many standard errors the mean over seeds is away from the exact vᵀFv, for three v."""
    V = np.random.default_rng(0).standard_normal((lin.size, 3))
    exact = np.sum(V * lin.fisher_vp(V), axis=0)
    found = np.array(
        [np.sum(V * lin.fisher_vp(V, num_samples, seed), axis=0) for seed in range(seeds)]
    )
    error = found.std(axis=0, ddof=1) / np.sqrt(seeds)
    assert (error < 0.05 * exact).all()
    return np.abs(found.mean(axis=0) - exact) / error


@pytest.mark.parametrize(("last", "loss", "y"), DRAWN.values(), ids=DRAWN)
def test_the_mean_of_draws_is_the_exact_matrix(last, loss, y):
    lin = hvp.linearize(dense_net(last=last), copied(X, y), loss, batch_size=7 * COPIES, jit=False)
    assert (scores_of_the_mean(lin, 1) < 6).all()


@pytest.mark.parametrize("num_samples", [2, 5])
def test_the_mean_of_several_draws_is_the_exact_matrix(num_samples):
    loss = losses.BinaryCrossentropy(from_logits=True, reduction="sum")
    lin = hvp.linearize(dense_net(), copied(X, ONEHOT, WEIGHTS), loss, batch_size=1200, jit=False)
    assert lin.num_batches == 2
    assert (scores_of_the_mean(lin, num_samples) < 6).all()


# fails: draws, not the data, tell which examples are ignored
def test_draws_leave_out_classes_that_are_ignored():
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    y = np.where(LABELS == 1, -1, LABELS)
    lin = hvp.linearize(dense_net(), copied(X, y), loss, batch_size=7 * COPIES, jit=False)
    assert (scores_of_the_mean(lin, 1) < 6).all()


# fails: examples are weighed by the class drawn, by that of the data in the exact matrix
def test_draws_weigh_examples_by_the_class_that_they_have():
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    options = {"class_weight": CLASS_WEIGHT, "batch_size": 7 * COPIES, "jit": False}
    lin = hvp.linearize(dense_net(), copied(X, LABELS), loss, **options)
    assert (scores_of_the_mean(lin, 1) < 6).all()


def test_the_mean_of_draws_is_exact_for_masked_sequences():
    model, x, y = sequences(layers.Masking(dtype=F64))
    x[2, 3:], x[5, 1:] = 0, 0
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    lin = hvp.linearize(model, copied(x, y), loss, batch_size=7 * COPIES, jit=False)
    assert (scores_of_the_mean(lin, 1) < 6).all()


def test_one_draw_is_the_score_of_a_class_with_itself():
    model, loss = dense_net(), CANONICAL["labels from logits"][1]
    lin = hvp.linearize(model, (X[:1], LABELS[:1]), loss, jit=False)
    J = jacobian(lambda: model(X[:1]), variables_of(model))
    scores = (softmax(model(X[:1]).numpy()) - np.eye(3)) @ J
    drawn = set()
    for seed in range(12):
        F = dense(lambda v, seed=seed: lin.fisher_vp(v, 1, seed), lin)
        errors = [relative(F, np.outer(score, score)) for score in scores]
        assert min(errors) < TOLERANCE
        drawn.add(int(np.argmin(errors)))
    assert len(drawn) > 1


def test_draws_follow_their_seed_alone():
    def linearized(**options):
        loss = CANONICAL["labels from logits"][1]
        return hvp.linearize(dense_net(), batches(X, LABELS), loss, **options)

    lin, v = linearized(jit=False), np.arange(47.0)
    first = lin.fisher_vp(v, 2, 3)
    assert (lin.fisher_vp(v, 2, 3) == first).all()
    assert (linearized(jit=False).fisher_vp(v, 2, 3) == first).all()
    assert relative(linearized(jit=True).fisher_vp(v, 2, 3), first) < 1e-13
    assert relative(linearized(cache=0).fisher_vp(v, 2, 3), first) < 1e-13
    assert relative(lin.fisher_vp(v, 2, 4), first) > 1e-2
    assert relative(lin.fisher_vp(v, 3, 3), first) > 1e-2
    assert (lin.fisher_vp(v, 2, 0) == lin.fisher_vp(v, 2)).all()


def test_every_batch_has_draws_of_its_own():
    loss = CANONICAL["labels from logits"][1]
    once = hvp.linearize(dense_net(), [(X, LABELS)], loss, jit=False)
    twice = hvp.linearize(dense_net(), [(X, LABELS)] * 2, loss, jit=False)
    v = np.arange(47.0)
    assert relative(twice.fisher_vp(v), once.fisher_vp(v)) < 1e-13
    assert relative(twice.fisher_vp(v, 1), once.fisher_vp(v, 1)) > 1e-2


@pytest.mark.parametrize(("last", "loss", "y"), [c[:3] for c in CANONICAL.values()], ids=CANONICAL)
def test_drawn_matrix_is_symmetric_and_positive_semidefinite(last, loss, y):
    lin = hvp.linearize(dense_net(last=last), batches(X, y, WEIGHTS), loss, jit=False)
    F = hvp.Fisher(lin, 2, seed=1) @ np.eye(lin.size)
    assert relative(F, F.T) < 1e-13
    values = np.linalg.eigvalsh((F + F.T) / 2)
    assert values[0] > -1e-13 * values[-1]
    # Two scores an example at the most.
    assert np.sum(values > 1e-12 * values[-1]) <= 14


# --- of the data's own targets ---


def label_values(y):
    return lambda z: tf.reduce_logsumexp(z, -1) - tf.gather(z, y, axis=-1, batch_dims=y.ndim)


def sigmoid_values(z):
    return tf.reduce_mean(tf.math.softplus(z) - z * ONEHOT, -1)


def square_values(z):
    return tf.reduce_mean((z - REAL) ** 2, -1)


def huber_values(z):
    error = tf.abs(z - REAL)
    return tf.reduce_mean(tf.where(error <= 1, error**2 / 2, error - 0.5), -1)


def quartic(y, z):
    return tf.reduce_sum((z - y) ** 4, axis=-1)


class Squares(losses.Loss):
    """Squares that are not summed over the outputs: a loss value for each."""

    def call(self, y, z):
        return (z - y) ** 2


EMPIRICAL = {
    "labels from logits": (None, CANONICAL["labels from logits"][1], LABELS, label_values(LABELS)),
    "labels": ("softmax", "sparse_categorical_crossentropy", LABELS, label_values(LABELS)),
    "one-hot": ("softmax", "categorical_crossentropy", ONEHOT, label_values(LABELS)),
    "binary from logits": (None, CANONICAL["binary from logits"][1], ONEHOT, sigmoid_values),
    "binary": ("sigmoid", "binary_crossentropy", ONEHOT, sigmoid_values),
    "squares": (None, "mean_squared_error", REAL, square_values),
    "huber": (None, "huber", REAL, huber_values),
    "a function": (None, quartic, REAL, functools.partial(quartic, REAL)),
}


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(("last", "loss", "y", "values"), EMPIRICAL.values(), ids=EMPIRICAL)
def test_empirical_fisher_is_the_sum_of_gradients_with_themselves(last, loss, y, values, weights):
    data = (X, y) if weights is None else (X, y, weights)
    lin = hvp.linearize(dense_net(last=last), batches(*data), loss)
    expected = outer_products(dense_net(), values, 1 / 7 if weights is None else weights / 7)
    assert relative(dense(lin.empirical_fisher_vp, lin), expected) < TOLERANCE


@pytest.mark.parametrize(
    ("reduction", "divisor"), [("sum", 1.0), ("mean_with_sample_weight", WEIGHTS.sum())]
)
def test_empirical_fisher_is_divided_as_the_loss_is(reduction, divisor):
    loss = losses.MeanSquaredError(reduction=reduction)
    lin = hvp.linearize(dense_net(), batches(X, REAL, WEIGHTS), loss)
    expected = outer_products(dense_net(), square_values, WEIGHTS / divisor)
    assert relative(dense(lin.empirical_fisher_vp, lin), expected) < TOLERANCE


def test_every_loss_value_counts_by_itself():
    lin = hvp.linearize(dense_net(), batches(X, REAL), Squares())
    expected = outer_products(dense_net(), lambda z: (z - REAL) ** 2, 1 / 21)
    assert relative(dense(lin.empirical_fisher_vp, lin), expected) < TOLERANCE


def test_a_loss_value_of_a_whole_batch_gives_its_gradient_with_itself():
    lin = hvp.linearize(dense_net(), (X, REAL), lambda y, z: tf.reduce_sum((z - y) ** 2))
    slope = jacobian(lambda: 21 * squared_loss(REAL, dense_net()(X)), [])
    del slope
    g = lin.gradient()
    model = dense_net()
    expected = jacobian(lambda: 21 * squared_loss(REAL, model(X)), variables_of(model))[0]
    assert relative(g, expected) < TOLERANCE
    assert relative(dense(lin.empirical_fisher_vp, lin), np.outer(expected, expected)) < TOLERANCE


class Column(losses.Loss):
    """One loss value an example, in a column."""

    def call(self, y, z):
        return tf.reduce_sum((z - y) ** 2, axis=-1, keepdims=True)


# fails: a last axis of one is taken for one that the outputs have too
def test_loss_values_in_a_column_are_those_of_whole_examples():
    lin = hvp.linearize(dense_net(), batches(X, REAL), Column())
    expected = outer_products(dense_net(), lambda z: tf.reduce_sum((z - REAL) ** 2, -1), 1 / 7)
    assert relative(dense(lin.empirical_fisher_vp, lin), expected) < TOLERANCE


class Coupled(losses.Loss):
    """A loss value for each output that depends on the first output too."""

    def call(self, y, z):
        return (z - y) ** 2 * z[:, :1]


# fails: what a loss value does not share an index with is taken for what it does not depend on
def test_loss_values_may_depend_on_all_outputs():
    lin = hvp.linearize(dense_net(), batches(X, REAL), Coupled())
    expected = outer_products(dense_net(), lambda z: (z - REAL) ** 2 * z[:, :1], 1 / 21)
    assert relative(dense(lin.empirical_fisher_vp, lin), expected) < TOLERANCE


def sequences(*first):
    """A network of five steps, its inputs and a class for each step."""
    rnn = layers.SimpleRNN(3, return_sequences=True, unroll=True, dtype=F64)
    model = sequential((5, 2), *first, rnn, layers.Dense(3, dtype=F64))
    return model, examples((5, 2)), np.random.default_rng(5).integers(0, 3, (7, 5))


STEP_WEIGHTS = {
    "no weights": None,
    "one an example": WEIGHTS,
    "one a step": np.random.default_rng(10).uniform(0.1, 2, (7, 5)),
}


@pytest.mark.parametrize("weights", STEP_WEIGHTS.values(), ids=STEP_WEIGHTS)
def test_empirical_fisher_of_a_sequence_counts_every_step(weights):
    model, x, y = sequences()
    data = (x, y) if weights is None else (x, y, weights)
    lin = hvp.linearize(model, batches(*data), losses.SparseCategoricalCrossentropy(True))
    factors = np.ones((7, 5)) if weights is None else weights.reshape(7, -1) * np.ones((7, 5))
    expected = outer_products(model, label_values(y), factors.ravel() / 35, x=x)
    assert relative(dense(lin.empirical_fisher_vp, lin), expected) < TOLERANCE
    F = sandwich(model, categorical, factors.ravel() / 35, x=x)
    assert relative(dense(lin.fisher_vp, lin), F) < TOLERANCE


def test_matrices_of_a_loop_are_those_of_its_steps():
    def linearized(unroll):
        rnn = layers.SimpleRNN(3, return_sequences=True, unroll=unroll, dtype=F64)
        model = sequential((5, 2), rnn, layers.Dense(3, dtype=F64))
        _, x, y = sequences()
        loss = losses.SparseCategoricalCrossentropy(from_logits=True)
        return hvp.linearize(model, batches(x, y, sizes=(4, 3)), loss, jit=False)

    loop, steps = linearized(False), linearized(True)
    v = np.random.default_rng(2).standard_normal(loop.size)
    assert relative(loop.fisher_vp(v), steps.fisher_vp(v)) < TOLERANCE
    assert relative(loop.fisher_vp(v, 2), steps.fisher_vp(v, 2)) < TOLERANCE
    assert relative(loop.empirical_fisher_vp(v), steps.empirical_fisher_vp(v)) < TOLERANCE


# fails: classes are taken to stand on the last axis
@pytest.mark.parametrize("matrix", ["exact", "empirical"])
def test_classes_may_stand_on_another_axis(matrix):
    model = sequential((5, 2), layers.Dense(5, dtype=F64))
    x = examples((5, 2))
    y = np.swapaxes(np.eye(5)[np.random.default_rng(0).integers(0, 5, (7, 5))], 1, 2)
    lin = hvp.linearize(model, (x, y), losses.CategoricalCrossentropy(from_logits=True, axis=1))
    J = jacobian(lambda: model(x), variables_of(model)).reshape(7, 5, 5, -1)
    p = softmax(np.swapaxes(model(x).numpy(), 1, 2))  # by example, step and class
    if matrix == "exact":
        blocks = categorical(np.swapaxes(model(x).numpy(), 1, 2))
        expected = np.einsum("nctp,ntcd,ndtq->pq", J, blocks, J) / 35
        assert relative(dense(lin.fisher_vp, lin), expected) < TOLERANCE
    else:
        scores = np.einsum("ntc,nctp->ntp", p - np.swapaxes(y, 1, 2), J)
        expected = np.einsum("ntp,ntq->pq", scores, scores) / 35
        assert relative(dense(lin.empirical_fisher_vp, lin), expected) < TOLERANCE


# --- operators ---

OPERATORS = {
    "exact": hvp.Fisher,
    "drawn": lambda lin: hvp.Fisher(lin, num_samples=2, seed=7),
    "empirical": hvp.EmpiricalFisher,
}


@pytest.mark.parametrize("build", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("jit", [False, True], ids=["plain", "XLA"])
def test_operators_take_columns_and_blocks(build, jit):
    loss = CANONICAL["labels from logits"][1]
    A = build(hvp.linearize(dense_net(), batches(X, LABELS), loss, jit=jit))
    assert isinstance(A, LinearOperator)
    assert A.shape == (47, 47)
    assert A.dtype == np.float64
    V = np.random.default_rng(1).standard_normal((47, 5))
    block = A @ V
    assert block.shape == (47, 5)
    columns = np.stack([A @ v for v in V.T], axis=1)
    assert relative(block, columns) < 1e-13
    assert relative(A.T @ V, block) < 1e-13
    assert A.matvec(V[:, :1]).shape == (47, 1)
    assert (A @ np.zeros((47, 0))).shape == (47, 0)


def test_operators_are_the_methods():
    lin = hvp.linearize(dense_net(), (X, LABELS), CANONICAL["labels from logits"][1], jit=False)
    v = np.arange(47.0)
    assert (hvp.Fisher(lin) @ v == lin.fisher_vp(v)).all()
    assert (hvp.Fisher(lin, 2) @ v == lin.fisher_vp(v, 2, 0)).all()
    assert (hvp.Fisher(lin, num_samples=2, seed=5) @ v == lin.fisher_vp(v, 2, 5)).all()
    assert (hvp.EmpiricalFisher(lin) @ v == lin.empirical_fisher_vp(v)).all()


# --- refused ---


class Thrice(losses.MeanSquaredError):
    def call(self, y, z):
        return 3 * super().call(y, z)


UNKNOWN = {
    "huber": ("huber", REAL),
    "a function": (quartic, REAL),
    "a focal loss": (losses.CategoricalFocalCrossentropy(from_logits=True), ONEHOT),
    # fails: told from the function of its parent, 3 times too small
    "a known loss overridden": (Thrice(), REAL),
}


@pytest.mark.parametrize("num_samples", [None, 2])
@pytest.mark.parametrize(("loss", "y"), UNKNOWN.values(), ids=UNKNOWN)
def test_fisher_of_a_loss_that_is_no_likelihood_is_refused(loss, y, num_samples):
    lin = hvp.linearize(dense_net(), (X, y), loss)
    with pytest.raises(hvp.InputError, match="cross-entropy or the mean of squares"):
        lin.fisher_vp(np.ones(lin.size), num_samples)
    with pytest.raises(hvp.InputError, match="cross-entropy"):
        hvp.Fisher(lin, num_samples) @ np.ones(lin.size)
    assert np.isfinite(lin.empirical_fisher_vp(np.ones(lin.size))).all()


def test_matrices_of_functions_are_refused():
    alone = hvp.linearize_function(lambda w: tf.reduce_sum(w**4), np.ones(3))
    cut_in_two = hvp.linearize_function(tf.reduce_sum, np.ones(3), outputs=lambda w: w**2)
    for lin in (alone, cut_in_two):
        for product in (lin.fisher_vp, lin.empirical_fisher_vp):
            with pytest.raises(hvp.InputError):
                product(np.ones(3))
    with pytest.raises(hvp.InputError, match="a Keras loss of the outputs, got"):
        cut_in_two.empirical_fisher_vp(np.ones(3))
    with pytest.raises(hvp.InputError, match="cross-entropy"):
        cut_in_two.fisher_vp(np.ones(3))


@pytest.mark.parametrize(
    ("num_samples", "seed"),
    # fails: ("3", 0) and (2, None) with a TypeError, 2.5 and 1.5 by a line of TensorFlow's
    [(0, 0), (-1, 0), (1, -1), (2.5, 0), ("3", 0), (2, 1.5), (2, None)],
)
def test_draws_that_cannot_be_made_are_refused(num_samples, seed):
    lin = hvp.linearize(dense_net(), (X, LABELS), CANONICAL["labels from logits"][1])
    with pytest.raises(hvp.InputError, match="at least one sample and a seed from 0"):
        lin.fisher_vp(np.ones(lin.size), num_samples, seed)


@pytest.mark.parametrize("build", OPERATORS.values(), ids=OPERATORS)
def test_vectors_that_do_not_fit_are_refused(build):
    lin = hvp.linearize(dense_net(), (X, LABELS), CANONICAL["labels from logits"][1], jit=False)
    with pytest.raises(ValueError, match="dimension mismatch"):
        build(lin) @ np.ones(46)
    with pytest.raises(hvp.InputError, match="NaN or infinity in v"):
        build(lin) @ np.full(47, np.nan)

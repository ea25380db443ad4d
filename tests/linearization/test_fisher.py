"""Fisher matrices: exact and by draws, and that of the data's own targets."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse.linalg import LinearOperator
from support.oracles import (
    LABELS,
    cut,
    examples,
    jacobian,
    randomised,
    relative,
    sequential,
    variables_of,
)
from support.sweep import sweep

import hvp

layers, losses = keras.layers, keras.losses
F64 = "float64"
X, ONEHOT = examples((4,)), np.eye(3)[LABELS]
REAL = np.random.default_rng(8).standard_normal((7, 3))
WEIGHTS = np.random.default_rng(9).uniform(0.1, 2, 7)
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


def net(last=None, **options):
    """4 inputs - first (3) - second (3): 27 parameters."""
    first = layers.Dense(3, "tanh", dtype=F64, name="first", **options)
    return sequential((4,), first, layers.Dense(3, last, dtype=F64, name="second"))


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


def error(product, expected):
    """Of the products with four vectors at once, relative to the largest entry expected."""
    V = np.random.default_rng(11).standard_normal((len(expected), 4))
    return relative(product(V), expected @ V)


def linearize(model, data, loss=None, *, sizes=(7,), **options):
    """Without trying what is fastest, which takes longer than all else."""
    return hvp.linearize(model, cut(data, sizes), loss, jit=False, **options)


# --- the exact matrix ---

RAGGED = (3, 3, 1)
LOGITS = losses.SparseCategoricalCrossentropy(from_logits=True)
ONEHOT_LOGITS = losses.CategoricalCrossentropy(from_logits=True)
BINARY_LOGITS = losses.BinaryCrossentropy(from_logits=True)
CANONICAL = {
    "labels from logits": (None, LOGITS, LABELS, categorical),
    "labels": ("softmax", "sparse_categorical_crossentropy", LABELS, categorical),
    "one-hot from logits": (None, ONEHOT_LOGITS, ONEHOT, categorical),
    "one-hot": ("softmax", "categorical_crossentropy", ONEHOT, categorical),
    "binary from logits": (None, BINARY_LOGITS, ONEHOT, bernoulli),
    "binary": ("sigmoid", losses.BinaryCrossentropy(), ONEHOT, bernoulli),
    "squares": (None, "mean_squared_error", REAL, gaussian),
}
OFTEN = {"labels", "binary from logits", "squares"}


@functools.cache
def weighted(name):
    last, loss, y, _ = CANONICAL[name]
    return linearize(net(last=last), (X, y, WEIGHTS), loss, sizes=RAGGED)


@pytest.mark.parametrize("name", sweep(CANONICAL, OFTEN))
def test_fisher_is_the_dense_matrix_of_the_distribution_of_the_outputs(name):
    expected = sandwich(net(), CANONICAL[name][-1], WEIGHTS / 7)
    assert error(weighted(name).fisher_vp, expected) < TOLERANCE


@pytest.mark.parametrize("name", sweep(CANONICAL, OFTEN))
def test_fisher_is_gauss_newton_for_canonical_links(name):
    lin = weighted(name)
    V = np.random.default_rng(1).standard_normal((lin.size, 4))
    assert relative(lin.fisher_vp(V), lin.gnvp(V)) < TOLERANCE


REDUCTIONS = {"sum": 1.0, "mean": 7.0, "mean_with_sample_weight": WEIGHTS.sum()}


@pytest.mark.parametrize(("reduction", "divisor"), REDUCTIONS.items(), ids=REDUCTIONS)
def test_both_matrices_are_divided_as_the_loss_is(reduction, divisor):
    loss = losses.MeanSquaredError(reduction=reduction)
    lin = linearize(net(), (X, REAL, WEIGHTS), loss, sizes=(4, 3))
    assert error(lin.fisher_vp, sandwich(net(), gaussian, WEIGHTS / divisor)) < TOLERANCE
    E = outer_products(net(), square_values, WEIGHTS / divisor)
    assert error(lin.empirical_fisher_vp, E) < TOLERANCE


PENALTIES = ["kernel_regularizer", "activity_regularizer"]


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalties_are_no_part_of_either_matrix(penalty):
    model = net(**{penalty: keras.regularizers.L2(0.5)})
    lin = linearize(model, (X, REAL), "mean_squared_error")
    F = sandwich(net(), gaussian)
    assert error(lin.fisher_vp, F) < TOLERANCE
    assert error(lin.empirical_fisher_vp, outer_products(model, square_values, 1 / 7)) < TOLERANCE
    if penalty == "kernel_regularizer":
        # G has it: ½‖w‖² of first/kernel.
        G = F + np.diag(np.arange(27) < 12)
        assert error(lin.gnvp, G) < TOLERANCE


def clipped_tanh(a):
    return tf.clip_by_value(0.5 + 0.3 * tf.tanh(a), 0.01, 0.99)


def powers(a):
    """So small that Keras clips none of them."""
    return tf.exp(0.5 * a - 4.0)


@pytest.mark.sweep
def test_fisher_of_probabilities_made_otherwise_is_not_gauss_newton():
    model = net(last=clipped_tanh)
    lin = linearize(model, (X, ONEHOT), losses.BinaryCrossentropy(), sizes=RAGGED)

    def expected(p):
        return (1 / (p * (1 - p)) / 3)[..., None] * np.eye(3)

    def observed(p):
        return ((ONEHOT / p**2 + (1 - ONEHOT) / (1 - p) ** 2) / 3)[..., None] * np.eye(3)

    F, G = sandwich(model, expected), sandwich(model, observed)
    assert error(lin.fisher_vp, F) < TOLERANCE
    assert error(lin.gnvp, G) < TOLERANCE
    assert relative(F, G) > 0.1


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "sparse_categorical_crossentropy"])
def test_fisher_of_outputs_that_the_loss_normalises_is_that_of_their_shares(loss):
    """With z = exp(a/2 - 4) the shares are softmax(a/2), whatever z adds up to."""
    model = net(last=powers)
    assert float(tf.reduce_max(model(X))) < 1
    lin = linearize(model, (X, LABELS if "sparse" in loss else ONEHOT), loss)
    expected = sandwich(net(), lambda a: categorical(a / 2) / 4)
    assert error(lin.fisher_vp, expected) < TOLERANCE
    V = np.random.default_rng(1).standard_normal((lin.size, 4))
    assert relative(lin.gnvp(V), expected @ V) > 0.1


@pytest.mark.parametrize(
    ("loss", "curvature"),
    [(BINARY_LOGITS, bernoulli), ("mse", gaussian)],
    ids=["binary", "squares"],
)
def test_targets_of_one_output_may_lack_its_axis(loss, curvature):
    model = sequential((4,), layers.Dense(1, dtype=F64))
    lin = linearize(model, (X, (LABELS > 0).astype(F64)), loss)
    assert error(lin.fisher_vp, sandwich(model, curvature)) < TOLERANCE
    assert np.isfinite(lin.fisher_vp(np.ones(lin.size), 2)).all()


IGNORING = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
WITH_IGNORED = np.where(LABELS == 1, -1, LABELS)


@pytest.mark.sweep
def test_classes_that_are_ignored_count_for_nothing():
    lin = linearize(net(), (X, WITH_IGNORED), IGNORING, sizes=(4, 3))
    factors = (WITH_IGNORED >= 0) / np.sum(WITH_IGNORED >= 0)
    assert error(lin.fisher_vp, sandwich(net(), categorical, factors)) < TOLERANCE
    E = outer_products(net(), label_values(np.maximum(WITH_IGNORED, 0)), factors)
    assert error(lin.empirical_fisher_vp, E) < TOLERANCE


CLASS_WEIGHT = {0: 5.0, 1: 0.5}


def test_examples_are_weighed_by_the_class_that_they_have():
    lin = linearize(net(), (X, LABELS), LOGITS, class_weight=CLASS_WEIGHT)
    factors = np.array([CLASS_WEIGHT.get(k, 1.0) for k in LABELS]) / 7
    assert error(lin.fisher_vp, sandwich(net(), categorical, factors)) < TOLERANCE
    E = outer_products(net(), label_values(LABELS), factors)
    assert error(lin.empirical_fisher_vp, E) < TOLERANCE


def forked():
    """Two outputs, one of classes and one of numbers, with weights."""
    inputs = keras.Input((4,), dtype=F64)
    hidden = layers.Dense(3, "tanh", dtype=F64)(inputs)
    heads = [layers.Dense(n, dtype=F64, name=name)(hidden) for n, name in ((3, "a"), (2, "b"))]
    model = randomised(keras.Model(inputs, heads))
    model.compile(loss=[LOGITS, "mean_squared_error"], loss_weights=[0.3, 2.0])
    return model


@pytest.mark.sweep
def test_matrices_of_several_outputs_are_the_weighted_sums():
    model, real = forked(), REAL[:, :2]
    parts = [(X[i], (LABELS[i], real[i])) for i in (slice(4), slice(4, 7))]
    lin = hvp.linearize(model, parts, jit=False)
    a, b = (keras.Model(model.inputs, output) for output in model.outputs)
    variables = variables_of(model)
    Ja, Jb = (jacobian(lambda m=m: m(X), variables).reshape(7, -1, lin.size) for m in (a, b))
    F = 0.3 / 7 * np.einsum("nap,nab,nbq->pq", Ja, categorical(a(X).numpy()), Ja)
    F += 2.0 / 7 * np.einsum("nap,nab,nbq->pq", Jb, gaussian(b(X).numpy()), Jb)
    assert error(lin.fisher_vp, F) < TOLERANCE
    ga = jacobian(lambda: label_values(LABELS)(a(X)), variables)
    gb = jacobian(lambda: tf.reduce_mean((b(X) - real) ** 2, -1), variables)
    E = 0.3 / 7 * ga.T @ ga + 2.0 / 7 * gb.T @ gb
    assert error(lin.empirical_fisher_vp, E) < TOLERANCE


def test_matrices_over_some_parameters_are_blocks_of_the_whole():
    block, inside = weighted("binary").block("second"), slice(15, 27)
    F = sandwich(net(), bernoulli, WEIGHTS / 7)
    assert error(block.fisher_vp, F[inside, inside]) < TOLERANCE
    E = outer_products(net(), sigmoid_values, WEIGHTS / 7)
    assert error(block.empirical_fisher_vp, E[inside, inside]) < TOLERANCE
    v = np.zeros(27)
    v[inside] = np.arange(12.0)
    whole = weighted("binary").fisher_vp(v, 2, 5)[inside]
    assert relative(block.fisher_vp(v[inside], 2, 5), whole) < TOLERANCE


SMOOTHED = {
    "one-hot": (losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3), categorical),
    "binary": (losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.3), bernoulli),
}


@pytest.mark.parametrize(("loss", "curvature"), SMOOTHED.values(), ids=SMOOTHED)
def test_a_loss_that_smooths_its_targets_is_no_likelihood(loss, curvature):
    lin = linearize(net(), (X, ONEHOT), loss)
    with pytest.raises(hvp.InputError, match="cross-entropy or the mean of squares"):
        lin.fisher_vp(np.ones(lin.size))


# --- by draws ---

COPIES = 2000
DRAWN = {
    **{
        name: CANONICAL[name][:3] for name in ("labels", "one-hot", "binary from logits", "squares")
    },
    "labels in a column": (None, LOGITS, LABELS[:, None]),
    "binary, made otherwise": (clipped_tanh, losses.BinaryCrossentropy(), ONEHOT),
    "one-hot, made otherwise": (powers, losses.CategoricalCrossentropy(), ONEHOT),
    "labels after a sigmoid": ("sigmoid", losses.SparseCategoricalCrossentropy(), LABELS),
}


def copied(*data):
    """The same examples many times: the same matrix, with as many more draws."""
    return tuple(np.concatenate([a] * COPIES) for a in data)


def standard_errors(lin, num_samples=1, seeds=4):
    """How many of them the mean over seeds of vᵀFv is away from the exact one, for four v."""
    V = np.random.default_rng(0).standard_normal((lin.size, 4))
    drawn = [np.sum(V * lin.fisher_vp(V, num_samples, seed), axis=0) for seed in range(seeds)]
    shares = np.array(drawn) / np.sum(V * lin.fisher_vp(V), axis=0)
    spread = np.sqrt(shares.var(axis=0, ddof=1).mean() / seeds)
    assert 0 < spread < 0.03
    return np.abs(shares.mean(axis=0) - 1).max() / spread


@pytest.mark.sweep
@pytest.mark.parametrize("name", sweep(DRAWN, OFTEN))
def test_the_mean_of_draws_is_the_exact_matrix(name):
    last, loss, y = DRAWN[name]
    lin = linearize(net(last=last), copied(X, y), loss, sizes=(7 * COPIES,))
    assert standard_errors(lin) < 5


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore:.*received `from_logits=True`")
@pytest.mark.parametrize(
    ("last", "loss", "y"),
    [
        (tf.nn.softmax, LOGITS, LABELS),
        (tf.sigmoid, losses.BinaryCrossentropy(from_logits=True), ONEHOT),
    ],
    ids=["softmax", "sigmoid"],
)
def test_draws_use_the_logits_that_keras_takes_before_a_final_operation(last, loss, y):
    lin = linearize(net(last=last), copied(X, y), loss, sizes=(7 * COPIES,))
    assert standard_errors(lin) < 5


@pytest.mark.sweep
def test_the_mean_of_several_draws_over_ragged_batches_is_the_exact_matrix():
    loss = losses.BinaryCrossentropy(from_logits=True, reduction="sum")
    sizes = (5 * COPIES, 2 * COPIES)
    lin = linearize(net(), copied(X, ONEHOT, WEIGHTS), loss, sizes=sizes)
    assert standard_errors(lin, num_samples=3) < 5


@pytest.mark.sweep
def test_draws_leave_out_the_examples_that_are_ignored():
    data = copied(X, WITH_IGNORED)
    lin = linearize(net(), data, IGNORING, sizes=(7 * COPIES,))
    assert standard_errors(lin) < 5


@pytest.mark.sweep
def test_draws_are_weighed_by_the_class_that_the_examples_have():
    data, sizes = copied(X, LABELS), (7 * COPIES,)
    lin = linearize(net(), data, LOGITS, sizes=sizes, class_weight=CLASS_WEIGHT)
    assert standard_errors(lin) < 5


def test_the_mean_of_draws_is_the_exact_matrix_of_masked_sequences():
    model, x, y, _ = masked_sequences()
    lin = linearize(model, copied(x, y), LOGITS, sizes=(7 * COPIES,))
    assert standard_errors(lin) < 5


@pytest.mark.sweep
def test_one_draw_is_the_score_of_a_class_with_itself():
    model = net()
    lin = linearize(model, (X[:1], LABELS[:1]), LOGITS, sizes=(1,))
    scores = (softmax(model(X[:1]).numpy()) - np.eye(3)) @ jacobian(
        lambda: model(X[:1]), variables_of(model)
    )
    drawn = set()
    for seed in range(8):
        errors = [
            error(lambda v, seed=seed: lin.fisher_vp(v, 1, seed), np.outer(score, score))
            for score in scores
        ]
        assert min(errors) < TOLERANCE
        drawn.add(int(np.argmin(errors)))
    assert len(drawn) > 1


@pytest.mark.sweep
def test_draws_follow_from_their_seed_alone():
    def linearized(**options):
        return hvp.linearize(net(), cut((X, LABELS), (4, 3)), LOGITS, **options)

    lin, v = linearized(jit=False), np.arange(27.0)
    first = lin.fisher_vp(v, 2, 3)
    assert (lin.fisher_vp(v, 2, 3) == first).all()
    assert (linearized(jit=False, cache=0).fisher_vp(v, 2, 3) == first).all()
    assert relative(linearized(jit=True).fisher_vp(v, 2, 3), first) < 1e-13
    assert relative(lin.fisher_vp(v, 2, 4), first) > 1e-2
    assert relative(lin.fisher_vp(v, 3, 3), first) > 1e-2


def test_every_batch_has_draws_of_its_own():
    once = linearize(net(), (X, LABELS), LOGITS)
    twice = hvp.linearize(net(), [(X, LABELS)] * 2, LOGITS, jit=False)
    v = np.arange(27.0)
    assert relative(twice.fisher_vp(v), once.fisher_vp(v)) < 1e-13
    assert relative(twice.fisher_vp(v, 1), once.fisher_vp(v, 1)) > 1e-2


@pytest.mark.parametrize("name", ["labels", "binary from logits", "squares"])
def test_drawn_matrix_is_symmetric_and_positive_semidefinite(name):
    block = weighted(name).block("first")
    F = hvp.Fisher(block, 1, seed=1) @ np.eye(15)
    assert relative(F, F.T) < 1e-13
    values = np.linalg.eigvalsh((F + F.T) / 2)
    assert values[0] > -1e-13 * values[-1]
    # One score an example.
    assert np.sum(values > 1e-12 * values[-1]) == 7


# --- of the data's own targets ---


def label_values(y):
    return lambda z: tf.reduce_logsumexp(z, -1) - tf.gather(z, y, axis=-1, batch_dims=y.ndim)


def sigmoid_values(z):
    return tf.reduce_mean(tf.math.softplus(z) - z * ONEHOT, -1)


def square_values(z):
    return tf.reduce_mean((z - REAL) ** 2, -1)


def huber_values(z):
    distance = tf.abs(z - REAL)
    return tf.reduce_mean(tf.where(distance <= 1, distance**2 / 2, distance - 0.5), -1)


def quartic(y, z):
    return tf.reduce_sum((z - y) ** 4, axis=-1)


EMPIRICAL = {
    "labels from logits": label_values(LABELS),
    "labels": label_values(LABELS),
    "one-hot": label_values(LABELS),
    "binary": sigmoid_values,
    "squares": square_values,
}


@pytest.mark.parametrize("name", sweep(EMPIRICAL, {"labels", "binary", "squares"}))
def test_empirical_fisher_is_the_sum_of_gradients_with_themselves(name):
    expected = outer_products(net(), EMPIRICAL[name], WEIGHTS / 7)
    assert error(weighted(name).empirical_fisher_vp, expected) < TOLERANCE


class Squares(losses.Loss):
    """Squares that are not summed over the outputs."""

    def call(self, y, z):
        return (z - y) ** 2


class Column(losses.Loss):
    """One loss value an example, in a column."""

    def call(self, y, z):
        return tf.reduce_sum((z - y) ** 2, axis=-1, keepdims=True)


class Coupled(losses.Loss):
    """A loss value for each output, which depends on the first output too."""

    def call(self, y, z):
        return (z - y) ** 2 * z[:, :1]


class Whole(losses.Loss):
    """One loss value for all examples."""

    def call(self, y, z):
        return tf.reduce_sum((z - y) ** 2)


UNKNOWN = {
    "huber": ("huber", huber_values, 1 / 7),
    "a function": (quartic, functools.partial(quartic, REAL), 1 / 7),
    "a value an output": (Squares(), functools.partial(Squares().call, REAL), 1 / 21),
    "a value a batch": (Whole(), functools.partial(Whole().call, REAL), 1.0),
    "a column": (Column(), functools.partial(Column().call, REAL), 1 / 7),
}


@pytest.mark.parametrize(("loss", "values", "factor"), UNKNOWN.values(), ids=UNKNOWN)
def test_empirical_fisher_takes_any_loss(loss, values, factor):
    lin = linearize(net(), (X, REAL), loss)
    expected = outer_products(net(), values, factor)
    assert error(lin.empirical_fisher_vp, expected) < TOLERANCE


# --- sequences ---


def sequences(*stack):
    """A network of three steps, its inputs and a class for each step."""
    model = sequential((3, 2), *stack, layers.Dense(3, dtype=F64))
    return model, examples((3, 2)), np.random.default_rng(5).integers(0, 3, (7, 3))


def masked_sequences():
    """The same with some steps masked, and whether each step counts."""
    model, x, y = sequences(layers.Masking(dtype=F64))
    x[2, 2:], x[5, 1:] = 0, 0
    return model, x, y, (x != 0).any(axis=-1)


STEP_WEIGHTS = {
    "one an example": WEIGHTS[:, None],
    "one a step": np.random.default_rng(10).uniform(0.1, 2, (7, 3)),
}


@pytest.mark.parametrize("weights", STEP_WEIGHTS.values(), ids=STEP_WEIGHTS)
def test_every_step_of_a_sequence_counts_by_itself(weights):
    model, x, y = sequences()
    lin = linearize(model, (x, y, weights), LOGITS, sizes=(4, 3))
    factors = np.ravel(weights.reshape(7, -1) * np.ones((7, 3))) / 21
    assert error(lin.fisher_vp, sandwich(model, categorical, factors, x)) < TOLERANCE
    E = outer_products(model, label_values(y), factors, x)
    assert error(lin.empirical_fisher_vp, E) < TOLERANCE


def test_steps_that_are_masked_count_for_nothing():
    model, x, y, counts = masked_sequences()
    lin = linearize(model, (x, y), LOGITS, sizes=(4, 3))
    factors = counts.ravel() / counts.sum()
    assert error(lin.fisher_vp, sandwich(model, categorical, factors, x)) < TOLERANCE
    E = outer_products(model, label_values(y), factors, x)
    assert error(lin.empirical_fisher_vp, E) < TOLERANCE


@pytest.mark.sweep
def test_matrices_of_a_loop_are_those_of_its_steps():
    lins = []
    for unroll in (False, True):
        rnn = layers.SimpleRNN(2, return_sequences=True, unroll=unroll, dtype=F64)
        model, x, y = sequences(rnn)
        lins.append(linearize(model, (x, y), LOGITS))
    loop, steps = lins
    v = np.random.default_rng(2).standard_normal(loop.size)
    assert relative(loop.fisher_vp(v), steps.fisher_vp(v)) < TOLERANCE
    assert relative(loop.fisher_vp(v, 1), steps.fisher_vp(v, 1)) < TOLERANCE
    assert relative(loop.empirical_fisher_vp(v), steps.empirical_fisher_vp(v)) < TOLERANCE


def test_classes_on_another_axis_are_refused():
    model, x = sequential((4, 2), layers.Dense(5, dtype=F64)), examples((4, 2))
    y = np.eye(4)[np.random.default_rng(0).integers(0, 4, (7, 5))].swapaxes(1, 2)
    lin = linearize(model, (x, y), losses.CategoricalCrossentropy(from_logits=True, axis=1))
    for product in (lin.fisher_vp, lin.empirical_fisher_vp):
        with pytest.raises(hvp.InputError, match="expected a Keras loss"):
            product(np.ones(lin.size))


def test_values_that_depend_on_each_others_outputs_are_refused():
    lin = linearize(net(), (X, REAL), Coupled())
    with pytest.raises(hvp.InputError, match="depend on their own part of the outputs"):
        lin.empirical_fisher_vp(np.ones(lin.size))


def test_whole_numbers_are_no_targets_to_draw():
    lin = linearize(net(), (X, 3 * ONEHOT.astype(int)), "mean_squared_error")
    with pytest.raises(hvp.InputError, match="targets of floating-point numbers, got int64"):
        lin.fisher_vp(np.ones(lin.size), 2)


def test_targets_that_are_broadcast_are_not_drawn():
    lin = linearize(net(), (X, REAL[:, :1]), "mse")
    v = np.ones(lin.size)
    assert relative(lin.fisher_vp(v), lin.gnvp(v)) < TOLERANCE
    message = (
        r"targets of the shape \(7, 3\) of the outputs, to draw them, got targets of shape \(7, 1\)"
    )
    with pytest.raises(hvp.InputError, match=message):
        lin.fisher_vp(v, num_samples=2)


# --- operators ---

OPERATORS = {
    "exact": hvp.Fisher,
    "drawn": lambda lin: hvp.Fisher(lin, num_samples=2, seed=7),
    "empirical": hvp.EmpiricalFisher,
}


@pytest.mark.sweep
@pytest.mark.parametrize("build", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("jit", [False, True], ids=["plain", "XLA"])
def test_operators_take_columns_and_blocks(build, jit):
    A = build(weighted("labels").forced(jit=jit))
    assert isinstance(A, LinearOperator)
    assert A.shape == (27, 27)
    assert A.dtype == np.float64
    V = np.random.default_rng(1).standard_normal((27, 4))
    block = A @ V
    assert block.shape == (27, 4)
    assert relative(block, np.stack([A @ v for v in V.T], axis=1)) < 1e-13
    assert relative(A.T @ V, block) < 1e-13
    assert A.matvec(V[:, :1]).shape == (27, 1)
    assert (A @ np.zeros((27, 0))).shape == (27, 0)


def test_operators_are_the_methods():
    lin, v = weighted("labels"), np.arange(27.0)
    assert (hvp.Fisher(lin) @ v == lin.fisher_vp(v)).all()
    assert (hvp.Fisher(lin, 2) @ v == lin.fisher_vp(v, 2, 0)).all()
    assert (hvp.Fisher(lin, num_samples=2, seed=5) @ v == lin.fisher_vp(v, 2, 5)).all()
    assert (hvp.EmpiricalFisher(lin) @ v == lin.empirical_fisher_vp(v)).all()


# --- refused ---


class Thrice(losses.MeanSquaredError):
    def call(self, y, z):
        return 3 * super().call(y, z)


NO_LIKELIHOODS = {
    "huber": ("huber", REAL),
    "a function": (quartic, REAL),
    "a focal loss": (losses.CategoricalFocalCrossentropy(from_logits=True), ONEHOT),
    "a known loss overridden": (Thrice(), REAL),
}


class Quartic:
    def __call__(self, y, z):
        return quartic(y, z)


class WithoutConfiguration(losses.Loss):
    """Keras asks for no configuration where nothing is saved."""

    def call(self, y, z):
        return quartic(y, z)

    def get_config(self):
        raise NotImplementedError


UNTOLD = {
    "a partial function": functools.partial(quartic),
    "a callable object": Quartic(),
    "a loss without configuration": WithoutConfiguration(),
    "a lambda": lambda y, z: quartic(y, z),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", UNTOLD.values(), ids=UNTOLD)
def test_a_loss_needs_no_configuration(loss):
    lin = linearize(net(), (X, REAL), loss)
    expected = outer_products(net(), functools.partial(quartic, REAL), 1 / 7)
    assert error(lin.empirical_fisher_vp, expected) < TOLERANCE


def test_targets_may_be_true_or_false():
    lin = linearize(net(), (X, ONEHOT > 0), BINARY_LOGITS)
    assert error(lin.fisher_vp, sandwich(net(), bernoulli)) < TOLERANCE


@pytest.mark.parametrize(("loss", "y"), NO_LIKELIHOODS.values(), ids=NO_LIKELIHOODS)
def test_fisher_of_a_loss_that_is_no_likelihood_is_refused(loss, y):
    lin = linearize(net(), (X, y), loss)
    for num_samples in (None, 2):
        with pytest.raises(hvp.InputError, match="cross-entropy or the mean of squares"):
            lin.fisher_vp(np.ones(lin.size), num_samples)
        with pytest.raises(hvp.InputError, match="cross-entropy"):
            hvp.Fisher(lin, num_samples) @ np.ones(lin.size)


def test_matrices_of_functions_are_refused():
    alone = hvp.linearize_function(lambda w: tf.reduce_sum(w**4), np.ones(3))
    of_outputs = hvp.linearize_function(tf.reduce_sum, np.ones(3), outputs=lambda w: w**2)
    for lin in (alone, of_outputs):
        for A in (hvp.Fisher(lin), hvp.Fisher(lin, 2), hvp.EmpiricalFisher(lin)):
            with pytest.raises(hvp.InputError):
                A @ np.ones(3)
    with pytest.raises(hvp.InputError, match="a Keras loss"):
        of_outputs.empirical_fisher_vp(np.ones(3))
    with pytest.raises(hvp.InputError, match="cross-entropy"):
        of_outputs.fisher_vp(np.ones(3))


@pytest.mark.parametrize(
    ("num_samples", "seed"),
    [(0, 0), (-1, 0), (1, -1), (2.5, 0), ("3", 0), (2, 1.5), (2, None)],
)
def test_draws_that_cannot_be_made_are_refused(num_samples, seed):
    with pytest.raises(hvp.InputError, match=r"expected (at least one sample and )?a seed"):
        weighted("labels").fisher_vp(np.ones(27), num_samples, seed)


@pytest.mark.parametrize("build", OPERATORS.values(), ids=OPERATORS)
def test_vectors_that_do_not_fit_are_refused(build):
    A = build(weighted("labels"))
    with pytest.raises(ValueError, match="dimension mismatch"):
        A @ np.ones(46)
    with pytest.raises(hvp.InputError, match="NaN or infinity in v"):
        A @ np.full(27, np.nan)

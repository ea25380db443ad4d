"""`linearize` and `linearize_function`: compiled once, a snapshot, and the model unchanged."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import (
    CASES,
    LABELS,
    cut,
    dense_net,
    examples,
    hessian_along,
    randomised,
    relative,
    sequential,
    squared_loss,
    variables_of,
)
from support.sweep import sweep

import hvp
from hvp.autodiff import curvature
from hvp.linearization.traced_products import TracedProducts

layers = keras.layers
F64 = {"dtype": "float64"}
REPEATABLE = {"ad": "forward-over-reverse", "jit": False}
X, REAL = examples((4,)), np.random.default_rng(8).standard_normal((7, 3))
PRODUCTS = ["hvp", "gnvp", "residual_vp", "jvp"]


@pytest.fixture
def lin():
    return hvp.linearize(dense_net(), (X, REAL), "mse", batch_size=3)


# --- layers that must be right ---


def embedding():
    stack = [
        layers.Embedding(6, 3, name="embedding", **F64),
        layers.Flatten(**F64),
        layers.Dense(4, "tanh", **F64),
    ]
    net = [keras.Input((3,), dtype="int32"), *stack, layers.Dense(2, **F64)]
    return randomised(keras.Sequential(net, name="net"))


def with_activation(activation):
    return sequential((4,), layers.Dense(5, activation, **F64), layers.Dense(2, **F64))


def pooled(**options):
    conv = layers.Conv2D(3, 3, activation="tanh", **F64)
    pool = layers.MaxPooling2D(2, **options, **F64)
    return sequential((7, 7, 1), conv, pool, layers.Flatten(**F64), layers.Dense(2, **F64))


def batch_normalised():
    model = sequential(
        (4,), layers.Dense(5, **F64), layers.BatchNormalization(**F64), layers.Dense(2, **F64)
    )
    for variable in model.non_trainable_variables:
        variable.assign(np.random.default_rng(1).uniform(0.5, 2, variable.shape))
    return model


def unrolled():
    return sequential((3, 2), layers.LSTM(2, unroll=True, **F64), layers.Dense(2, **F64))


LAYERS = {
    **{name: lambda name=name: with_activation(name) for name in ("relu", "gelu", "silu")},
    **{name: lambda name=name: with_activation(name) for name in ("softplus", "elu")},
    "pooling": pooled,
    "pooling, padded": lambda: pooled(padding="same"),
    "pooling to the same shape": lambda: pooled(strides=1, padding="same"),
    "batch norm at inference": batch_normalised,
    "embedding": embedding,
    "unrolled LSTM": unrolled,
}


@pytest.mark.parametrize("name", sweep(LAYERS, {"softplus", "pooling, padded", "embedding"}))
def test_products_match_central_differences_of_the_gradient(name):
    model = LAYERS[name]()
    x = examples(model.input_shape[1:], 5)
    if model.inputs[0].dtype == "int32":
        x = np.random.default_rng(0).integers(0, 6, (5, 3))
    y = examples((2,), 5)
    lin = hvp.linearize(model, (x, y), "mse")
    v = examples((lin.size,), 1)[0]
    expected = hessian_along(lambda: squared_loss(y, model(x)), variables_of(model), v)
    assert relative(lin.hvp(v), expected) < 1e-8
    assert relative(lin.gnvp(v) + lin.residual_vp(v), expected) < 1e-8


def test_the_block_of_an_embedding_is_the_dense_sub_block():
    lin = hvp.linearize(embedding(), (np.array([[0, 1, 1], [5, 2, 0]]), examples((2,), 2)), "mse")
    block = lin.block("embedding")
    assert block.size == 18
    assert relative(block.hvp(np.eye(18)), lin.hvp(np.eye(lin.size))[:18, :18]) < 1e-13


# --- compiled once ---


@pytest.fixture
def traced(monkeypatch):
    """Names of the products as often as TensorFlow traces them."""
    calls, original = [], TracedProducts._traced

    def counting(self, mode, product, *rest):
        calls.append(product.name)
        return original(self, mode, product, *rest)

    monkeypatch.setattr(TracedProducts, "_traced", counting)
    return calls


def test_a_product_is_traced_once_a_batch_shape(traced):
    loss = CASES[1].loss
    lin = hvp.linearize(dense_net(), cut((X, LABELS), (2, 2, 2, 1)), loss)
    traced.clear()
    for _ in range(5):
        lin.hvp(np.ones(lin.size))
        lin.hvp(np.ones((lin.size, 3)))
    assert traced == ["H"] * 2


def test_equal_batches_share_one_trace(traced):
    lin = hvp.linearize(dense_net(), cut((X[:6], LABELS[:6]), (2, 2, 2)), CASES[1].loss)
    traced.clear()
    for name in PRODUCTS:
        for _ in range(3):
            getattr(lin, name)(np.ones(lin.size))
    assert sorted(traced) == sorted(set(traced))
    assert {"G", "H", "J", "R"} <= set(traced)


def test_a_dataset_and_other_dtypes_of_v_are_traced_once(traced):
    dataset = tf.data.Dataset.from_tensor_slices((X[:6], LABELS[:6])).batch(2)
    lin = hvp.linearize(dense_net(), dataset, CASES[1].loss)
    traced.clear()
    for dtype in (np.float64, np.float32, np.int64):
        lin.hvp(np.ones(lin.size, dtype))
    assert traced == ["H"]


# --- a snapshot ---


def everything(lin):
    v = np.linspace(-1, 1, lin.size)
    parts = [lin.loss(), lin.theta, lin.gradient(), *(getattr(lin, name)(v) for name in PRODUCTS)]
    return np.concatenate([np.ravel(part) for part in parts])


@pytest.mark.sweep
def test_what_happens_to_the_model_later_changes_nothing():
    model = dense_net()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    early, late = (hvp.linearize(model, (X, REAL), batch_size=3, **REPEATABLE) for _ in range(2))
    before = everything(early)
    model.fit(X, REAL, verbose=0)
    model.optimizer.apply([tf.ones(v.shape, v.dtype) for v in model.trainable_variables])
    model.set_weights([0 * w for w in model.get_weights()])
    assert (everything(early) == before).all()
    # `late` compiles its products only now.
    assert (everything(late) == before).all()
    assert (everything(late.block("dense1")) == everything(early.block("dense1"))).all()


def test_variables_of_a_function_assigned_later_change_nothing():
    w, factor = tf.Variable([1.0, 2.0]), tf.Variable(3.0)
    lin = hvp.linearize_function(lambda p: factor * tf.reduce_sum(p**3), w)
    w.assign([7.0, 7.0])
    factor.assign(0.0)
    assert lin.theta.tolist() == [1, 2]
    assert lin.hvp(np.ones(2)).tolist() == [18, 36]


def test_layers_frozen_and_statistics_changed_later_change_nothing():
    model = batch_normalised()
    lin = hvp.linearize(model, (X, REAL[:, :2]), "mse")
    before = lin.hvp(np.ones(lin.size))
    model.trainable = False
    for variable in model.non_trainable_variables:
        variable.assign(variable + 1)
    later = hvp.Hessian(lin.block("dense*")) @ np.ones(lin.block("dense*").size)
    assert (lin.hvp(np.ones(lin.size)) == before).all()
    assert np.isfinite(later).all()


def test_arrays_overwritten_later_change_nothing():
    x, y = X.copy(), REAL.copy()
    lin = hvp.linearize(dense_net(), (x, y), "mse")
    before = everything(lin)
    x[:] = 0
    y[:] = 0
    assert (everything(lin) == before).all()


# --- the model is not touched ---


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_is(training):
    stack = [layers.Dense(5, **F64), layers.BatchNormalization(**F64), layers.Dropout(0.5, **F64)]
    model = sequential((4,), *stack, layers.Dense(3, **F64))
    model.layers[0].trainable = False
    model.compile(keras.optimizers.SGD(0.1), "mse")

    def state():
        values = [v.numpy().tolist() for v in model.variables]
        flags = [layer.trainable for layer in model.layers]
        seeds = [np.asarray(s.state).tolist() for s in model.layers[2]._seed_generators]
        names = [v.path for v in model.variables]
        return values, flags, seeds, names, keras.config.floatx(), len(model.losses)

    before = state()
    lin = hvp.linearize(model, (X, REAL), training=training)
    first, second = everything(lin), everything(lin)
    lin.block("dense*").hvp(np.ones(lin.block("dense*").size))
    assert (first == second).all()
    assert state() == before


def test_random_state_outside_is_left_as_it_is():
    before = np.random.get_state()[1].copy()
    tf.random.set_seed(1)
    expected = [tf.random.uniform([]).numpy() for _ in range(2)]
    tf.random.set_seed(1)
    got = [tf.random.uniform([]).numpy()]
    everything(hvp.linearize(dense_net(), (X, REAL), "mse"))
    got.append(tf.random.uniform([]).numpy())
    assert got == expected
    assert (np.random.get_state()[1] == before).all()


# --- blocks ---


def test_blocks_are_the_dense_sub_blocks(lin):
    assert list(lin.blocks()) == ["dense1", "dense2", "dense3"]
    whole = {name: getattr(lin, name)(np.eye(lin.size)) for name in PRODUCTS}
    edges = {"dense1": slice(0, 20), "dense2": slice(20, 35), "dense3": slice(35, 47)}
    for layer, block in lin.blocks().items():
        where = edges[layer]
        assert block.names == (f"{layer}/kernel", f"{layer}/bias")
        assert (block.theta == lin.theta[where]).all()
        assert relative(block.gradient(), lin.gradient()[where]) < 1e-13
        for name in PRODUCTS:
            rows = slice(None) if name == "jvp" else where
            got, expected = getattr(block, name)(np.eye(block.size)), whole[name][rows, where]
            assert np.abs(got - expected).max() < 1e-13 * np.abs(whole[name]).max()
        u = np.arange(21.0)
        assert relative(block.vjp(u), lin.vjp(u)[where]) < 1e-13


def test_a_block_differentiates_its_own_layer_only(monkeypatch, lin):
    shapes = []
    original = curvature.gradient

    def watching(loss, params):
        shapes.append([tuple(p.shape) for p in params])
        return original(loss, params)

    monkeypatch.setattr(curvature, "gradient", watching)
    lin.block("dense2").hvp(np.ones(15))
    assert set(map(tuple, shapes)) == {((4, 3), (3,))}


def test_a_block_of_a_block_and_of_a_selection(lin):
    kernel = lin.block("dense2").block("dense2/kernel")
    assert (kernel.size, kernel.names) == (12, ("dense2/kernel",))
    assert relative(kernel.hvp(np.eye(12)), lin.hvp(np.eye(47))[20:32, 20:32]) < 1e-12
    chosen = hvp.linearize(dense_net(), (X, REAL), "mse", variables=["dense3", "dense1"])
    assert chosen.names[::2] == ("dense1/kernel", "dense3/kernel")
    assert list(chosen.blocks()) == ["dense1", "dense3"]
    with pytest.raises(hvp.InputError, match="among dense1, dense3, got 'dense2'"):
        chosen.block("dense2")


def test_an_unknown_layer_is_named_and_the_known_are_listed(lin):
    text = "expected a layer, a parameter or a glob among dense1, dense2, dense3, got 'dense9'"
    with pytest.raises(hvp.InputError, match=text):
        lin.block("dense9")
    with pytest.raises(hvp.InputError, match=text):
        hvp.linearize(dense_net(), (X, REAL), "mse", variables="dense9")


# --- vectors and options ---


def test_products_take_lists_and_other_precisions_and_keep_their_own(lin):
    v = np.arange(47)
    assert (lin.hvp(v.tolist()) == lin.hvp(v.astype(np.float32))).all()
    assert lin.hvp(v).dtype == np.float64
    assert lin.hvp(v[:, None]).shape == (47, 1)
    assert lin.vjp(np.ones((21, 2))).shape == (47, 2)


def test_results_can_be_written_and_inputs_are_not_changed(lin):
    v = np.ones(47)
    for name in PRODUCTS:
        result = getattr(lin, name)(v)
        result += 1
    gradient = lin.gradient()
    gradient += 1
    theta = lin.theta
    theta += 1
    assert (v == 1).all()
    assert (lin.theta != theta).all()


BAD_VECTORS = {
    "short": (np.ones(46), r"expected a vector of shape \(47,\) or a block \(47, K\), got \(46,\)"),
    "long": (np.ones(48), r"got \(48,\)"),
    "lying": (np.ones((1, 47)), r"got \(1, 47\)"),
    "deep": (np.ones((47, 2, 2)), r"got \(47, 2, 2\)"),
    "a number": (3.0, r"got \(\)"),
    "NaN": (np.full(47, np.nan), "expected a finite vector, got NaN or infinity in v"),
    "infinity": (np.full((47, 2), np.inf), "expected a finite vector"),
    "complex": (np.ones(47) * 1j, "expected a real vector, got dtype complex128"),
    "strings": (np.array(["1"] * 47), "expected a real vector, got dtype <U1"),
}


@pytest.mark.parametrize(("v", "text"), BAD_VECTORS.values(), ids=BAD_VECTORS)
def test_a_bad_vector_is_one_clear_line(lin, v, text):
    for name in PRODUCTS:
        with pytest.raises(hvp.InputError, match=text):
            getattr(lin, name)(v)


def test_a_cotangent_has_the_length_of_the_outputs(lin):
    with pytest.raises(hvp.InputError, match=r"expected a vector of shape \(21,\)"):
        lin.vjp(np.ones(47))


def test_arrays_by_parameter_are_told_how_to_be_joined(lin):
    arrays = [np.ones((2, 3)), np.ones(4)]
    with pytest.raises(hvp.InputError, match=r"join arrays by np\.concatenate"):
        lin.hvp(arrays)


@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy])
@pytest.mark.parametrize("operator", [lambda lin: lin, hvp.Hessian], ids=["lin", "H"])
def test_copies_and_pickles_are_refused_with_what_to_keep(lin, copied, operator):
    with pytest.raises(hvp.InputError, match="keep the model, the data and theta"):
        copied(operator(lin))


def test_a_vector_too_large_for_float32_is_refused():
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(w**2), np.ones(2, np.float32))
    with pytest.raises(hvp.InputError, match="expected a finite vector"):
        lin.hvp(np.array([1e300, 1.0]))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"ad": "forward"},
            "expected ad among auto, forward-over-reverse, reverse-over-reverse, got",
        ),
        ({"jit": "yes"}, "expected jit .auto., True or False, got 'yes'"),
        ({"cache": "all"}, "expected cache .auto. or a number of bytes, got 'all'"),
        ({"cache": -1}, "got -1"),
        ({"training": 1}, "expected training=True or False, got 1"),
        ({"batch_size": 0}, "expected a batch size of at least 1, got 0"),
        ({"variables": []}, "expected at least one layer, got none"),
    ],
)
def test_a_bad_option_is_one_clear_line(options, text):
    with pytest.raises(hvp.InputError, match=text):
        hvp.linearize(dense_net(), (X, REAL), "mse", **options)


OTHERS = sweep([{"ad": "reverse-over-reverse"}, {"jit": True}], {"{'ad': 'reverse-over-reverse'}"})


@pytest.mark.parametrize("options", OTHERS)
def test_the_other_order_and_compilation_give_the_dense_hessian(options):
    case = CASES[1]
    lin = hvp.linearize(case.model, case.batches, case.loss, **options)
    for name, kind in zip(PRODUCTS[:2], "HG", strict=True):
        assert relative(getattr(lin, name)(np.eye(lin.size)), case.matrix(kind)) < 1e-11


def test_what_it_is_shows(lin):
    text = "Linearization(size=47, dtype=float64, num_examples=7, layers=['dense1', 'dense2', 'de"
    assert repr(lin).startswith(text)
    assert (lin.num_batches, lin.num_outputs, lin.findings) == (3, 21, ())


def test_the_digest_is_of_the_data_not_of_the_batches():
    one, other, changed = (
        hvp.linearize(dense_net(), (x, REAL), "mse", batch_size=size).data_digest
        for x, size in ((X, 7), (X, 2), (X + 1e-9, 7))
    )
    assert one == other != changed


def test_data_that_change_shape_between_readings_are_refused():
    class Growing:
        size = 2

        def __iter__(self):
            yield X[: self.size], REAL[: self.size]
            self.size += 1

    lin = hvp.linearize(dense_net(), Growing(), "mse")
    with pytest.raises(
        hvp.InputError, match="expected the same data each time they are read, got another batch 1"
    ):
        lin.hvp(np.ones(lin.size))


@pytest.mark.sweep
@pytest.mark.parametrize("exponent", [-1.0, 1.0, 2.0, 3.0, 2.5])
def test_an_exponent_that_is_a_parameter_is_no_constant_at_whole_values(exponent):
    """As in generalised-mean pooling: Σ b^p, with both the bases and p as parameters."""
    b, p = np.array([0.7, 0.4]), exponent
    lin = hvp.linearize_function(
        lambda z: tf.reduce_sum(z**2), [b, np.array(p)], outputs=lambda w: w[0] ** w[1]
    )
    z, log = b**p, np.log(b)
    J = np.column_stack([np.diag(p * b ** (p - 1)), z * log])
    second = np.zeros((2, 3, 3))
    for i in range(2):
        second[i, i, i] = p * (p - 1) * b[i] ** (p - 2)
        second[i, i, 2] = second[i, 2, i] = b[i] ** (p - 1) * (1 + p * log[i])
        second[i, 2, 2] = z[i] * log[i] ** 2
    V = np.eye(3)
    np.testing.assert_allclose(lin.gnvp(V), 2 * J.T @ J, atol=1e-13)
    np.testing.assert_allclose(
        lin.hvp(V), 2 * J.T @ J + 2 * np.einsum("i,ijk->jk", z, second), atol=1e-13
    )


@pytest.mark.parametrize("exponent", [1.0, 2.0, 2.5])
def test_a_learned_exponent_of_data_with_zeros(exponent):
    data = tf.constant([0.0, 0.7], tf.float64)
    lin = hvp.linearize_function(lambda p: tf.reduce_sum(data**p), np.array(exponent))
    value, log = 0.7**exponent, np.log(0.7)
    assert lin.loss() == pytest.approx(value, rel=1e-14)
    assert lin.gradient()[0] == pytest.approx(value * log, rel=1e-13)
    assert lin.hvp(np.ones(1))[0] == pytest.approx(value * log**2, rel=1e-13)

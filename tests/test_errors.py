"""What the errors say of the input, in one short line."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvp

X, Y = np.ones((64, 4), np.float32), np.arange(64) % 2
A = np.diag(np.arange(600.0))


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


@pytest.fixture(scope="module")
def lin():
    return hvp.linearize_function(lambda w: w[0] ** 2, np.ones(2))


@pytest.mark.parametrize(
    "call",
    [
        lambda lin: hvp.eigsh(lin, 1),
        hvp.density,
        hvp.trace,
        hvp.diagonal,
        hvp.noise_floor,
        hvp.frobenius_norm,
        lambda lin: hvp.layer_traces(lin, lin),
    ],
)
def test_a_linearization_in_place_of_an_operator_is_refused_with_the_operator_to_take(lin, call):
    with pytest.raises(hvp.InputError) as raised:
        call(lin)
    assert str(raised.value) == (
        "expected a SciPy LinearOperator or a matrix, got Linearization; "
        "pass hvp.Hessian(lin), or hvp.GaussNewton(lin)"
    )


@pytest.mark.parametrize("call", [hvp.log_determinant, hvp.effective_dimension])
def test_a_linearization_in_place_of_a_density_is_refused_with_the_density_to_take(lin, call):
    with pytest.raises(hvp.InputError, match=r"got Linearization; pass hvp\.density\(hvp\.Gauss"):
        call(lin, 1.0)


@pytest.mark.parametrize(("make", "kind"), [(np.asarray, "ndarray"), (tf.constant, "EagerTensor")])
def test_targets_as_a_third_argument_belong_into_a_tuple(model, make, kind):
    with pytest.raises(hvp.InputError) as raised:
        hvp.linearize(model, X, make(Y))
    assert str(raised.value) == (
        f"expected (x, y) as one tuple, got a third argument that is no loss, {kind} of shape "
        "(64,); call hvp.linearize(model, (x, y))"
    )


def test_a_list_in_place_of_the_tuple_is_refused(model):
    with pytest.raises(hvp.InputError, match=r"got x alone; pass the targets too, \(x, y\) as a t"):
        hvp.linearize(model, [X, Y], "mse")


@pytest.mark.parametrize(("y", "shape"), [(Y, "()"), (Y[:, None], "(1,)"), (np.eye(2)[Y], "(2,)")])
def test_a_data_set_of_single_examples_is_refused_with_the_advice_to_batch(model, y, shape):
    examples = tf.data.Dataset.from_tensor_slices((X, y))
    with pytest.raises(hvp.InputError) as raised:
        hvp.linearize(model, examples, "mse")
    assert str(raised.value) == (
        f"expected a data set of batches, got single examples of shapes (4,), {shape}; "
        "call .batch(256) on it"
    )


def test_data_sets_of_batches_of_known_and_unknown_sizes_are_taken(model):
    examples = tf.data.Dataset.from_tensor_slices((X, np.eye(2, dtype=np.float32)[Y]))
    for batches in (examples.batch(64), examples.batch(32, drop_remainder=True)):
        assert hvp.linearize(model, batches, "mse").num_examples == 64


OF_MODELS = {
    "loss": lambda m: hvp.linearize(m, (X, Y), list(Y)),
    "list": lambda m: hvp.linearize(m, (X, Y), {"a": [0] * 1000}),
    "training": lambda m: hvp.linearize(m, (X, Y), "mse", training=X),
    "batch_size": lambda m: hvp.linearize(m, (X, Y), "mse", batch_size=X),
    "cache": lambda m: hvp.linearize(m, (X, Y), "mse", cache=X),
    "jit": lambda m: hvp.linearize(m, (X, Y), "mse", jit=X),
    "class_weight": lambda m: hvp.linearize(m, (X, Y), "mse", class_weight=X),
    "which": lambda m: hvp.eigsh(A, 1, which=A),
    "ad": lambda m: hvp.linearize(m, (X, Y), "mse", ad=X),
    "dtype": lambda m: hvp.linearize(m, (X, Y), "mse", dtype=X),
    "variables": lambda m: hvp.linearize(m, (X, Y), "mse", variables=X),
    "a long name": lambda m: hvp.linearize(m, (X, Y), "a" * 1000),
    "k": lambda m: hvp.eigsh(A, A),
    "num_probes": lambda m: hvp.density(A, num_probes=A),
    "num_products": lambda m: hvp.trace(A, num_products=A),
}


@pytest.mark.parametrize("call", OF_MODELS.values(), ids=OF_MODELS)
def test_no_more_than_eighty_characters_show_what_came(model, call):
    with pytest.raises(hvp.InputError) as raised:
        call(model)
    got = str(raised.value).partition(", got ")[2].rpartition("; ")[0]
    assert 0 < len(got) <= 80
    assert "\n" not in str(raised.value)


def test_a_vector_of_text_is_cut(lin):
    with pytest.raises(hvp.InputError) as raised:
        hvp.chain_rule(lin, "a" * 1000)
    assert str(raised.value) == (
        f"expected a vector of numbers, got '{'a' * 78}…; make it an array"
    )

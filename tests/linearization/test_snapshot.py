"""What a snapshot refuses to freeze, because it would not be the function that was meant."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvp

layers = keras.layers
RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(7, 4)), RNG.normal(size=(7, 3))


def dense_model(**options):
    return keras.Sequential(
        [keras.Input((4,), dtype="float64"), layers.Dense(3, dtype="float64", **options)]
    )


def test_a_loss_that_reads_a_weight_of_the_model_is_differentiated_through_it():
    model = dense_model()
    kernel = model.layers[0].kernel

    def loss(y, z):
        return keras.ops.mean((y - z) ** 2, axis=-1) + 0.1 * keras.ops.sum(kernel**2)

    plain = hvp.linearize(model, (X, Y), "mean_squared_error")
    lin = hvp.linearize(model, (X, Y), loss)
    v = np.arange(1.0, 1 + lin.size)
    assert np.allclose(lin.hvp(v) - plain.hvp(v), np.r_[0.2 * v[:12], np.zeros(3)], atol=1e-13)
    with pytest.raises(hvp.InputError, match="a function of outputs"):
        lin.gnvp(v)


def test_a_parameter_read_from_outside_is_the_parameter():
    v = tf.Variable([1.0, 2.0], dtype=tf.float64)
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(w**2) * tf.reduce_sum(v**2), v)
    w = v.numpy()
    expected = 4 * (w @ w) * np.eye(2) + 8 * np.outer(w, w)
    assert np.allclose(lin.hvp(np.eye(2)), expected, rtol=1e-13)


def test_a_parameter_read_from_outside_in_a_loop_is_refused():
    v = tf.Variable([1.0, 2.0])

    def loss(w):
        return tf.reduce_sum(tf.while_loop(lambda x: x[0] < 9, lambda x: [x * v + v], [w])[0])

    with pytest.raises(hvp.InputError, match="reads their variables from outside, in a loop"):
        hvp.linearize_function(loss, v)


def test_a_variable_that_is_no_parameter_is_a_constant():
    v = tf.Variable(3.0, dtype=tf.float64)
    lin = hvp.linearize_function(lambda w: v * tf.reduce_sum(w**2), np.ones(2))
    v.assign(5.0)
    assert lin.hvp(np.array([1.0, 0.0])).tolist() == [6.0, 0.0]


@pytest.mark.parametrize("drop", [False, True])
def test_shuffled_data_are_refused_when_they_are_read_again(drop):
    shuffled = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(7, seed=1)
    data = shuffled.batch(3, drop_remainder=drop)
    with pytest.raises(hvp.InputError, match="the same data each time they are read"):
        hvp.linearize(dense_model(), data, "mse").hvp(np.ones(15))


def test_data_that_end_early_are_refused():
    class Shrinking:
        length = 3

        def __iter__(self):
            yield from [(X, Y)] * self.length
            self.length -= 1

    lin = hvp.linearize(dense_model(), Shrinking(), "mse")
    with pytest.raises(hvp.InputError, match="another batch 3 than at first"):
        lin.hvp(np.ones(15))


def test_endless_data_are_refused():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3).repeat()
    with pytest.raises(hvp.InputError, match="repeats for ever"):
        hvp.linearize(dense_model(), data, "mse")


@pytest.mark.parametrize(
    "mixing", [layers.BatchNormalization, lambda **o: layers.Dropout(0.5, **o)]
)
def test_training_mode_that_mixes_examples_takes_a_single_batch(mixing):
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="float64"),
            mixing(dtype="float64", name="mix"),
            layers.Dense(3, dtype="float64"),
        ]
    )
    with pytest.raises(hvp.InputError, match=r"3 batches of a loss that mixes .*\(in mix\)"):
        hvp.linearize(model, (X, Y), "mse", training=True, batch_size=3)
    whole = hvp.linearize(model, (X, Y), "mse", training=True, batch_size=7)
    v = np.ones(whole.size)
    assert np.array_equal(whole.hvp(v), whole.hvp(v))


@keras.saving.register_keras_serializable("tests")
class DrawsFromAll(layers.Layer):
    """Noise from the generator that all of Keras shares."""

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), dtype=x.dtype)


def test_numbers_of_the_generator_that_keras_shares_are_kept_for_a_single_batch():
    model = keras.Sequential(
        [keras.Input((4,), dtype="float64"), DrawsFromAll(), layers.Dense(3, dtype="float64")]
    )
    with pytest.raises(hvp.InputError, match="2 batches of a loss that mixes"):
        hvp.linearize(model, (X, Y), "mse", batch_size=4)
    whole = hvp.linearize(model, (X, Y), "mse")
    assert whole.loss() == pytest.approx(whole.loss(whole.theta), rel=1e-12)
    v = np.ones(whole.size)
    assert np.array_equal(whole.hvp(v), whole.hvp(v))


def test_two_layers_of_one_name_stay_two():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__(dtype="float64")
            self.first = layers.Dense(5, "relu", name="dense", dtype="float64")
            self.second = layers.Dense(3, name="dense", dtype="float64")

        def call(self, x):
            return self.second(self.first(x))

    model = Twins()
    model(X)
    lin = hvp.linearize(model, (X, Y), "mse")
    assert lin.names == ("dense/kernel", "dense/bias", "dense_2/kernel", "dense_2/bias")
    assert [block.size for block in lin.blocks().values()] == [25, 18]


@pytest.mark.sweep
def test_a_layer_called_network_does_not_hide_the_network():
    lin = hvp.linearize(dense_model(name="network"), (X, Y), "mse")
    rows = [row.layer for row in hvp.chain_rule(lin)]
    assert rows == ["network"]
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="float64"),
            layers.Dense(2, dtype="float64", name="network"),
            layers.Dense(3, dtype="float64", name="last"),
        ]
    )
    found = hvp.compare(hvp.linearize(model, (X, Y), "mse"), k=2)
    assert {name: part.size for name, part in found.parts.items()} == {
        "whole network": 19,
        "network": 10,
        "last": 9,
    }


def test_labels_beyond_the_precision_of_the_outputs_keep_their_number():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(700, dtype="mixed_bfloat16")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    y = np.array([257, 259, 301, 511, 513, 600, 699])
    lin = hvp.linearize(model, (X.astype(np.float32), y), loss)
    assert lin.loss() == pytest.approx(float(loss(y, model(X.astype(np.float32)))), rel=1e-5)
    assert any("bfloat16" in finding.message for finding in lin.findings)


def test_a_users_stop_gradient_is_reported():
    lin = hvp.linearize_function(
        lambda w: tf.reduce_sum(tf.stop_gradient(w**2) * w**3), np.array([1.0, 2.0])
    )
    (finding,) = lin.findings
    assert (finding.severity, finding.op) == ("different", "StopGradient")
    assert "stop_gradient" in finding.message
    assert lin.hvp(np.eye(2)).tolist() == [[6.0, 0.0], [0.0, 48.0]]


def test_a_large_constant_is_kept_once():
    table = RNG.normal(size=(300, 300))
    lin = hvp.linearize_function(
        lambda w: tf.reduce_sum((tf.constant(table) @ w) ** 2), np.ones((300, 1))
    )
    (programs, _), *_ = lin._snapshot.pieces(penalty=False)
    kept = [t for t in programs.loss.captures.values() if t.shape == (300, 300)]
    assert len(kept) == 1
    expected = 2 * table.T @ table @ np.ones(300)
    assert np.allclose(lin.hvp(np.ones(lin.size)), expected, rtol=1e-12)


def digest(model):
    return hvp.linearize(model, (X, Y), "mse").weights_digest


@pytest.mark.parametrize("weight", ["frozen/kernel", "norm/moving_variance", "last/bias"])
def test_the_hash_of_weights_is_of_all_that_the_loss_is_computed_from(weight):
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="float64"),
            layers.Dense(5, dtype="float64", name="frozen", trainable=False),
            layers.BatchNormalization(dtype="float64", name="norm"),
            layers.Dense(3, dtype="float64", name="last"),
        ]
    )
    before = digest(model)
    assert digest(model) == before
    (variable,) = [v for v in model.weights if v.path.endswith(weight)]
    variable.assign(variable + 0.5)
    assert digest(model) != before


def test_the_hash_of_weights_does_not_depend_on_the_layers_selected():
    lin = hvp.linearize(dense_model(name="last"), (X, Y), "mse")
    assert lin.block("last/bias").weights_digest == lin.weights_digest


def test_names_stay_apart_where_a_numbered_one_is_taken_already():
    first, second, nested = (
        layers.Dense(3, name=name, dtype="float64") for name in ("d", "d_2", "d")
    )
    inside = keras.Sequential([keras.Input((3,), dtype="float64"), nested], name="inside")

    class Net(keras.Model):
        def __init__(self):
            super().__init__(dtype="float64", name="net")
            self.parts = [first, second, inside]

        def call(self, x):
            for part in self.parts:
                x = part(x)
            return x

    model = Net()
    model(X)
    lin = hvp.linearize(model, (X, Y), "mse")
    assert len(set(lin.names)) == 6
    assert sorted(block.size for block in lin.blocks().values()) == [12, 12, 15]


@pytest.mark.parametrize("from_logits", [True, False])
def test_binary_classification_has_an_accuracy(from_logits):
    activation = None if from_logits else "sigmoid"
    model = keras.Sequential(
        [keras.Input((4,), dtype="float64"), layers.Dense(1, activation, dtype="float64")]
    )
    y = (X[:, 0] > 0).astype(float)
    loss = keras.losses.BinaryCrossentropy(from_logits=from_logits)
    z = X @ model.get_weights()[0][:, 0]
    assert hvp.linearize(model, (X, y), loss).accuracy == np.mean((z > 0) == (y == 1))
    with pytest.raises(hvp.InputError, match="labels from 0 to 1, got labels from 0 to 7"):
        hvp.linearize(model, (X, 7 * y), loss)


def test_numbers_wider_than_tensorflow_knows_are_refused():
    with pytest.raises(hvp.InputError, match="numbers of 64 bits at most"):
        hvp.linearize(dense_model(), (X.astype(np.longdouble), Y), "mse")


def test_an_index_out_of_range_is_reported_as_such():
    model = keras.Sequential(
        [keras.Input((2,)), layers.Embedding(5, 3), layers.Flatten(), layers.Dense(3)]
    )
    with pytest.raises(hvp.InputError, match="is not in"):
        hvp.linearize(model, (np.full((7, 2), 9), Y), "mse")


@pytest.mark.parametrize("take", [hvp.Hessian, hvp.Jacobian, hvp.compare])
def test_a_model_in_the_place_of_a_linearization_is_refused(take):
    with pytest.raises(hvp.InputError, match="expected a Linearization, got Sequential"):
        take(dense_model())


def test_a_variable_beside_an_array_is_replaced_where_it_is_read_from_outside():
    x, v = RNG.normal(size=(3, 4)), tf.Variable(RNG.normal(size=(4, 2)))
    w = RNG.normal(size=(4, 4))

    def loss(params):
        return tf.reduce_sum((tf.tanh(x @ params[0]) @ v) ** 2)

    def through_arguments(params):
        return tf.reduce_sum((tf.tanh(x @ params[0]) @ params[1]) ** 2)

    lin, expected = (hvp.linearize_function(f, [w, v]) for f in (loss, through_arguments))
    assert np.allclose(lin.hvp(np.ones(24)), expected.hvp(np.ones(24)), rtol=1e-12)

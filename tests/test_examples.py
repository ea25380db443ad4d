"""The origin's network learns its digits; Keras files come in the precision asked for."""

import keras
import numpy as np
import pytest

from hvp import InputError, examples
from hvp.objective import files

layers = keras.layers


@pytest.fixture(scope="module")
def digits():
    return examples.mnist()


@pytest.fixture(scope="module", params=examples.ACTIVATIONS)
def trained(request, digits):
    model = examples.network(request.param, seed=4)
    examples.train(model, *digits, seed=4)
    return request.param, model


def accuracy(weights, x, y, activation):
    a = x.reshape(len(x), -1)
    for kernel, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
        a = activation(a @ kernel + bias)
    return np.mean((a @ weights[4] + weights[5]).argmax(axis=1) == y)


def test_training_reaches_95_percent(trained, digits):
    name, model = trained
    function = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}[name]
    assert accuracy(model.get_weights(), *digits, function) >= 0.95


def test_training_again_gives_the_same_bits(trained, digits):
    name, model = trained
    again = examples.network(name, seed=4)
    examples.train(again, *digits, seed=4)
    for first, second in zip(model.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(first, second)


def test_another_seed_gives_other_initial_weights():
    first, second = (examples.network("relu", seed=seed).get_weights() for seed in (0, 1))
    assert not np.array_equal(first[0], second[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_network_has_three_dense_layers(dtype):
    model = examples.network("tanh", dtype=dtype)
    weights = [(v.path, tuple(v.shape), v.dtype) for v in model.trainable_variables]
    assert weights == [
        ("digits_tanh/dense1/kernel", (784, 30), dtype),
        ("digits_tanh/dense1/bias", (30,), dtype),
        ("digits_tanh/dense2/kernel", (30, 30), dtype),
        ("digits_tanh/dense2/bias", (30,), dtype),
        ("digits_tanh/dense3/kernel", (30, 10), dtype),
        ("digits_tanh/dense3/bias", (10,), dtype),
    ]
    assert model.loss.get_config()["from_logits"] is True
    assert model(np.zeros((1, 28, 28), dtype)).dtype == dtype


def test_callbacks_see_every_epoch(digits):
    x, y = digits
    seen = []
    report = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    examples.train(examples.network("relu"), x[:64], y[:64], callbacks=[report])
    assert seen == list(range(examples.EPOCHS))


def sequential():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, "gelu"), layers.LayerNormalization(), layers.Dense(3)]
    )


def saved(model, directory):
    rng = np.random.default_rng(5)
    model.set_weights([rng.uniform(0.2, 1.0, w.shape) for w in model.get_weights()])
    path = directory / "model.keras"
    model.save(path)
    return path


def test_a_file_gives_the_weights_that_were_saved(tmp_path):
    model = sequential()
    loaded = files.load_model(saved(model, tmp_path))
    for first, second in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert np.array_equal(first, second)


def test_the_compiled_loss_comes_along(tmp_path):
    model = sequential()
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    loss = files.load_model(saved(model, tmp_path)).loss
    assert isinstance(loss, keras.losses.CategoricalCrossentropy)
    assert loss.get_config()["from_logits"] is True


@keras.saving.register_keras_serializable("test_models")
class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


class Unknown(Subclassed):
    pass


def saved_after_a_call(model, path):
    model(np.ones((1, 2), np.float32))
    model.save(path)
    return path


def test_a_registered_class_is_loaded(tmp_path):
    path = saved_after_a_call(Subclassed(), tmp_path / "model.keras")
    assert isinstance(files.load_model(path), Subclassed)


def refused(path):
    with pytest.raises(InputError) as caught:
        files.load_model(path)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_a_class_that_is_not_registered_is_refused_in_one_line(tmp_path):
    line = refused(saved_after_a_call(Unknown(), tmp_path / "model.keras"))
    assert "Could not locate class 'Unknown'" in line


def test_a_lambda_layer_is_refused_in_one_line_and_not_run(tmp_path):
    model = keras.Sequential([keras.Input((2,)), layers.Lambda(lambda x: x * 2), layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    line = refused(tmp_path / "model.keras")
    assert line.startswith("expected a .keras file that Keras can load")
    assert "Lambda" in line

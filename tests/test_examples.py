"""The origin's network learns its digits; Keras files come in the precision asked for."""

import re
import zipfile

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


@pytest.mark.sweep
def test_training_reaches_95_percent(trained, digits):
    name, model = trained
    function = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}[name]
    assert accuracy(model.get_weights(), *digits, function) >= 0.95


@pytest.mark.sweep
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


def test_a_class_that_is_not_registered_is_refused_with_what_loads_it(tmp_path):
    path = saved_after_a_call(Unknown(), tmp_path / "model.keras")
    assert refused(path) == (
        "expected a .keras file of Keras's own classes and functions, got Unknown in the model; "
        f"in Python: model = keras.models.load_model('{path}', custom_objects="
        "{'Unknown': Unknown}); hvp.compare(hvp.linearize(model, (x, y))).save('hvp-compare')"
    )


class Scaled(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return self.scale * x


def square(x, y=None):
    return x * x


@pytest.mark.parametrize(
    ("layer", "got", "arguments"),
    [
        (Scaled(name="mine"), "Scaled in the layer 'mine'", "custom_objects={'Scaled': Scaled}"),
        (
            layers.Dense(2, square, name="mine"),
            "square in the layer 'mine'",
            "custom_objects={'square': square}",
        ),
        (
            layers.Lambda(lambda x: x * 2, name="mine"),
            "the layer 'mine' with a lambda, which is code",
            "safe_mode=False",
        ),
    ],
    ids=["class", "function", "lambda"],
)
def test_a_layer_with_ones_own_code_is_named_with_what_loads_it(tmp_path, layer, got, arguments):
    model = keras.Sequential([keras.Input((2,)), layer, layers.Dense(2)])
    path = tmp_path / "model.keras"
    model.save(path)
    line = refused(path)
    assert f"got {got}; " in line
    (load,) = re.findall(r"model = (.*); hvp", line)
    assert load == f"keras.models.load_model('{path}', {arguments})"
    loaded = eval(load, {"keras": keras, "Scaled": Scaled, "square": square})
    np.testing.assert_array_equal(loaded(np.ones((1, 2))), model(np.ones((1, 2))))


class OwnOptimizer(keras.optimizers.SGD):
    pass


@pytest.mark.parametrize("own", [{"metrics": [square]}, {"optimizer": OwnOptimizer()}], ids=list)
def test_metrics_and_optimisers_of_ones_own_are_left_out(tmp_path, own):
    model = sequential()
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(**{"loss": loss, "loss_weights": [2.0], **own})
    loaded = files.load_model(saved(model, tmp_path))
    assert loaded.loss.get_config() == loss.get_config()
    assert loaded.get_compile_config()["loss_weights"] == [2.0]


def test_a_loss_of_ones_own_is_to_be_given(tmp_path):
    model = sequential()
    model.compile(loss=square)
    line = refused(saved(model, tmp_path))
    assert line.startswith("expected a compiled loss that Keras knows, got ")
    assert line.endswith(": Could not locate function 'square'; pass loss=")
    assert not files.load_model(tmp_path / "model.keras", compiled=False).compiled


def rewritten(path, **changed):
    """The file with other members, and without its weights."""
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in ("config.json", "metadata.json")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**kept, **changed}.items():
            archive.writestr(name, content)
    return path


def test_a_file_brings_no_code_into_the_line_to_run(tmp_path):
    config = '{"module": null, "class_name": "X}); evil(", "config": {}, "registered_name": "X"}'
    path = rewritten(saved(sequential(), tmp_path), **{"config.json": config})
    line = refused(path)
    assert "got 'X}); evil(' in the model; in Python: " in line
    assert f"keras.models.load_model('{path}');" in line


def test_a_model_without_its_weights_is_refused(tmp_path):
    path = rewritten(saved(sequential(), tmp_path))
    assert refused(path).startswith(f"expected a .keras file that Keras can load, got '{path}': ")

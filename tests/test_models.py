"""The origin's network learns its digits; Keras files come in the precision asked for."""

import zipfile

import keras
import numpy as np
import pytest

import hvp
from hvp import InputError, data, models

layers = keras.layers


@pytest.fixture(scope="module")
def digits():
    return data.mnist()


@pytest.fixture(scope="module", params=models.ACTIVATIONS)
def trained(request, digits):
    model = models.origin(request.param, seed=4)
    models.train(model, *digits, seed=4)
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
    again = models.origin(name, seed=4)
    models.train(again, *digits, seed=4)
    for first, second in zip(model.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(first, second)


def test_another_seed_gives_other_initial_weights():
    first, second = (models.origin("relu", seed=seed).get_weights() for seed in (0, 1))
    assert not np.array_equal(first[0], second[0])


@pytest.mark.parametrize("dtype", models.DTYPES)
def test_the_origin_is_the_network_of_three_dense_layers(dtype):
    model = models.origin("tanh", dtype=dtype)
    weights = [(v.path, tuple(v.shape), v.dtype) for v in model.trainable_variables]
    assert weights == [
        ("origin_tanh/dense1/kernel", (784, 30), dtype),
        ("origin_tanh/dense1/bias", (30,), dtype),
        ("origin_tanh/dense2/kernel", (30, 30), dtype),
        ("origin_tanh/dense2/bias", (30,), dtype),
        ("origin_tanh/dense3/kernel", (30, 10), dtype),
        ("origin_tanh/dense3/bias", (10,), dtype),
    ]
    assert model.loss.get_config()["from_logits"] is True
    assert model(np.zeros((1, 28, 28), dtype)).dtype == dtype


def test_callbacks_see_every_epoch(digits):
    x, y = digits
    seen = []
    report = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    models.train(models.origin("relu"), x[:64], y[:64], callbacks=[report])
    assert seen == list(range(models.EPOCHS))


def sequential():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, "gelu"), layers.LayerNormalization(), layers.Dense(3)]
    )


def shared():
    inputs, twice = keras.Input((4,)), layers.Dense(4, "tanh")
    return keras.Model(inputs, twice(twice(inputs)))


def two_inputs():
    inputs = [keras.Input((2,), name="late"), keras.Input((2,), name="early")]
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(inputs)))


def attention():
    inputs = keras.Input((4,))
    rows = layers.Reshape((2, 2))(inputs)
    return keras.Model(inputs, layers.MultiHeadAttention(2, 2)(rows, rows))


def normalised():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dropout(0.5)]
    )


def nested():
    inside = keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh", name="inside")])
    return keras.Sequential([keras.Input((4,)), inside, layers.Dense(2)])


def wrapped():
    return keras.Sequential(
        [keras.Input((4,)), layers.Reshape((2, 2)), layers.TimeDistributed(layers.Dense(3))]
    )


def with_operations():
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.ops.tanh(layers.Dense(2)(inputs) * 2 + 1))


def named_inputs():
    inputs = {"p": keras.Input((2,), name="p"), "q": keras.Input((2,), name="q")}
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()([inputs["p"], inputs["q"]])))


def saved(model, directory):
    rng = np.random.default_rng(5)
    model.set_weights([rng.uniform(0.2, 1.0, w.shape) for w in model.get_weights()])
    path = directory / "model.keras"
    model.save(path)
    return path


def inputs_for(build, dtype):
    x = np.random.default_rng(6).standard_normal((7, 4)).astype(dtype)
    left, right = x[:, :2], x[:, 2:]
    return {two_inputs: [left, right], named_inputs: {"p": left, "q": right}}.get(build, x)


def assert_converted(build, model, loaded):
    assert {variable.dtype for variable in loaded.weights} == {"float64"}
    expected = model(inputs_for(build, "float32")).numpy()
    outputs = loaded(inputs_for(build, "float64")).numpy()
    assert outputs.dtype == np.float64
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


@pytest.mark.parametrize("build", [sequential, shared, two_inputs, attention, normalised])
def test_float64_keeps_the_outputs_of_a_float32_file(build, tmp_path):
    model = build()
    assert_converted(build, model, models.load(saved(model, tmp_path), "float64"))


@pytest.mark.parametrize("build", [nested, wrapped, with_operations, named_inputs])
def test_every_model_changes_its_precision_or_is_refused_in_one_line(build, tmp_path):
    model = build()
    loaded, refusal = converted_or_refused(saved(model, tmp_path))
    if loaded is None:
        assert "\n" not in refusal
    else:
        assert_converted(build, model, loaded)


def converted_or_refused(path):
    try:
        return models.load(path, "float64"), None
    except InputError as error:
        return None, str(error)


def test_float64_gives_gradients_in_float64(tmp_path):
    model = sequential()
    model.compile("sgd", "mean_squared_error")
    path = saved(model, tmp_path)
    x = np.random.default_rng(7).standard_normal((6, 4))
    y = np.ones((6, 3))
    single = hvp.linearize(models.load(path), (x.astype(np.float32), y.astype(np.float32)))
    double = hvp.linearize(models.load(path, "float64"), (x, y))
    gradient = double.gradient()
    assert (single.dtype, gradient.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(gradient, single.gradient(), atol=1e-5)
    rounded = gradient.astype(np.float32).astype(np.float64)
    assert np.count_nonzero(gradient != rounded) > gradient.size // 2
    assert not any("computes in float32" in str(finding) for finding in double.findings)


def test_the_compiled_loss_comes_along(tmp_path):
    model = sequential()
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    loss = models.load(saved(model, tmp_path), "float64").loss
    assert isinstance(loss, keras.losses.CategoricalCrossentropy)
    assert loss.get_config()["from_logits"] is True


def test_integer_inputs_stay_integers(tmp_path):
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), layers.Embedding(5, 2), layers.Dense(2)]
    )
    loaded = models.load(saved(model, tmp_path), "float64")
    tokens = np.array([[0, 4, 2]])
    assert loaded.inputs[0].dtype == "int32"
    np.testing.assert_allclose(loaded(tokens).numpy(), model(tokens).numpy(), atol=1e-6)
    assert loaded(tokens).dtype == "float64"


def test_without_a_precision_or_with_its_own_the_file_is_taken_as_it_is(tmp_path):
    model = sequential()
    path = saved(model, tmp_path)
    for dtype in (None, "float32"):
        loaded = models.load(path, dtype)
        for first, second in zip(model.get_weights(), loaded.get_weights(), strict=True):
            assert np.array_equal(first, second)


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


def test_the_precision_of_a_subclassed_model_is_refused(tmp_path):
    path = saved_after_a_call(Subclassed(), tmp_path / "model.keras")
    assert isinstance(models.load(path), Subclassed)
    message = "expected a Sequential or Functional model.*got Subclassed; build it in that"
    with pytest.raises(InputError, match=message):
        models.load(path, "float64")


def refused(path):
    with pytest.raises(InputError) as caught:
        models.load(path)
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


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    missing = tmp_path / "missing.keras"
    assert refused(missing) == f"expected a .keras file, got no file '{missing}'; check the path"
    assert "got no file" in refused(tmp_path)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model", "model.txt"])
def test_a_file_that_is_no_model_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_text("hello")
    assert refused(path).startswith("expected a .keras file that Keras can load")


def test_a_zip_file_without_a_model_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello", "world")
    assert refused(path).startswith("expected a .keras file that Keras can load")

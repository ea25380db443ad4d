"""A model on its way: the same from its configuration, or a refusal in one line."""

import dataclasses
import pickle

import keras
import numpy as np
import pytest
from support.oracles import dense_net

from hvp import InputError
from hvp.cluster.model_recipe import ModelRecipe, arrays_of, packed, unpacked
from hvp.cluster.shares import divided
from hvp.cluster.state import Failure
from hvp.errors import NotFiniteError

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def nothing(batch):
    return []


@keras.saving.register_keras_serializable("hvp_tests")
class Swish(keras.layers.Layer):
    def call(self, x):
        return x * keras.ops.sigmoid(x)


@pytest.fixture
def net():
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="float64"),
            keras.layers.Dense(3, "tanh", dtype="float64", kernel_regularizer="l2", name="a"),
            keras.layers.BatchNormalization(dtype="float64", name="norm"),
            keras.layers.Dropout(0.5, dtype="float64", name="dropout"),
            keras.layers.Dense(2, dtype="float64", name="b"),
        ]
    )
    model.compile(loss=[LOSS], loss_weights=[2.0])
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.random(variable.shape))
    return model


def test_a_model_is_built_again_with_all_that_it_computes_with(net):
    model, recipe = ModelRecipe.of(net)
    again = recipe.model(arrays_of(model))
    x = np.random.default_rng(1).standard_normal((5, 4))
    np.testing.assert_array_equal(again(x), net(x))
    np.testing.assert_array_equal(again(x, training=True), net(x, training=True))
    assert [layer.name for layer in again.layers] == ["a", "norm", "dropout", "b"]
    assert again.get_compile_config()["loss_weights"] == [2.0]
    assert again.loss[0].get_config() == LOSS.get_config()
    assert again.layers[0].kernel_regularizer.get_config() == (
        net.layers[0].kernel_regularizer.get_config()
    )


def test_a_file_is_read_here_and_sent_as_its_configuration(net, tmp_path):
    net.save(tmp_path / "net.keras")
    model, recipe = ModelRecipe.of(tmp_path / "net.keras")
    assert isinstance(recipe.source, str)
    assert recipe.compiled is not None
    x = np.ones((2, 4))
    np.testing.assert_array_equal(recipe.model(arrays_of(model))(x), net(x))


def test_a_function_builds_the_model_and_gets_the_weights_of_this_one():
    def build():
        net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        return net

    model, recipe = ModelRecipe.of(build)
    again = recipe.model(arrays_of(model))
    assert again is not model
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


def test_a_function_that_builds_another_model_is_refused():
    sizes = iter([2, 3])
    build = lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(next(sizes))])  # noqa: E731
    model, recipe = ModelRecipe.of(build)
    with pytest.raises(InputError, match="the same model in each process"):
        recipe.model(arrays_of(model))


def test_other_weights_than_those_of_the_digest_are_refused(net):
    model, recipe = ModelRecipe.of(net)
    arrays = arrays_of(model)
    arrays[0] = arrays[0] + 1e-9
    with pytest.raises(InputError, match="the same weights in each process"):
        recipe.model(arrays)


def test_code_in_a_configuration_does_not_run():
    net = keras.Sequential(
        [keras.Input((2,)), keras.layers.Lambda(lambda x: x), keras.layers.Dense(1)]
    )
    model, recipe = ModelRecipe.of(net)
    with pytest.raises(InputError, match="pass a function that builds") as error:
        recipe.model(arrays_of(model))
    assert "\n" not in str(error.value)


def test_a_registered_class_is_found_where_it_is_registered():
    model, recipe = ModelRecipe.of(
        keras.Sequential([keras.Input((2,)), Swish(), keras.layers.Dense(1)])
    )
    assert isinstance(recipe.model(arrays_of(model)).layers[0], Swish)
    strange = dataclasses.replace(
        recipe, source=recipe.source.replace("hvp_tests>Swish", "other>Sw")
    )
    with pytest.raises(InputError, match="pass a function that builds"):
        strange.model(arrays_of(model))


def test_what_is_no_model_is_refused():
    with pytest.raises(InputError, match="a function that builds it"):
        ModelRecipe.of(3)


@pytest.mark.parametrize(
    "loss",
    ["mse", LOSS, {"a": LOSS, "b": None}, [LOSS, "mae"]],
    ids=["a name", "an object", "a dict", "a list"],
)
def test_losses_come_back_as_they_were(loss):
    assert repr(described(unpacked(pickle.loads(pickle.dumps(packed(loss)))))) == repr(
        described(loss)
    )


def described(loss):
    if isinstance(loss, dict):
        return {name: described(each) for name, each in loss.items()}
    if isinstance(loss, list):
        return list(map(described, loss))
    return (type(loss), loss.get_config()) if isinstance(loss, keras.Loss) else loss


def test_batches_stay_in_their_order_and_every_worker_has_some():
    x = np.arange(22.0).reshape(11, 2)
    stored = []
    shares, digest = divided(
        (x, x), 3, 1024, nothing, lambda b: stored.append(b) or len(stored) - 1
    )
    assert [share.references for share in shares] == [(0,), (1,), (2,)]
    np.testing.assert_array_equal(np.concatenate([b[0] for b in stored]), x)
    _, again = divided([(x[:4], x[:4]), (x[4:], x[4:])], 2, 1024, nothing, id)
    assert digest == again
    shares, _ = divided([(x, x)] * 7, 3, 1024, nothing, id)
    assert [len(share.references) for share in shares] == [2, 2, 3]


def test_more_workers_than_batches_are_refused():
    x = np.ones((2, 2))
    with pytest.raises(InputError, match="at least one batch for each of 3 workers, got 2"):
        divided((x, x), 3, 1024, nothing, id)


def test_data_that_cannot_be_read_are_refused_here():
    x = np.full((4, 2), np.nan)
    with pytest.raises(InputError, match="finite data"):
        divided((x, x), 2, 1024, nothing, id)


def test_an_error_of_a_worker_is_the_same_here():
    error = NotFiniteError("finite products", np.ones((2, 2)), "change it")
    again = Failure.of(error).error()
    assert (type(again), str(again)) == (NotFiniteError, str(error))


def test_a_dense_net_travels():
    model, recipe = ModelRecipe.of(dense_net(kernel_regularizer="l2"))
    assert recipe.model(arrays_of(model)).losses

"""Which Keras models are refused, and how layers act unlike in `fit`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from hvp.errors import DataError, InputError
from hvp.objective import keras_losses


def check_model(model: keras.Model) -> None:
    """Raise InputError for what is not a built model of Keras 3 with trainable variables."""
    kinds = [kind.__module__.partition(".")[0] for kind in type(model).__mro__]
    if not isinstance(model, keras.Model) and "tf_keras" in kinds:
        raise InputError(
            "a model of Keras 3",
            f"{type(model).__name__}, a model of tf_keras (Keras 2)",
            "build it with keras, or use hvp.linearize_function(loss, model.trainable_variables)",
        )
    if not isinstance(model, keras.Model):
        raise InputError("a Keras model", type(model).__name__, "or use hvp.linearize_function")
    if not model.built:
        raise InputError(
            "a built model", f"{model.name!r} without variables", "call it once on a batch"
        )
    if not model.trainable_variables:
        raise InputError("a model with trainable variables", "none", "unfreeze a layer")


def refuse_layers(model: keras.Model) -> None:
    """Raise InputError for quantised layers, and for statistics over several machines."""
    for layer in model._flatten_layers():
        if getattr(layer, "quantization_mode", None) is not None:
            raise InputError(
                "layers that compute with floating-point numbers",
                f"{layer.name!r} quantised to {layer.quantization_mode}",
                "use the model from before it was quantised",
            )
        if getattr(layer, "synchronized", False):
            raise InputError(
                "BatchNormalization on one machine",
                f"{layer.name!r} with synchronized=True",
                "build it without this option",
            )


def refuse_own_step(model: keras.Model) -> None:
    """Raise InputError for a model that trains in another way than by its compiled loss."""
    if type(model).train_step is not keras.Model.train_step:
        raise InputError(
            "a model whose objective is its compiled loss",
            f"{type(model).__name__}.train_step overridden",
            "pass loss=, or use hvp.linearize_function",
        )


def check_inputs(model: keras.Model, x: Any) -> None:
    """Raise DataError for x of other shapes than the model declares; not all models do."""
    declared = {tensor.name: tensor.shape for tensor in getattr(model, "inputs", None) or ()}
    given = [x[name] for name in declared if name in x] if isinstance(x, Mapping) else x
    given = tf.nest.flatten(given)
    if declared and len(given) != len(declared):
        raise DataError(
            f"an x for each of the inputs {', '.join(declared)}",
            f"{len(given)} of {len(declared)}",
            "give the x that belongs to this model, by these names",
        )
    for shape, tensor in zip(declared.values(), given, strict=bool(declared)):
        if not tf.TensorShape(shape[1:]).is_compatible_with(tensor.shape[1:]):
            raise DataError(
                f"x of shape {keras_losses.by_example(shape)}, as the model takes it",
                keras_losses.by_example(tensor.shape),
                "give the x that belongs to this model",
            )


def refuse_assigned(
    replaced: Sequence[tuple[keras.Variable, tf.Tensor]], scope: keras.StatelessScope
) -> None:
    """Raise InputError where a layer has assigned a parameter, which has been `replaced`."""
    for variable, param in replaced:
        if scope.get_current_value(variable) is not param:
            raise InputError(
                "a model that does not change its parameters when it is called",
                f"{variable.path} assigned by its layer",
                "pass training=False",
            )


def notes(model: keras.Model, training: bool) -> Iterator[tuple[str, str]]:
    """The name of each layer that acts unlike in `fit`, and how it acts here."""
    for layer in model._flatten_layers():
        if training and _is_random(layer):
            yield layer.name, "draws at random once: every product keeps what its seed gives next"
        elif not training and _is_random(layer):
            yield layer.name, "drops nothing and adds no noise, as training=False"
        elif not training and isinstance(layer, keras.layers.BatchNormalization):
            yield layer.name, "uses its moving statistics, which are constants, as training=False"


def mixes_examples(layer: keras.Layer) -> bool:
    """Whether in training it makes the loss one of the batch as a whole."""
    return _is_random(layer) or isinstance(layer, keras.layers.BatchNormalization)


def _is_random(layer: keras.Layer) -> bool:
    """Whether it drops entries or adds noise in training."""
    size = getattr(layer, "rate", 0) or getattr(layer, "stddev", 0)
    return bool(size) and hasattr(layer, "seed_generator")

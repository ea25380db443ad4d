"""The weights of Keras models: their names, and those of other models and of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from hvp.errors import InputError
from hvp.objective import files
from hvp.objective.objective import unique

# What the names of files end with that hold weights alone.
SUFFIX = ".weights.h5"


def names(model: keras.Model) -> list[str]:
    """Variable paths without the name of the model, which Keras puts before some of them."""
    return unique([v.path.removeprefix(f"{model.name}/") for v in model.trainable_variables])


def parameters_and_state(
    model: keras.Model,
) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """The trainable variables, and the other ones of their types, each once.

    What has another type, such as a counter, stays as it is at other points.
    """
    trained = list(model.trainable_variables)
    dtypes = {variable.dtype for variable in trained}
    others = {id(variable): variable for variable in model.non_trainable_weights}
    return trained, [variable for variable in others.values() if variable.dtype in dtypes]


def matching(values: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
    """The values of other variables. Raises InputError where their shapes are not those."""
    expected = [tuple(value.shape) for value in values]
    got = [tuple(variable.shape) for variable in variables]
    if len(got) != len(expected):
        raise InputError(
            f"a model with {len(expected)} weights, as the one that was linearised",
            f"{len(got)}",
            "give a model of the same architecture",
        )
    for shape, other, variable in zip(expected, got, variables, strict=True):
        if other != shape:
            raise InputError(
                f"shape {shape}, as in the model that was linearised",
                f"{other} of {variable.path}",
                "give a model of the same architecture",
            )
    pairs = zip(values, variables, strict=True)
    return [tf.cast(tf.convert_to_tensor(v.value), value.dtype) for value, v in pairs]


def load(model: keras.Model, variables: Sequence[keras.Variable], path: Path) -> list[tf.Tensor]:
    """What a file that ``save_weights`` wrote has for these variables of the model."""
    files.check_weights(path)
    skipped = [each for each in (model.optimizer, *model.metrics) if each]
    # In this scope nothing is assigned to the model's own variables.
    with keras.StatelessScope() as scope:
        try:
            model.load_weights(path, objects_to_skip=skipped)
            got, most = files.num_weights(path), len(model.weights)
        except Exception as error:  # Keras and its file formats raise many kinds
            raise InputError(
                f"the weights of {model.name!r}",
                f"{str(path)!r}: {files.first_line(error)}",
                "save them by save_weights of this model",
            ) from error
        values = [tf.convert_to_tensor(scope.get_current_value(v)) for v in variables]
    if got > most:  # Keras leaves out what the model has no place for
        raise InputError(
            f"at most {most} arrays, as {model.name!r} has",
            f"{got} in {str(path)!r}",
            "give weights of the same architecture",
        )
    return values

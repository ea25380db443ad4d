"""A Keras model on its way to other processes: its configuration, its arrays and their digest.

Nothing of it is pickled. A function that builds a model is the user's own code, which Ray sends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hvp.errors import InputError, shown
from hvp.objective import files

Build = Callable[[], keras.Model]


@dataclass(frozen=True)
class LossConfig:
    """A Keras loss as its class and its configuration."""

    kind: type[keras.Loss]
    config: dict[str, Any]


def packed(loss: Any) -> Any:
    """A nest of losses that can be sent: names and functions as they are."""
    if isinstance(loss, dict):
        return {name: packed(each) for name, each in loss.items()}
    if isinstance(loss, list | tuple):
        return [packed(each) for each in loss]
    return LossConfig(type(loss), loss.get_config()) if isinstance(loss, keras.Loss) else loss


def unpacked(loss: Any) -> Any:
    """The losses of `packed`."""
    if isinstance(loss, dict):
        return {name: unpacked(each) for name, each in loss.items()}
    if isinstance(loss, list):
        return [unpacked(each) for each in loss]
    return loss.kind.from_config(loss.config) if isinstance(loss, LossConfig) else loss


@dataclass(frozen=True)
class ModelRecipe:
    """How to build a model with the same weights in another process.

    Attributes:
        source: the configuration of the model as JSON, or the user's function that builds it.
        compiled: the loss and the loss weights that it is compiled with, None without any.
        settings: Keras's precision, epsilon and order of the axes of images.
        digest: SHA-256 of the configuration and of the arrays.
    """

    source: str | Build
    compiled: tuple[Any, Any] | None
    settings: tuple[str, float, str]
    digest: str

    @classmethod
    def of(cls, build: keras.Model | str | Path | Build) -> tuple[keras.Model, ModelRecipe]:
        """The model that `build` is, names or builds, and its recipe."""
        if isinstance(build, str | Path):
            build = files.load_model(build)
        source: str | Build
        if isinstance(build, keras.Model):
            model, source = build, _configuration(build)
        elif callable(build):
            model, source = build(), build
        else:
            raise InputError(
                "a Keras model, its .keras file or a function that builds it",
                shown(build),
                "pass one of these",
            )
        compiled = None
        if isinstance(model, keras.Model) and model.compiled:
            compiled = packed(model.loss), model.get_compile_config().get("loss_weights")
        config = keras.config
        settings = config.floatx(), config.epsilon(), config.image_data_format()
        return model, cls(source, compiled, settings, _digest(source, arrays_of(model)))

    def model(self, arrays: Sequence[np.ndarray]) -> keras.Model:
        """The model with these arrays. Raises InputError where it is another one."""
        config = keras.config
        floatx, epsilon, image_data_format = self.settings
        config.set_floatx(floatx)
        config.set_epsilon(epsilon)
        config.set_image_data_format(image_data_format)
        model = _built(self.source)
        variables = _variables(model)
        shapes = [tuple(variable.shape) for variable in variables]
        if shapes != [array.shape for array in arrays]:
            raise InputError(
                "the same model in each process",
                f"arrays of other shapes from {shown(self.source)}",
                "build it without random choices",
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        if _digest(self.source, arrays_of(model)) != self.digest:
            raise InputError(
                "the same weights in each process", "others", "give the model its types by itself"
            )
        if self.compiled is not None and isinstance(self.source, str):
            loss, weights = self.compiled
            model.compile(loss=unpacked(loss), loss_weights=weights)
        return model


def arrays_of(model: keras.Model) -> list[np.ndarray]:
    """The values of all that a model computes with: weights, statistics and the seeds."""
    return [np.asarray(variable) for variable in _variables(model)]


def _variables(model: Any) -> list[keras.Variable]:
    if not isinstance(model, keras.Model):
        return []  # the objective refuses it
    metrics = {id(variable) for variable in model.metrics_variables}
    return [variable for variable in model.variables if id(variable) not in metrics]


def _configuration(model: keras.Model) -> str:
    try:
        config = keras.saving.serialize_keras_object(model)
        config.pop("compile_config", None)
        return json.dumps(config)
    except Exception as error:  # a model's own get_config may raise any kind
        raise _needs_function(model.name, error) from error


def _built(source: str | Build) -> keras.Model:
    if not isinstance(source, str):
        return source()
    config = json.loads(source)
    try:
        return keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as error:  # Keras raises many kinds
        name = config.get("config", {}).get("name", "")
        raise _needs_function(name, error) from error


def _needs_function(name: str, error: Exception) -> InputError:
    return InputError(
        "a model of Keras's own layers, which its configuration builds again",
        f"{name!r}: {files.first_line(error)}",
        "pass a function that builds and returns the model",
    )


def _digest(source: str | Build, arrays: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256(source.encode() if isinstance(source, str) else b"")
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

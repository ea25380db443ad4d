"""What `fit` minimises, as pure functions of (parameters, batch).

The objective of a data set is Σ_b total(w, batch_b) / Σ_b divisor(batch_b) + penalty(w): sums over
examples, divided once. It comes from a Keras model and its loss, or from plain functions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from hvp.errors import InputError


class Evaluation(NamedTuple):
    """One batch: the summed loss, what it is divided by, and the outputs the loss is a function of.

    `outputs` lists candidates, the first of which that the loss sees the parameters through alone
    is the network's output. `separable` tells whether the total is a sum over examples, so that it
    does not matter how they are batched. `hits` counts right classifications, None where there are
    no classes.
    """

    total: tf.Tensor
    divisor: tf.Tensor
    outputs: list[tf.Tensor]
    separable: bool
    hits: tf.Tensor | None


@dataclass(frozen=True, eq=False)
class Objective:
    """`evaluate(params, batch)`, `penalty(params)` (None: there is none) and the parameters' names.

    With ``divided=False`` the total is the objective and the divisors are ignored.
    `check_labels(batch, shape)` raises InputError for labels that outputs with this last axis do
    not have. `variables` are those that the parameters were taken from.
    """

    names: tuple[str, ...]
    values: tuple[tf.Tensor, ...]
    evaluate: Callable[[Sequence[tf.Tensor], Any], Evaluation]
    penalty: Callable[[Sequence[tf.Tensor]], tf.Tensor] | None
    divided: bool
    check_labels: Callable[[Any, tuple[int, ...]], None]
    variables: tuple[tf.Variable, ...]
    loss_name: str


def from_model(model: keras.Model, loss: Any, *, training: bool) -> Objective:
    """The objective of a built Keras model, its trainable variables being the parameters."""
    if not isinstance(model, keras.Model):
        raise InputError("a Keras model", type(model).__name__, "or use hvp.linearize_function")
    if not model.built:
        raise InputError(
            "a built model", f"{model.name!r} without variables", "call it once on a batch of data"
        )
    if not model.trainable_variables:
        raise InputError("a model with trainable variables", "none", "unfreeze a layer")
    loss = _resolve_loss(model, loss)
    variables = model.trainable_variables
    names = tuple(_model_names(model))
    values = tuple(tf.convert_to_tensor(variable.value) for variable in variables)

    def evaluate(params: Sequence[tf.Tensor], batch: Any) -> Evaluation:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        if y is None:
            raise InputError("batches (x, y)", "x alone", "pass the targets too")
        with keras.StatelessScope(
            zip(variables, params, strict=True), collect_losses=True
        ) as scope:
            predicted = model(x, training=training)
            _refuse_beyond_loss(model, predicted, scope.losses)
            if predicted.dtype != params[0].dtype:
                predicted = tf.cast(predicted, params[0].dtype)
            values = _loss_values(loss, y, predicted)
        # Batch statistics and seeds move on when examples are mixed or dropped at random.
        moved = any(scope.get_current_value(v) is not None for v in model.non_trainable_variables)
        separable = values.shape.rank > 0 and not moved
        total, divisor = _weighted(loss, values, weight)
        hits = _hits(loss, y, predicted)
        return Evaluation(total, divisor, _outputs(predicted), separable, hits)

    def check_labels(batch: Any, last: tuple[int, ...]) -> None:
        y = keras.utils.unpack_x_y_sample_weight(batch)[1]
        if _is(loss, "sparse_categorical_crossentropy"):
            _check_classes(y, *last)
        elif _is(loss, "binary_crossentropy"):
            _check_probabilities(y)

    penalised = [(i, v.regularizer) for i, v in enumerate(variables) if v.regularizer is not None]

    def penalty(params: Sequence[tf.Tensor]) -> tf.Tensor:
        return tf.add_n([regularizer(params[i]) for i, regularizer in penalised])

    return Objective(
        names=names,
        values=values,
        evaluate=evaluate,
        penalty=penalty if penalised else None,
        divided=loss.reduction != "sum",
        check_labels=check_labels,
        variables=tuple(variable.value for variable in variables),
        loss_name=_function_name(getattr(loss, "fn", loss)),
    )


def from_function(
    loss: Callable[..., tf.Tensor],
    params: Any,
    *,
    outputs: Callable[..., tf.Tensor] | None,
    reduction: str | None,
    has_data: bool,
) -> Objective:
    """The objective of plain functions of (params, batch), or of params alone without data."""
    if reduction not in ("sum", "mean", None):
        raise InputError('reduction "sum" or "mean"', repr(reduction), "say what a batch's loss is")
    if isinstance(params, dict):
        raise InputError("a tensor or a list of them", "a dict", "pass list(params.values())")
    several = isinstance(params, list | tuple)
    listed = list(params) if several else [params]
    if not listed:
        raise InputError("at least one parameter", "an empty list", "pass a tensor or several")
    values = tuple(
        tf.convert_to_tensor(getattr(p, "value", p) if _is_keras(p) else p) for p in listed
    )

    def call(function: Callable[..., tf.Tensor], first: Any, batch: Any) -> tf.Tensor:
        return function(first, batch) if has_data else function(first)

    def evaluate(params: Sequence[tf.Tensor], batch: Any) -> Evaluation:
        given = list(params) if several else params[0]
        if outputs is None:
            z, value = None, call(loss, given, batch)
        else:
            z = call(outputs, given, batch)
            if not tf.is_tensor(z):
                raise InputError(
                    "outputs= to return one tensor", type(z).__name__, "concatenate them"
                )
            value = call(loss, z, batch)
        value = tf.convert_to_tensor(value)
        if value.shape.rank != 0:
            raise InputError(
                "a scalar loss", f"shape {value.shape}", "reduce it with tf.reduce_sum or _mean"
            )
        count = tf.shape(tf.nest.flatten(batch)[0])[0] if reduction == "mean" else 1
        divisor = tf.cast(count, value.dtype)
        return Evaluation(value * divisor, divisor, [] if z is None else [z], True, None)

    return Objective(
        names=tuple(_function_names(listed)),
        values=values,
        evaluate=evaluate,
        penalty=None,
        divided=reduction == "mean",
        check_labels=lambda batch, last: None,
        variables=tuple(p.value if _is_keras(p) else p for p in listed if _is_variable(p)),
        loss_name=_function_name(loss),
    )


def _resolve_loss(model: keras.Model, loss: Any) -> keras.Loss:
    """The loss given, or the compiled one, as a Keras Loss that is a sum over examples."""
    if loss is None:
        if not model.compiled or model.loss is None:
            raise InputError("a loss", f"{model.name!r} compiled without one", "pass loss=")
        _refuse_own_objective(model)
        loss = model.loss
    if isinstance(loss, list | tuple | dict):
        raise InputError("one loss", f"a {type(loss).__name__}", "use a model with a single output")
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError as error:
            raise InputError("a loss that Keras knows", repr(loss), "see keras.losses") from error
    if isinstance(loss, type) and issubclass(loss, keras.Loss):
        loss = loss()
    if not isinstance(loss, keras.Loss):
        if not callable(loss):
            raise InputError("a Keras loss, its name or a function", repr(loss), "see keras.losses")
        loss = _function_loss()(loss)
    if loss.reduction in (None, "none"):
        raise InputError("a scalar loss", "reduction=None", 'use "sum_over_batch_size" or "sum"')
    if type(loss).__call__ is not keras.Loss.__call__:
        raise InputError(
            "a loss that overrides call()",
            f"{type(loss).__name__}.__call__",
            "override call() alone",
        )
    return loss


def _function_loss() -> type[keras.Loss]:
    # The class that Keras wraps plain functions in (it squeezes ranks alike) has no public name.
    return keras.losses.MeanSquaredError.__bases__[0]


def _refuse_own_objective(model: keras.Model) -> None:
    for method in ("compute_loss", "train_step"):
        if getattr(type(model), method) is not getattr(keras.Model, method):
            raise InputError(
                "a model whose objective is its compiled loss",
                f"{type(model).__name__}.{method} overridden",
                "pass loss=, or use hvp.linearize_function",
            )
    if model.get_compile_config().get("loss_weights") is not None:
        raise InputError("a loss without weights", "loss_weights", "pass loss= scaled as you want")


def _refuse_beyond_loss(model: keras.Model, predicted: Any, added: Sequence[Any]) -> None:
    if not tf.is_tensor(predicted):
        raise InputError(
            "a model with one output", f"{model.name!r} with several", "take one of them"
        )
    if added:
        raise InputError(
            "a model without add_loss and activity regularisers",
            f"{len(added)} such terms in {model.name!r}",
            "remove them, or write the loss for hvp.linearize_function",
        )
    if getattr(predicted, "_keras_mask", None) is not None:
        raise InputError(
            "outputs without a mask",
            f"masked outputs of {model.name!r}",
            "pass sample weights instead",
        )


def _loss_values(loss: keras.Loss, y: Any, predicted: tf.Tensor) -> tf.Tensor:
    # As Loss.__call__ does, but in the model's precision where Keras would cast to floatx().
    values = loss.call(tf.cast(y, predicted.dtype), predicted)
    if getattr(values, "_keras_mask", None) is not None:
        raise InputError("a loss without ignored classes", "ignore_class", "use sample weights")
    return tf.convert_to_tensor(values)


def _weighted(loss: keras.Loss, values: tf.Tensor, weight: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The sum of the weighted values and the divisor of the loss's reduction."""
    count = tf.cast(tf.size(values), values.dtype)
    if weight is None:
        return tf.reduce_sum(values), count
    weight = tf.cast(weight, values.dtype)
    if weight.shape.rank == values.shape.rank + 1 and weight.shape[-1] == 1:
        weight = tf.squeeze(weight, -1)
    if weight.shape.rank > values.shape.rank:
        raise InputError(
            f"sample weights of shape {values.shape} or {values.shape[:1]}",
            str(weight.shape),
            "give one weight an example, or one a loss value",
        )
    if loss.reduction == "mean_with_sample_weight":
        count = tf.reduce_sum(weight)
    for _ in range(values.shape.rank - weight.shape.rank):
        weight = weight[..., tf.newaxis]
    return tf.reduce_sum(values * weight), count


def _outputs(predicted: tf.Tensor) -> list[tf.Tensor]:
    # Keras computes a cross-entropy from what stood before a closing softmax or sigmoid. It keeps
    # that tensor on the output, or looks the output's operation up; so do we.
    logits = getattr(predicted, "_keras_logits", None)
    if logits is None and predicted.op.type in ("Softmax", "Sigmoid"):
        logits = predicted.op.inputs[0]
    return [predicted] if logits is None else [predicted, logits]


def _is(loss: keras.Loss, function: str) -> bool:
    return getattr(loss, "fn", None) is getattr(keras.losses, function)


def _check_classes(y: tf.Tensor, classes: int) -> None:
    if y.dtype.is_floating and bool(tf.reduce_any(y != tf.floor(y))):
        raise InputError("whole class numbers", "labels with fractions", "round them")
    low, high = int(tf.reduce_min(y)), int(tf.reduce_max(y))
    if low < 0 or high >= classes:
        raise InputError(
            f"labels from 0 to {classes - 1}, as the model has {classes} outputs",
            f"labels from {low} to {high}",
            "number the classes from 0, or give the model an output for each",
        )


def _check_probabilities(y: tf.Tensor) -> None:
    low, high = float(tf.reduce_min(y)), float(tf.reduce_max(y))
    if low < 0 or high > 1:
        raise InputError("labels from 0 to 1", f"labels from {low:g} to {high:g}", "rescale them")


def _hits(loss: keras.Loss, y: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor | None:
    if _is(loss, "sparse_categorical_crossentropy"):
        classes = tf.argmax(predicted, axis=-1)
        return _count(tf.cast(tf.reshape(y, tf.shape(classes)), tf.int64) == classes)
    if _is(loss, "categorical_crossentropy"):
        return _count(tf.argmax(y, axis=-1) == tf.argmax(predicted, axis=-1))
    if _is(loss, "binary_crossentropy"):
        threshold = 0.0 if loss.get_config().get("from_logits") else 0.5
        positive = tf.reshape(tf.cast(y, predicted.dtype), tf.shape(predicted)) > 0.5
        return _count(positive == (predicted > threshold))
    return None


def _count(hits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(hits, tf.float64)) * tf.cast(tf.shape(hits)[0], tf.float64)


def _model_names(model: keras.Model) -> list[str]:
    """Variable paths without the model's own name, which Keras puts before some of them."""
    return _unique([v.path.removeprefix(f"{model.name}/") for v in model.trainable_variables])


def _function_name(function: Callable[..., Any]) -> str:
    return function.__name__ if inspect.isfunction(function) else type(function).__name__


def _function_names(params: Sequence[Any]) -> list[str]:
    named = [getattr(p, "path", None) or _variable_name(p) for p in params]
    return _unique([name or f"param{i}" for i, name in enumerate(named)])


def _variable_name(param: Any) -> str | None:
    return param.name.removesuffix(":0") if isinstance(param, tf.Variable) else None


def _is_keras(param: Any) -> bool:
    return isinstance(param, keras.Variable)


def _is_variable(param: Any) -> bool:
    return _is_keras(param) or isinstance(param, tf.Variable)


def _unique(names: Sequence[str]) -> list[str]:
    """The names, with a number on the layer where a name comes again: ``dense_2/kernel``."""
    given, unique = set(names), []
    for name in names:
        layer, slash, weight = name.rpartition("/")
        candidates = (f"{layer}_{i}/{weight}" if slash else f"{name}_{i}" for i in count(2))
        if name in unique:
            name = next(c for c in candidates if c not in unique and c not in given)
        unique.append(name)
    return unique

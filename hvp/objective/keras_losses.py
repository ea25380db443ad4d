"""The loss of one output as Keras computes it: a sum over examples, and a divisor.

Keras averages a batch as Σ weight·mask·value / divisor. The divisor is the number of values, the
number of unmasked values, or the sum of the weights. Here the sum and the divisor are separate, so
that the sums of all batches add up to that of the whole data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from hvp.errors import DataError, InputError, shown
from hvp.objective import likelihoods

# Losses whose value for an example depends only on the outputs and the target of that example.
# CosineSimilarity is not one: its configuration does not contain its axis, so it is tested instead.
BY_EXAMPLE = {
    getattr(keras.losses, name)
    for name in (
        "binary_crossentropy",
        "binary_focal_crossentropy",
        "categorical_crossentropy",
        "categorical_focal_crossentropy",
        "categorical_generalized_cross_entropy",
        "categorical_hinge",
        "hinge",
        "huber",
        "kl_divergence",
        "log_cosh",
        "mean_absolute_error",
        "mean_absolute_percentage_error",
        "mean_squared_error",
        "mean_squared_logarithmic_error",
        "poisson",
        "sparse_categorical_crossentropy",
        "squared_hinge",
    )
}


class Term(NamedTuple):
    """The part of one batch in a term of the objective: Σ total / Σ divisor, over the batches.

    Attributes:
        total: the weighted sum of the loss values, a scalar.
        divisor: a scalar; None for a term that is not divided.
        separable: whether `total` is a sum over examples.
        values, mean, expected: as in `hvp.objective.objective.Likelihood`.
    """

    total: tf.Tensor
    divisor: tf.Tensor | None
    separable: bool
    values: tf.Tensor | None = None
    mean: tf.Tensor | None = None
    expected: tf.Tensor | None = None

    def scaled(self, weight: float | None) -> Term:
        """The term times the weight of its loss; None is a weight of one."""
        if weight is None:
            return self
        expected = None if self.expected is None else self.expected * weight
        return self._replace(total=self.total * weight, expected=expected)


def resolve(loss: Any) -> keras.Loss:
    """The Keras loss for a loss, its class, its name or a function.

    Raises InputError for an unknown name, a loss that is not scalar, or one that overrides
    `__call__`.
    """
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError as error:
            raise InputError("a loss that Keras knows", shown(loss), "see keras.losses") from error
    if isinstance(loss, type) and issubclass(loss, keras.Loss):
        loss = loss()
    if not isinstance(loss, keras.Loss):
        if not callable(loss):
            raise InputError(
                "a Keras loss, its name or a function", shown(loss), "see keras.losses"
            )
        loss = _function_loss()(loss)
    if loss.reduction in (None, "none"):
        raise InputError("a scalar loss", "reduction=None", 'use "sum_over_batch_size" or "sum"')
    if type(loss).__call__ is not keras.Loss.__call__:
        raise InputError(
            "a loss that overrides only call()",
            f"{type(loss).__name__}.__call__ overridden",
            "override call() instead",
        )
    return loss


def is_own(loss: Any) -> bool:
    """Whether it is not one of Keras's own losses."""
    found = getattr(loss, "fn", None) or type(loss)
    return loss is not None and not found.__module__.startswith("keras.")


def term(loss: keras.Loss, y: Any, z: tf.Tensor, weight: Any, mask: tf.Tensor | None) -> Term:
    """The loss of outputs z with targets y, in the precision of z.

    Keras's own `Loss.__call__` computes in `floatx()`. `weight` are sample weights or None.
    """
    values = loss.call(tf.cast(y, z.dtype), z)
    ignored = mask_of(values)
    values = tf.convert_to_tensor(values)
    single = values.shape.rank == 0
    if single and weight is not None:
        # Keras weighs a loss of the whole batch by each weight.
        values *= tf.ones_like(tf.cast(weight, values.dtype))
    factor, divisor = _valid(values, [m for m in (mask, ignored) if m is not None])
    if weight is not None:
        weight = _fitting(weight, values)
        factor = weight if factor is None else factor * weight
    if loss.reduction == "mean_with_sample_weight" and factor is not None:
        # Before broadcasting: Keras counts a weight of several values once.
        divisor = tf.reduce_sum(factor)

    def summed(values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(values if factor is None else factor * values)

    divisor = None if loss.reduction == "sum" else divisor
    separable = not single and getattr(loss, "fn", None) is not keras.losses.circle
    found = Term(summed(values), divisor, separable=separable, values=values)
    if likelihoods.distribution(loss) is None:
        return found
    expected = summed(likelihoods.expected(loss, z))
    return found._replace(mean=likelihoods.mean(loss, z), expected=expected)


def mask_of(tensor: Any) -> tf.Tensor | None:
    """The mask that Keras has attached to a tensor, or None."""
    return getattr(tensor, "_keras_mask", None)


def candidates(z: tf.Tensor) -> list[tf.Tensor]:
    """The tensors that the loss of an output may be computed from: the output, or its logits.

    Only candidates: the loss is split at one of them if it depends on no other value of the
    network. A missing candidate means that the loss has no outputs, never a wrong G.
    """
    logits = likelihoods.logits_before(z, ("Softmax", "Sigmoid"))
    return [z] if logits is None else [z, logits]


def check_targets(loss: keras.Loss, y: tf.Tensor, classes: int) -> None:
    """Raise InputError for targets that are invalid for outputs with a last axis of `classes`."""
    if _is(loss, "sparse_categorical_crossentropy"):
        _check_classes(y, classes, loss.get_config().get("ignore_class"))
    elif _is(loss, "binary_crossentropy") and y.dtype != tf.bool:
        low, high = float(tf.reduce_min(y)), float(tf.reduce_max(y))
        if low < 0 or high > 1:
            raise InputError(
                "labels from 0 to 1", f"labels from {low:g} to {high:g}", "rescale them"
            )


def check_target_shape(loss: keras.Loss, y: Any, z: tf.Tensor) -> None:
    """Raise InputError for a target that belongs to another loss or other outputs, by its shape."""
    if not tf.is_tensor(y) or not z.shape.rank:
        return
    takes_numbers = _is(loss, "sparse_categorical_crossentropy")
    is_number = y.shape[1:] in (z.shape[1:-1], [*z.shape[1:-1], 1])
    is_one_hot = y.shape[1:] == z.shape[1:]
    got = f"y of shape {by_example(y.shape)}"
    if takes_numbers and is_one_hot:
        raise InputError(
            "class numbers as y, for sparse_categorical_crossentropy",
            f"{got}, one-hot",
            f"{_use(loss, 'CategoricalCrossentropy')}, or make class numbers: y.argmax(-1)",
        )
    if _is(loss, "categorical_crossentropy") and is_number:
        other = _use(loss, "SparseCategoricalCrossentropy")
        raise InputError(
            f"one-hot y of shape {by_example(z.shape)}, for categorical_crossentropy",
            f"{got}, class numbers",
            f"{other}, or make them one-hot: keras.utils.to_categorical(y)",
        )
    # A loss of the user's own may take a y of any shape.
    if getattr(loss, "fn", None) in BY_EXAMPLE and not (is_number if takes_numbers else is_one_hot):
        expected = by_example(z.shape[:-1] if takes_numbers else z.shape)
        remedy = "give the y that belongs to this model"
        raise DataError(f"y of shape {expected}, by the model's outputs and its loss", got, remedy)


def _use(loss: keras.Loss, name: str) -> str:
    """The remedy to use another loss, with outputs of the same kind."""
    if loss.get_config().get("from_logits"):
        return f"use {name}(from_logits=True)"
    return f"use the loss {getattr(keras.losses, name)().name}"


def by_example(shape: Sequence[int | None]) -> str:
    """The shape of an array of N examples, such as (N, 4).

    >>> by_example((12, 4)), by_example((12,))
    ('(N, 4)', '(N,)')
    """
    axes = ["N", *map(str, shape[1:])]
    return f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"


def hits(loss: keras.Loss, y: tf.Tensor, z: tf.Tensor) -> tf.Tensor | None:
    """The number of examples that are classified correctly; None where there are no classes."""
    if _is(loss, "sparse_categorical_crossentropy"):
        classes = tf.argmax(z, axis=-1)
        return _count(tf.cast(tf.reshape(y, tf.shape(classes)), tf.int64) == classes)
    if _is(loss, "categorical_crossentropy"):
        return _count(tf.argmax(y, axis=-1) == tf.argmax(z, axis=-1))
    if _is(loss, "binary_crossentropy"):
        threshold = 0.0 if loss.get_config().get("from_logits") else 0.5
        positive = tf.reshape(tf.cast(y, z.dtype), tf.shape(z)) > 0.5
        return _count(positive == (z > threshold))
    return None


def class_weights(weights: dict[int, float], y: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The weight of each example (N,) by its class, as in `fit`; classes not named weigh 1."""
    if y.shape.rank > 1:
        y = tf.squeeze(y, -1) if y.shape[-1] == 1 else tf.argmax(y, -1)
    classes = tf.cast(tf.round(tf.cast(y, tf.float64)), tf.int64)
    result = tf.ones(tf.shape(classes), dtype)
    for number, weight in weights.items():
        # A Python number is cast by way of float32.
        result = tf.where(classes == number, tf.constant(weight, dtype), result)
    return result


def _function_loss() -> type[keras.Loss]:
    # The class that wraps a plain function, and makes ranks equal, has no public name in Keras.
    return keras.losses.MeanSquaredError.__bases__[0]


def _valid(values: tf.Tensor, masks: list[tf.Tensor]) -> tuple[tf.Tensor | None, tf.Tensor]:
    """The mask as numbers, None without masks, and the number of unmasked values."""
    count = tf.cast(tf.size(values), values.dtype)
    if not masks:
        return None, count
    mask = masks[0] if len(masks) == 1 else tf.logical_and(*masks)
    if mask.shape.rank != values.shape.rank:
        raise InputError(
            f"a mask of shape {values.shape}, one entry a loss value",
            str(mask.shape),
            "remove the mask before the last layers, or pass sample weights instead",
        )
    factor = tf.cast(mask, values.dtype)
    return factor, tf.reduce_sum(factor) * (count / tf.cast(tf.size(factor), values.dtype))


def _fitting(weight: Any, values: tf.Tensor) -> tf.Tensor:
    """Sample weights with as many axes as the loss values: axes of length one come and go.

    Keras repeats weights along the first axes where they have fewer, so that weights by example fit
    loss values by time step in no other form than as a column.
    """
    weight = tf.cast(weight, values.dtype)
    rank = values.shape.rank
    if weight.shape.rank == rank + 1 and weight.shape[-1] == 1:
        weight = tf.squeeze(weight, -1)
    if weight.shape.rank == rank - 1 and values.shape[-1] == 1:
        weight = weight[..., tf.newaxis]
    if weight.shape.rank not in (0, rank):
        column = [values.shape[0], *[1] * (rank - 1)]
        raise InputError(
            f"sample weights of shape {values.shape} or {tf.TensorShape(column)}, as fit does",
            str(weight.shape),
            "give one weight per loss value, or one per example with axes of length one",
        )
    return weight


def _is(loss: keras.Loss, function: str) -> bool:
    return getattr(loss, "fn", None) is getattr(keras.losses, function)


def _check_classes(y: tf.Tensor, classes: int, ignored: int | None) -> None:
    if y.dtype.is_floating and bool(tf.reduce_any(y != tf.floor(y))):
        raise InputError("whole class numbers", "labels with fractions", "round them")
    if ignored is not None:
        y = tf.boolean_mask(y, tf.cast(y, tf.int64) != ignored)
        if tf.size(y) == 0:
            return
    y = tf.cast(y, tf.int64)
    low, high = int(tf.reduce_min(y)), int(tf.reduce_max(y))
    if low < 0 or high >= classes:
        raise DataError(
            f"labels from 0 to {classes - 1}, as the model has {classes} outputs",
            f"labels from {low} to {high}",
            "number the classes from 0, or give the model an output for each",
        )


def _count(correct: tf.Tensor) -> tf.Tensor:
    """The number of correct examples; several predictions of one example are averaged."""
    return tf.reduce_mean(tf.cast(correct, tf.float64)) * tf.cast(tf.shape(correct)[0], tf.float64)

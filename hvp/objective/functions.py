"""The objective of plain functions of (parameters, batch), or of parameters alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import keras
import tensorflow as tf

from hvp.errors import InputError, shown
from hvp.objective.objective import Evaluation, Objective, Point, Target, name_of, unique

Function = Callable[..., tf.Tensor]
# What a user may give as a parameter.
Parameter = Any


@final
class FunctionObjective(Objective):
    """The loss ``loss(params, batch)``, or ``loss(outputs(params, batch), batch)``.

    `params` is a parameter or a list of them and reaches the functions in the same form. Without
    data the functions take no batch. `reduction` says whether the loss of a batch is the sum or the
    mean over its examples, None for a single batch.
    """

    def __init__(
        self,
        loss: Function,
        params: Parameter | Sequence[Parameter],
        *,
        outputs: Function | None,
        reduction: str | None,
        has_data: bool,
    ):
        if reduction not in ("sum", "mean", None):
            raise InputError(
                'reduction "sum" or "mean"', shown(reduction), "say what a batch's loss is"
            )
        if isinstance(params, dict):
            raise InputError("a tensor or a list of them", "a dict", "pass list(params.values())")
        self._is_list = isinstance(params, list | tuple)
        given: list[Parameter] = list(params) if self._is_list else [params]
        if not given:
            raise InputError("at least one parameter", "an empty list", "pass a tensor or several")
        self._loss, self._outputs, self._reduction = loss, outputs, reduction
        self._has_data = has_data
        super().__init__(
            names=_names(given),
            values=[tf.convert_to_tensor(p.value if _is_keras(p) else p) for p in given],
            variables=[_variable(p) for p in given],
            loss_name=name_of(loss),
        )

    def evaluate(
        self, params: Sequence[tf.Tensor], batch: Any, state: Sequence[tf.Tensor] | None = None
    ) -> Evaluation:
        """The loss of a batch; times the number of its examples if it is their mean."""
        given = list(params) if self._is_list else params[0]
        if self._outputs is None:
            zs, value = [], self._call(self._loss, given, batch)
        else:
            z = self._call(self._outputs, given, batch)
            if not tf.is_tensor(z):
                raise InputError(
                    "outputs= to return one tensor", type(z).__name__, "concatenate them"
                )
            _require_real("outputs=", z)
            zs, value = [[z]], self._call(self._loss, z, batch)
        value = tf.convert_to_tensor(value)
        _require_real("the loss", value)
        if value.shape.rank is None:
            value = tf.reshape(value, [])  # whether it is a scalar is seen when it runs
        if value.shape.rank != 0:
            raise InputError(
                "a scalar loss", f"shape {value.shape}", "reduce it with tf.reduce_sum or _mean"
            )
        if self._reduction != "mean":
            return Evaluation([value], [None], zs, True)
        count = tf.cast(tf.shape(tf.nest.flatten(batch)[0])[0], value.dtype)
        return Evaluation([value * count], [count], zs, True)

    def penalty(self, params: Sequence[tf.Tensor]) -> tf.Tensor:
        """Plain functions have no penalty apart from their loss."""
        raise NotImplementedError

    def check_count(self, num_batches: int) -> None:
        """Raise InputError for several batches without a reduction."""
        if num_batches > 1 and self._reduction is None:
            raise InputError(
                'reduction="sum" or "mean" with several batches',
                f"{num_batches} batches and no reduction",
                "say what the loss of one batch is",
            )

    def targets(self, batch: Any) -> list[Target]:
        """Plain functions are not known as likelihoods."""
        return []

    def check_targets(self, batch: Any, last_axes: Sequence[int]) -> None:
        """Plain functions may take any targets."""

    def point(self, source: Any) -> Point:
        """Plain functions have no model that holds another point."""
        raise InputError(
            "a vector of the parameters, or a list of arrays", shown(source), "pass one of these"
        )

    def may_miss(self, batch: Any) -> Any:
        """All: the functions are the user's own."""
        return batch

    def _call(self, function: Function, first: Any, batch: Any) -> tf.Tensor:
        return function(first, batch) if self._has_data else function(first)


def _require_real(name: str, tensor: tf.Tensor) -> None:
    if tensor.dtype.is_complex:
        raise InputError(
            f"{name} to return real numbers",
            tensor.dtype.name,
            "stack tf.math.real and tf.math.imag of it",
        )


def _names(params: Sequence[Any]) -> list[str]:
    named = [getattr(p, "path", None) or _variable_name(p) for p in params]
    return unique([name or f"param{i}" for i, name in enumerate(named)])


def _variable_name(param: Any) -> str | None:
    return param.name.removesuffix(":0") if isinstance(param, tf.Variable) else None


def _is_keras(param: Any) -> bool:
    return isinstance(param, keras.Variable)


def _variable(param: Any) -> tf.Variable | None:
    """The TensorFlow variable of a parameter, None for a tensor or an array."""
    variable = param.value if _is_keras(param) else param
    return variable if isinstance(variable, tf.Variable) else None

"""What `fit` minimises, as pure functions of (parameters, batch).

The objective of a data set is a sum of terms Σ_b total(w, batch_b) / Σ_b divisor(batch_b), and of
penalty(w): sums over examples, divided once. It comes from a Keras model and its loss (`fitting`),
or from plain functions.
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


class Likelihood(NamedTuple):
    """The terms of a loss that are sums of loss values, each of one output; all lists by term.

    `values` are the loss values themselves, `means` the expected targets (None where the loss is
    not known as a likelihood) and `expected` the totals with these for targets, held fixed.
    """

    values: list[tf.Tensor]
    means: list[tf.Tensor | None]
    expected: list[tf.Tensor | None]


class Target(NamedTuple):
    """Where a term of a likelihood has its output, and its target among the tensors of a batch.

    `distribution` is that of the target, None where it is not known.
    """

    output: int
    leaf: int
    distribution: str | None


class Evaluation(NamedTuple):
    """One batch: the terms of its loss, summed over the examples, and what they are divided by.

    A divisor of None divides by nothing. `outputs` lists for each output of the network what it may
    be: the first for which the loss sees the parameters through them alone. `separable` tells
    whether the totals are sums over examples, so that it does not matter how they are batched;
    `whole` whether one may yet mix examples, or is a number that counts as a mean over them; `hits`
    counts right classifications, None where there are no classes.
    """

    totals: list[tf.Tensor]
    divisors: list[tf.Tensor | None]
    outputs: list[list[tf.Tensor]]
    separable: bool
    whole: bool = False
    hits: tf.Tensor | None = None
    likelihood: Likelihood | None = None


@dataclass(frozen=True, eq=False)
class Objective:
    """`evaluate(params, batch)`, `penalty(params)` (None: there is none) and the parameters' names.

    `check_targets(batch, lasts)` raises InputError for targets that outputs with these last axes do
    not have; `targets(batch)` tells where each term of the likelihood has its own. `variables` are
    those that the parameters were taken from; `layers` are the names of a model and of its layers;
    `mixing` those that
    see a batch as a whole; `notes` say of layers what a reader should know.
    """

    names: tuple[str, ...]
    values: tuple[tf.Tensor, ...]
    evaluate: Callable[[Sequence[tf.Tensor], Any], Evaluation]
    penalty: Callable[[Sequence[tf.Tensor]], tf.Tensor] | None
    check_targets: Callable[[Any, Sequence[int]], None]
    targets: Callable[[Any], list[Target]]
    variables: tuple[tf.Variable, ...]
    loss_name: str
    layers: tuple[str, ...] = ()
    mixing: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


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
            _require_real("outputs=", z)
            value = call(loss, z, batch)
        value = tf.convert_to_tensor(value)
        _require_real("the loss", value)
        if value.shape.rank != 0:
            raise InputError(
                "a scalar loss", f"shape {value.shape}", "reduce it with tf.reduce_sum or _mean"
            )
        zs = [] if z is None else [[z]]
        if reduction != "mean":
            return Evaluation([value], [None], zs, True)
        count = tf.cast(tf.shape(tf.nest.flatten(batch)[0])[0], value.dtype)
        return Evaluation([value * count], [count], zs, True)

    return Objective(
        names=tuple(_function_names(listed)),
        values=values,
        evaluate=evaluate,
        penalty=None,
        check_targets=lambda batch, lasts: None,
        targets=lambda batch: [],
        variables=tuple(p.value if _is_keras(p) else p for p in listed if _is_variable(p)),
        loss_name=name_of(loss),
    )


def _require_real(name: str, tensor: tf.Tensor) -> None:
    if tensor.dtype.is_complex:
        raise InputError(
            f"{name} to return real numbers",
            tensor.dtype.name,
            "stack tf.math.real and tf.math.imag of it",
        )


def _function_names(params: Sequence[Any]) -> list[str]:
    named = [getattr(p, "path", None) or _variable_name(p) for p in params]
    return unique([name or f"param{i}" for i, name in enumerate(named)])


def _variable_name(param: Any) -> str | None:
    return param.name.removesuffix(":0") if isinstance(param, tf.Variable) else None


def _is_keras(param: Any) -> bool:
    return isinstance(param, keras.Variable)


def _is_variable(param: Any) -> bool:
    return _is_keras(param) or isinstance(param, tf.Variable)


def name_of(function: Callable[..., Any]) -> str:
    """The name of a function, or of what is called like one."""
    return function.__name__ if inspect.isfunction(function) else type(function).__name__


def unique(names: Sequence[str]) -> list[str]:
    """The names, with a number on the layer where a name comes again: ``dense_2/kernel``."""
    given, unique = set(names), []
    for name in names:
        layer, slash, weight = name.rpartition("/")
        candidates = (f"{layer}_{i}/{weight}" if slash else f"{name}_{i}" for i in count(2))
        if name in unique:
            name = next(c for c in candidates if c not in unique and c not in given)
        unique.append(name)
    return unique

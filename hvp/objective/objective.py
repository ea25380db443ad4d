"""What `fit` minimises, as pure functions of (parameters, batch).

The objective of a data set is Σ_t (Σ_b total_t(w, batch_b) / Σ_b divisor_t(batch_b)) + penalty(w)
with a sum over the terms t and sums over the batches b: each term is a sum over all examples,
divided once. `hvp.objective.keras_model` makes it from a Keras model and its loss,
`hvp.objective.functions` from plain functions.
"""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple

import tensorflow as tf


class Likelihood(NamedTuple):
    """The terms of a loss that are sums of loss values, each of one output; lists over the terms.

    Attributes:
        values: the loss values.
        means: the expected targets, None where the loss is not known as a likelihood.
        expected: the totals with the expected targets, held constant, in place of the targets.
    """

    values: list[tf.Tensor]
    means: list[tf.Tensor | None]
    expected: list[tf.Tensor | None]


class Target(NamedTuple):
    """Where a term of a likelihood has its output and its target.

    Attributes:
        output: the number of the output.
        leaf: the number of the target among the tensors of a batch.
        distribution: of the target, None where it is not known.
    """

    output: int
    leaf: int
    distribution: str | None


class Evaluation(NamedTuple):
    """The loss of one batch.

    Attributes:
        totals: the terms, summed over the examples of the batch.
        divisors: this batch's share of what each term is divided by, None for a sum.
        outputs: for each output of the network, the tensors that may be taken for it. The first
            through which alone the loss depends on the parameters is taken.
        separable: whether nothing is known that keeps the totals from being sums over examples.
            What layers and functions compute is not known: `hvp.linearization.separability` tests
            it.
        hits: how many examples are classified rightly, None without classes.
        likelihood: the terms as likelihoods, None where there are no loss values.
    """

    totals: list[tf.Tensor]
    divisors: list[tf.Tensor | None]
    outputs: list[list[tf.Tensor]]
    separable: bool
    hits: tf.Tensor | None = None
    likelihood: Likelihood | None = None


class Point(NamedTuple):
    """Where a loss is evaluated: the values of its parameters and of its state."""

    values: list[tf.Tensor]
    state: list[tf.Tensor]


class Objective(abc.ABC):
    """A loss with its parameters, as pure functions of (parameters, batch).

    `params` are tensors of the shapes of `values`; a batch is a nest of tensors. The state is what
    else of the model may be another at another point, such as frozen weights and moving statistics.

    Attributes:
        names: of the parameters.
        values: of the parameters.
        variables: for each value the TensorFlow variable that it was taken from, or None.
        state: the values of the state.
        state_variables: the TensorFlow variables that they were taken from.
        loss_name: the name of the loss.
        has_penalty: whether there are penalties on the weights.
        layers: the name of the model, then those of its layers; empty for plain functions.
        mixing: the layers that make a loss of the batch as a whole.
        notes: pairs of a layer and what the user should know of it.
        channel_axes: for each value the axes that number its output channels, None for the last.
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        values: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable | None],
        loss_name: str,
        has_penalty: bool = False,
        layers: Sequence[str] = (),
        mixing: Sequence[str] = (),
        notes: Sequence[tuple[str, str]] = (),
        state: Sequence[tf.Tensor] = (),
        state_variables: Sequence[tf.Variable] = (),
        channel_axes: Sequence[tuple[int, ...]] | None = None,
    ):
        self.names, self.values = tuple(names), tuple(values)
        self.variables = tuple(variables)
        self.state, self.state_variables = tuple(state), tuple(state_variables)
        self.loss_name = loss_name
        self.channel_axes = channel_axes
        self.has_penalty = has_penalty
        self.layers, self.mixing, self.notes = tuple(layers), tuple(mixing), tuple(notes)

    @abc.abstractmethod
    def evaluate(
        self, params: Sequence[tf.Tensor], batch: Any, state: Sequence[tf.Tensor] | None = None
    ) -> Evaluation:
        """The loss of a batch without penalties; without `state`, that of the model.

        Each of `params` is a tensor or the parameter's own variable. Training differentiates in
        variables, and `tf.recompute_grad` gives no gradient for a tensor in their place.
        """

    def tensors(self, batch: Any) -> list[tf.Tensor]:
        """The inputs of a program that follow the parameters: the state, then those of a batch."""
        return [*self.state, *(t for t in tf.nest.flatten(batch) if t is not None)]

    @abc.abstractmethod
    def point(self, source: Any) -> Point:
        """The values of another point, which `source` holds.

        Raises InputError for what is no such source.
        """

    @abc.abstractmethod
    def penalty(self, params: Sequence[tf.Tensor]) -> tf.Tensor:
        """The penalties on the weights, a scalar. Called only if `has_penalty`."""

    @abc.abstractmethod
    def check_count(self, num_batches: int) -> None:
        """Raise InputError where it is not said how the losses of so many batches add up."""

    @abc.abstractmethod
    def targets(self, batch: Any) -> list[Target]:
        """Where each term of the likelihood has its output and its target."""

    @abc.abstractmethod
    def check_targets(self, batch: Any, last_axes: Sequence[int]) -> None:
        """Raise InputError for targets that outputs with these last axes cannot have."""

    def may_miss(self, batch: Any) -> Any:
        """The arrays of a batch in which NaN stands for what is missing, as a nest.

        A loss of one's own may leave it out; it is not finite otherwise.
        """
        return []


def name_of(function: Callable[..., Any]) -> str:
    """The name of a function, or of the class of another callable."""
    return function.__name__ if inspect.isfunction(function) else type(function).__name__


def unique(names: Sequence[str]) -> list[str]:
    """The names, with a number on the layer of each repeated one: ``dense_2/kernel``."""
    given, unique = set(names), []
    for name in names:
        layer, slash, weight = name.rpartition("/")
        candidates = (f"{layer}_{i}/{weight}" if slash else f"{name}_{i}" for i in count(2))
        if name in unique:
            name = next(c for c in candidates if c not in unique and c not in given)
        unique.append(name)
    return unique

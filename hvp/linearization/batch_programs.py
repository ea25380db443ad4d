"""The programs of one batch shape: the loss, split at the outputs of the network."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from hvp.autodiff import precision
from hvp.autodiff.identities import apply_identities
from hvp.autodiff.program import Program, leaves
from hvp.autodiff.tensorflow_errors import reason
from hvp.errors import InputError
from hvp.objective.objective import Evaluation, Target

Signature = tuple[tuple[tuple[int, ...], str], ...]


@dataclass(frozen=True, eq=False)
class OutputSplit:
    """A loss split into two programs at the outputs z of the network.

    Attributes:
        outputs: (parameters, batch) -> the list of outputs z.
        loss_of: (z, batch) -> the list of totals.
        shapes: the shapes of z.
        likelihood: (z, batch) -> `Likelihood`; None where the loss is no known likelihood.
        weigh: (loss values, batch) -> their totals; None with `likelihood`.
        at_logits: whether z are not the outputs of the model, but what they are made of.
    """

    outputs: Program
    loss_of: Program
    shapes: list[tuple[int, ...]]
    likelihood: Program | None = None
    weigh: Program | None = None
    at_logits: bool = False

    @classmethod
    def first_of(cls, evaluate: Program, num_params: int) -> OutputSplit | None:
        """The split at the first candidate outputs that has one."""
        candidates: list[list[int]] = evaluate.outputs.outputs
        for position, z in enumerate(itertools.product(*candidates) if candidates else ()):
            split = cls.of(evaluate, z, num_params)
            if split is not None:
                return replace(split, at_logits=position > 0)
        return None

    @classmethod
    def of(cls, evaluate: Program, z: Sequence[int], num_params: int) -> OutputSplit | None:
        """The split at the values `z`; None where the loss depends on the parameters elsewhere."""
        result: Evaluation = evaluate.outputs
        batch = evaluate.inputs[num_params:]
        loss_of = evaluate.part((*z, *batch), result.totals)
        if loss_of.unbound():
            return None
        for shape in (evaluate.specs[n].shape for n in z):
            if not shape.is_fully_defined():
                raise InputError(
                    "outputs whose shape follows from that of the batch",
                    f"the shape {shape}",
                    "give it one by tf.ensure_shape",
                )
        outputs = evaluate.part(evaluate.inputs, list(z))
        network = cls(outputs, loss_of, [tuple(evaluate.specs[n].shape) for n in z])
        if result.likelihood is None or not result.likelihood.values:
            return network
        likelihood = evaluate.part((*z, *batch), result.likelihood)
        totals = result.totals[: len(result.likelihood.values)]
        weigh = evaluate.part((*result.likelihood.values, *batch), totals)
        if likelihood.unbound() or weigh.unbound():
            return network
        return replace(network, likelihood=likelihood, weigh=weigh)

    def with_identities(self) -> OutputSplit:
        """The same with the identities in the network, and in the loss of its outputs."""
        outputs, _ = apply_identities(self.outputs)
        loss_of, _ = apply_identities(self.loss_of, self.loss_of.inputs[: len(self.shapes)])
        return replace(self, outputs=outputs, loss_of=loss_of)

    @property
    def rows(self) -> int:
        return sum(map(math.prod, self.shapes))


@dataclass(frozen=True, eq=False)
class BatchPrograms:
    """The programs of one batch shape, as functions of the parameters, then of the batch.

    Attributes:
        evaluate: -> `Evaluation`.
        loss: -> the list of totals.
        loops: whether loops or branches depend on the parameters.
        network: the split at the outputs; None where the loss is not a function of outputs.
        targets: where each term of the loss has its output and its target.
        traced: `evaluate` before the identities.
    """

    evaluate: Program
    loss: Program
    loops: bool
    network: OutputSplit | None = None
    targets: Sequence[Target] = ()
    traced: Program | None = None

    @property
    def is_penalty(self) -> bool:
        """Whether they are those of the penalty on the weights, which depends on no batch."""
        return self.evaluate is self.loss

    @classmethod
    def cut(
        cls, evaluate: Program, num_params: int, targets: Sequence[Target], traced: Program
    ) -> BatchPrograms:
        """Split at the first candidate outputs through which all parameters reach the loss.

        An identity may lead from the loss past the outputs: with z = √s and the loss z² it is s.
        Then the program `traced`, without identities, is split, and they are applied to its parts.
        """
        loss = evaluate.part(evaluate.inputs, evaluate.outputs.totals)
        loops = loss.loops(loss.inputs[:num_params])
        network = OutputSplit.first_of(evaluate, num_params)
        if network is None and traced is not evaluate:
            network = OutputSplit.first_of(traced, num_params)
            network = network and network.with_identities()
        if network is None:
            return cls(evaluate, loss, loops)
        return cls(evaluate, loss, loops, network, targets, traced)

    def promoted(self, num_params: int, dtype: tf.DType) -> BatchPrograms:
        """The programs in another precision."""
        evaluate = precision.promote(self.evaluate, dtype)
        if self.is_penalty:
            return BatchPrograms(evaluate, evaluate, self.loops)
        traced = evaluate if self.traced is None else precision.promote(self.traced, dtype)
        return BatchPrograms.cut(evaluate, num_params, self.targets, traced)

    def evaluate_at(self, values: Sequence[tf.Tensor], batch: Sequence[tf.Tensor]) -> Evaluation:
        """The terms of the loss on a batch. Raises InputError where TensorFlow fails."""
        try:
            return self._compiled_evaluate(*values, *batch)
        except tf.errors.OpError as error:
            raise InputError(
                "a loss that can be evaluated", reason(error), "check model, loss and data"
            ) from error

    @functools.cached_property
    def _compiled_evaluate(self) -> Callable[..., Evaluation]:
        specs = [self.evaluate.specs[number] for number in self.evaluate.inputs]
        return tf.function(self.evaluate.replay, autograph=False).get_concrete_function(*specs)


def signature(batch: Any) -> Signature:
    """The shapes and types of a batch, which is a nest of tensors."""
    return tuple((tuple(tensor.shape), tensor.dtype.name) for tensor in leaves(batch))

"""The programs of one batch shape: the loss, cut at the network's outputs."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import tensorflow as tf

from hvp import graph, precision
from hvp.errors import InputError
from hvp.objective import Evaluation, Target


@dataclass(frozen=True, eq=False)
class Network:
    """A loss cut in two: `outputs` gives z from parameters and batch, `loss_of` the loss from z.

    Both give lists. `loss_of` takes z and then the batch; `shapes` are those of z. Where the loss
    is a likelihood, `likelihood` gives a `Likelihood` of z and batch, and `weigh` the totals of the
    loss values and the batch.
    """

    outputs: graph.Program
    loss_of: graph.Program
    shapes: list[tuple[int, ...]]
    likelihood: graph.Program | None = None
    weigh: graph.Program | None = None

    @classmethod
    def of(cls, evaluate: graph.Program, z: Sequence[int], num_params: int) -> Network | None:
        """The cut at the values `z`, None where the loss sees the parameters another way."""
        result: Evaluation = evaluate.outputs
        batch = evaluate.inputs[num_params:]
        loss_of = evaluate.part((*z, *batch), result.totals)
        if loss_of.free():
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
        if likelihood.free() or weigh.free():
            return network
        return replace(network, likelihood=likelihood, weigh=weigh)

    @property
    def rows(self) -> int:
        return sum(map(math.prod, self.shapes))


@dataclass(frozen=True, eq=False)
class Programs:
    """The programs of one batch shape, as functions of the parameters and then of the batch.

    `loss` gives the batch's totals alone; `network` is None where the loss is not a function
    of outputs; `loops` tells whether loops or branches depend on the parameters.
    """

    evaluate: graph.Program
    loss: graph.Program
    loops: bool
    network: Network | None = None
    targets: Sequence[Target] = ()

    @classmethod
    def cut(cls, evaluate: graph.Program, num_params: int, targets: Sequence[Target]) -> Programs:
        """Cut the loss at the first candidates that it sees the parameters through alone."""
        result: Evaluation = evaluate.outputs
        loss = evaluate.part(evaluate.inputs, result.totals)
        loops = loss.loops(loss.inputs[:num_params])
        for z in itertools.product(*result.outputs) if result.outputs else ():
            network = Network.of(evaluate, z, num_params)
            if network is not None:
                return cls(evaluate, loss, loops, network, targets)
        return cls(evaluate, loss, loops)

    def promoted(self, num_params: int, dtype: tf.DType) -> Programs:
        """The programs in another precision."""
        evaluate = precision.promote(self.evaluate, dtype)
        if self.evaluate is self.loss:
            return Programs(evaluate, evaluate, self.loops)
        return Programs.cut(evaluate, num_params, self.targets)

    @functools.cached_property
    def evaluate_now(self) -> Callable[..., Evaluation]:
        """`evaluate` compiled."""
        specs = [self.evaluate.specs[number] for number in self.evaluate.inputs]
        return tf.function(self.evaluate.replay, autograph=False).get_concrete_function(*specs)

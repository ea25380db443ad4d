"""The loss of one batch as functions of the chosen parameters, which products differentiate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from hvp.autodiff import curvature
from hvp.autodiff.curvature import Tensors
from hvp.errors import InputError
from hvp.linearization.batch_programs import BatchPrograms
from hvp.objective import likelihoods
from hvp.objective.objective import Likelihood


class BatchFunctions:
    """The loss, the outputs and the scores of one batch as functions of the chosen parameters.

    `values` are all parameters, as inputs of the trace: the program serves for every point, and no
    rule can read their values and take them for constants. `params` are the chosen ones of them.
    `seed` is a pair of integers for products that draw random targets, None for the others.
    """

    def __init__(
        self,
        programs: BatchPrograms,
        divisors: Sequence[float],
        chosen: Sequence[int],
        values: Sequence[tf.Tensor],
        batch: Sequence[tf.Tensor],
        seed: tf.Tensor | None = None,
    ):
        self._values = values
        self._chosen = chosen
        self._programs = programs
        self._batch = batch
        self.seed = seed
        self._divisors = divisors
        self._targets = programs.targets
        self.network = programs.network
        self.params = [values[i] for i in chosen]

    def loss(self, params: Tensors) -> tf.Tensor:
        """The share of this batch in the loss, a scalar."""
        return self._divided(self._programs.loss.replay(*self._all(params), *self._batch))

    def outputs(self, params: Tensors) -> list[tf.Tensor]:
        """The outputs z of this batch, one tensor an output of the network."""
        assert self.network is not None
        return self.network.outputs.replay(*self._all(params), *self._batch)

    def loss_of(self, z: Tensors) -> tf.Tensor:
        """The share of this batch in the loss, as a function of the outputs z."""
        assert self.network is not None
        return self._divided(self.network.loss_of.replay(*z, *self._batch))

    def expected_of(self, z: Tensors) -> tf.Tensor:
        """The share in the loss with each target at its mean under the outputs, held constant."""
        return self._divided(self._likelihood(z, self._batch).expected)

    def outer(self, z: Tensors, u: Tensors) -> list[tf.Tensor]:
        """Σᵢ fᵢ gᵢ gᵢᵀu over the loss values ℓᵢ, with gᵢ = ∂ℓᵢ/∂z and fᵢ = ∂L/∂ℓᵢ."""
        scores = self._scores(z, self._batch)
        return self._outer(z, u, [each[tf.newaxis] for each in scores])

    def outer_of_draws(self, z: Tensors, u: Tensors, count: int) -> list[tf.Tensor]:
        """The mean of `outer` over `count` draws of the targets under the outputs."""
        means = self._likelihood(z, self._batch).means
        seeds = tf.random.experimental.stateless_split(self.seed, count * len(means))

        def scores(seeds: tf.Tensor) -> list[tf.Tensor]:
            batch = list(self._batch)
            for i, (target, mean) in enumerate(zip(self._targets, means, strict=True)):
                spec = tf.TensorSpec(batch[target.leaf].shape, batch[target.leaf].dtype)
                assert mean is not None
                _check_drawn(target.distribution, spec, mean.shape)
                batch[target.leaf] = likelihoods.sample(target.distribution, mean, spec, seeds[i])
            return self._scores(z, batch)

        specs = [tf.TensorSpec(z[t.output].shape, z[t.output].dtype) for t in self._targets]
        # A loop over the draws, so that the program does not grow with their number.
        drawn = tf.map_fn(
            scores, tf.reshape(seeds, [count, len(means), 2]), fn_output_signature=specs
        )
        scales = [likelihoods.temperature(t.distribution, z[t.output].shape) for t in self._targets]
        return self._outer(z, u, [s * t for s, t in zip(drawn, np.sqrt(scales), strict=True)])

    def _scores(self, z: Tensors, batch: Tensors) -> list[tf.Tensor]:
        """For each term of the loss, the derivatives of its loss values in its output."""
        scores = []
        for i, target in enumerate(self._targets):

            def summed(zs: Tensors, i: int = i) -> tf.Tensor:
                return tf.reduce_sum(self._likelihood(zs, batch).values[i])

            scores.append(curvature.gradient(summed, z)[target.output])
        return scores

    def _outer(self, z: Tensors, u: Tensors, scores: Tensors) -> list[tf.Tensor]:
        assert self.network is not None
        assert self.network.weigh is not None
        weigh, values = self.network.weigh, self._likelihood(z, self._batch).values
        factors = curvature.gradient(
            lambda values: self._divided(weigh.replay(*values, *self._batch)), values
        )
        results = [tf.zeros_like(t) for t in u]
        for target, score, factor in zip(self._targets, scores, factors, strict=True):
            output = target.output
            results[output] += curvature.outer(score, factor, u[output])
        return results

    def _likelihood(self, z: Tensors, batch: Tensors) -> Likelihood:
        assert self.network is not None
        assert self.network.likelihood is not None
        return self.network.likelihood.replay(*z, *batch)

    def _divided(self, totals: Tensors) -> tf.Tensor:
        first, *rest = (t / d for t, d in zip(totals, self._divisors, strict=False))
        return tf.add_n([first, *rest]) if rest else first

    def _all(self, params: Tensors) -> list[tf.Tensor]:
        values = list(self._values)
        for position, param in zip(self._chosen, params, strict=True):
            values[position] = param
        return values


def _check_drawn(distribution: str | None, target: tf.TensorSpec, output: tf.TensorShape) -> None:
    """Raise InputError for targets whose dtype or shape cannot hold a draw of them."""
    if distribution == likelihoods.GAUSSIAN and not target.dtype.is_floating:
        raise InputError("targets of floating-point numbers", target.dtype.name, "cast them")
    is_label = distribution == likelihoods.CATEGORICAL
    if not is_label and target.shape.num_elements() != output.num_elements():
        raise InputError(
            f"targets of the shape {output} of the outputs, to draw them",
            f"targets of shape {target.shape}, which are broadcast",
            "repeat them to the shape of the outputs, or leave num_samples out",
        )

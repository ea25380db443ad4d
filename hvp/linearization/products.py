"""The products: what each computes on one batch, and in which orders it can be differentiated.

All that depends on a product is a field of `Product`: no other module asks which one it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import tensorflow as tf

from hvp.autodiff import curvature
from hvp.autodiff.curvature import Mode, Tensors
from hvp.errors import InputError
from hvp.linearization.batch_programs import BatchPrograms
from hvp.objective import likelihoods
from hvp.objective.objective import Likelihood

Build = Callable[[Mode, "Batch", list[tf.Tensor]], list[tf.Tensor]]


class Batch:
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


def _hessian(mode: Mode, batch: Batch, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    return mode.hessian(batch.loss, batch.params, tangents)


def _gauss_newton(mode: Mode, batch: Batch, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    if batch.network is None:
        # A penalty is a function of the parameters alone: G takes its Hessian whole.
        return _hessian(mode, batch, tangents)
    return curvature.gauss_newton(batch.outputs, batch.loss_of, batch.params, tangents, mode)


def _fisher(mode: Mode, batch: Batch, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    def curve(z: Tensors, u: Tensors) -> list[tf.Tensor]:
        return mode.hessian(batch.expected_of, z, u)

    return curvature.sandwich(batch.outputs, curve, batch.params, tangents, mode)


def _empirical(mode: Mode, batch: Batch, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    return curvature.sandwich(batch.outputs, batch.outer, batch.params, tangents, mode)


def _residual(mode: Mode, batch: Batch, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    return curvature.residual(batch.outputs, batch.loss_of, batch.params, tangents, mode)


def _all_three(mode: Mode, batch: Batch, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    if batch.network is None:
        curved = _hessian(mode, batch, tangents)
        return [*curved, *curved, *(tf.zeros_like(t) for t in tangents)]
    parts = (_hessian, _gauss_newton, _residual)
    return [tensor for part in parts for tensor in part(mode, batch, tangents)]


def _jvp(mode: Mode, batch: Batch, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    _, jv = mode.jvp(batch.outputs, batch.params, tangents)
    return [tf.cast(t, tangents[0].dtype) for t in jv]


def _vjp(mode: Mode, batch: Batch, cotangents: list[tf.Tensor]) -> list[tf.Tensor]:
    return curvature.vjp(batch.outputs, batch.params, cotangents)


class Space(Enum):
    """A vector space that products map from or to."""

    PARAMETERS = "parameters"  # of dimension P
    OUTPUTS = "outputs"  # of dimension M, the entries of the outputs of all examples


@dataclass(frozen=True, eq=False, kw_only=True)
class Product:
    """A linear map of one batch, and all that depends on which map it is.

    A product into the parameters is summed over the batches; one into the outputs is concatenated.

    Attributes:
        name: what findings and `Choice` call it.
        build: gives the product with the tangents on a batch, differentiated in a mode.
        modes: order of differentiation -> the mode to build it in.
        loop_modes: the same for programs whose loops or branches depend on the parameters.
        has_penalty: whether the penalties on weights are a term of the sum, as in H and G. Then
            `build` is called for them too, with a batch whose `network` is None.
        needs_outputs: whether it is defined only where the loss is a function of outputs.
        domain, codomain: the spaces of the vector and of the product.
        count: how many products into the codomain it gives, one after the other.
        seed: of the random numbers of each batch, None where there are none.
    """

    name: str
    build: Build
    modes: Mapping[str, Mode]
    loop_modes: Mapping[str, Mode]
    has_penalty: bool
    needs_outputs: bool = True
    domain: Space = Space.PARAMETERS
    codomain: Space = Space.PARAMETERS
    count: int = 1
    seed: int | None = None


# Orders of differentiation, as the argument `ad` names them.
FORWARD, REVERSE = "forward-over-reverse", "reverse-over-reverse"
ORDERS = ("auto", FORWARD, REVERSE)

_FORWARD_ONLY = {FORWARD: curvature.FORWARD_MODE}
_REVERSE_ONLY = {REVERSE: curvature.REVERSE_MODE}
# JᵀΛJ: Jv, then Λ times it, then Jᵀ times that.
_SANDWICH = {"forward, then reverse": curvature.FORWARD_MODE}
_SANDWICH_WITH_LOOPS = {"reverse, twice, then reverse": curvature.REVERSE_MODE}
_TRANSPOSED = {"reverse": curvature.REVERSE_MODE}

H = Product(
    name="H",
    build=_hessian,
    modes=_FORWARD_ONLY | _REVERSE_ONLY,
    loop_modes=_REVERSE_ONLY,
    has_penalty=True,
    needs_outputs=False,
)
G = Product(
    name="G",
    build=_gauss_newton,
    modes=_SANDWICH,
    loop_modes=_SANDWICH_WITH_LOOPS,
    has_penalty=True,
)
R = Product(
    name="R",
    build=_residual,
    modes=_FORWARD_ONLY,
    loop_modes=_REVERSE_ONLY,
    has_penalty=False,
)
HGR = Product(
    name="H, G and R",
    build=_all_three,
    modes=_FORWARD_ONLY,
    loop_modes=_REVERSE_ONLY,
    has_penalty=True,
    count=3,
)
FISHER = Product(
    name="F",
    build=_fisher,
    modes=_SANDWICH,
    loop_modes=_SANDWICH_WITH_LOOPS,
    has_penalty=False,
)
EMPIRICAL = Product(
    name="E",
    build=_empirical,
    modes=_SANDWICH,
    loop_modes=_SANDWICH_WITH_LOOPS,
    has_penalty=False,
)
J = Product(
    name="J",
    build=_jvp,
    modes={"forward": curvature.FORWARD_MODE},
    loop_modes={"reverse, twice": curvature.REVERSE_MODE},
    has_penalty=False,
    codomain=Space.OUTPUTS,
)
JT = Product(
    name="Jᵀ",
    build=_vjp,
    modes=_TRANSPOSED,
    loop_modes=_TRANSPOSED,
    has_penalty=False,
    domain=Space.OUTPUTS,
)


def sampled_fisher(num_samples: int, seed: int) -> Product:
    """The Fisher matrix with its expectation replaced by a mean over draws of every target.

    Raises InputError for no samples, and for a seed that is not a whole number from 0.
    """
    are_whole = all(isinstance(number, int | np.integer) for number in (num_samples, seed))
    if not are_whole or num_samples < 1 or seed < 0:
        raise InputError("at least one sample and a seed from 0", (num_samples, seed), "draw more")

    def build(mode: Mode, batch: Batch, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
        def curve(z: Tensors, u: Tensors) -> list[tf.Tensor]:
            return batch.outer_of_draws(z, u, num_samples)

        return curvature.sandwich(batch.outputs, curve, batch.params, tangents, mode)

    return Product(
        name=f"F of {num_samples} draws",
        build=build,
        modes=_SANDWICH,
        loop_modes=_SANDWICH_WITH_LOOPS,
        has_penalty=False,
        seed=seed,
    )

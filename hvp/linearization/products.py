"""The products: what each is on one batch, and in which orders it can be differentiated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from hvp.autodiff import curvature
from hvp.autodiff.curvature import Mode, Tensors
from hvp.errors import InputError
from hvp.linearization.batch_programs import BatchPrograms
from hvp.linearization.snapshot import Snapshot
from hvp.objective import likelihoods
from hvp.objective.objective import Likelihood

Build = Callable[[Mode, "Batch", list[tf.Tensor]], list[tf.Tensor]]


class Batch:
    """The functions of one batch over the chosen parameters, the others being constants."""

    def __init__(
        self,
        snapshot: Snapshot,
        chosen: Sequence[int],
        programs: BatchPrograms,
        batch: Sequence[tf.Tensor],
        seed: tf.Tensor | None = None,
    ):
        self._values = snapshot.values
        self._chosen = chosen
        self._programs = programs
        self._batch = batch
        self.seed = seed
        # The sum over the batches is the product: each is divided beforehand.
        self._divisors = [1.0] if programs is snapshot.penalty else snapshot.divisors
        self._targets = programs.targets
        self.network = programs.network
        self.params = [tf.identity(self._values[i]) for i in chosen]

    def loss(self, params: Tensors) -> tf.Tensor:
        return self._divided(self._programs.loss.replay(*self._all(params), *self._batch))

    def outputs(self, params: Tensors) -> list[tf.Tensor]:
        assert self.network is not None
        return self.network.outputs.replay(*self._all(params), *self._batch)

    def loss_of(self, z: Tensors) -> tf.Tensor:
        assert self.network is not None
        return self._divided(self.network.loss_of.replay(*z, *self._batch))

    def expected_of(self, z: Tensors) -> tf.Tensor:
        """The loss with its targets expected as the outputs say, held fixed."""
        return self._divided(self._likelihood(z, self._batch).expected)

    def outer(self, z: Tensors, u: Tensors) -> list[tf.Tensor]:
        """Σᵢ fᵢ gᵢ gᵢᵀu over the loss values i: gᵢ = ∇ℓᵢ in the outputs, fᵢ what ℓᵢ counts for."""
        scores = self._scores(z, self._batch)
        return self._outer(z, u, [each[tf.newaxis] for each in scores])

    def outer_of_draws(self, z: Tensors, u: Tensors, count: int) -> list[tf.Tensor]:
        """The mean of `outer` over `count` draws of the targets, as the outputs say."""
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
        # One draw after the other: the program does not grow with their number.
        drawn = tf.map_fn(
            scores, tf.reshape(seeds, [count, len(means), 2]), fn_output_signature=specs
        )
        scales = [likelihoods.temperature(t.distribution, z[t.output].shape) for t in self._targets]
        return self._outer(z, u, [s * t for s, t in zip(drawn, np.sqrt(scales), strict=True)])

    def _scores(self, z: Tensors, batch: Tensors) -> list[tf.Tensor]:
        """By term, the derivatives of its loss values in its output."""
        found = []
        for i, target in enumerate(self._targets):

            def summed(zs: Tensors, i: int = i) -> tf.Tensor:
                return tf.reduce_sum(self._likelihood(zs, batch).values[i])

            found.append(curvature.gradient(summed, z)[target.output])
        return found

    def _outer(self, z: Tensors, u: Tensors, scores: Tensors) -> list[tf.Tensor]:
        assert self.network is not None
        assert self.network.weigh is not None
        weigh, values = self.network.weigh, self._likelihood(z, self._batch).values
        factors = curvature.gradient(
            lambda values: self._divided(weigh.replay(*values, *self._batch)), values
        )
        results = [tf.zeros_like(t) for t in u]
        for target, score, factor in zip(self._targets, scores, factors, strict=True):
            at = target.output
            results[at] += curvature.outer(score, factor, u[at])
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
    """Raise InputError for targets that cannot hold what is drawn for an output."""
    if distribution == likelihoods.GAUSSIAN and not target.dtype.is_floating:
        raise InputError("targets of floating-point numbers", target.dtype.name, "cast them")
    is_label = distribution == likelihoods.CATEGORICAL
    if not is_label and target.shape.num_elements() != output.num_elements():
        raise InputError(
            f"a target for each of the outputs {output}, to draw them",
            f"targets {target.shape}, which are broadcast",
            "repeat them to the shape of the outputs, or leave num_samples out",
        )


def _hessian(mode: Mode, batch: Batch, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    return mode.hessian(batch.loss, batch.params, tangents)


def _gauss_newton(mode: Mode, batch: Batch, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    if batch.network is None:
        # The penalty is its own output: its Gauss-Newton matrix is its Hessian.
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


@dataclass(frozen=True, eq=False)
class Product:
    """A product by its name, and the modes to build it in by the order of differentiation.

    `loops` are those for programs with loops. Some are several products, one behind the other. With
    a `seed` each batch has random numbers of its own.
    """

    name: str
    build: Build
    modes: Mapping[str, Mode]
    loops: Mapping[str, Mode]
    count: int = 1
    seed: int | None = None


FORWARD, REVERSE = "forward-over-reverse", "reverse-over-reverse"
ORDERS = ("auto", FORWARD, REVERSE)
ONE, OTHER = {FORWARD: curvature.FORWARD_MODE}, {REVERSE: curvature.REVERSE_MODE}
H = Product("H", _hessian, {**ONE, **OTHER}, OTHER)
CHAIN = {"forward, then reverse": curvature.FORWARD_MODE}
LOOPED_CHAIN = {"reverse, twice, then reverse": curvature.REVERSE_MODE}
G = Product("G", _gauss_newton, CHAIN, LOOPED_CHAIN)
FISHER = Product("F", _fisher, CHAIN, LOOPED_CHAIN)
EMPIRICAL = Product("E", _empirical, CHAIN, LOOPED_CHAIN)
R = Product("R", _residual, ONE, OTHER)
J = Product(
    "J", _jvp, {"forward": curvature.FORWARD_MODE}, {"reverse, twice": curvature.REVERSE_MODE}
)
HGR = Product("H, G and R", _all_three, ONE, OTHER, 3)
JT = Product("Jᵀ", _vjp, {"reverse": curvature.REVERSE_MODE}, {"reverse": curvature.REVERSE_MODE})


def sampled_fisher(num_samples: int, seed: int) -> Product:
    """The Fisher matrix from so many draws of every target."""

    def build(mode: Mode, batch: Batch, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
        def curve(z: Tensors, u: Tensors) -> list[tf.Tensor]:
            return batch.outer_of_draws(z, u, num_samples)

        return curvature.sandwich(batch.outputs, curve, batch.params, tangents, mode)

    return Product(f"F of {num_samples} draws", build, CHAIN, LOOPED_CHAIN, seed=seed)

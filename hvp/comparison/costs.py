"""What a comparison is expected to cost: its products, time and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import psutil

from hvp.comparison.chain_rule import columns_at_once
from hvp.comparison.loss_slice import NUM_POINTS
from hvp.comparison.plan import Effort
from hvp.comparison.sampling_errors import NUM_SIGN_VECTORS
from hvp.comparison.stages import Stage
from hvp.linalg.eigsh import DENSE_SIZE, POWER_STEPS, SHORT_BASIS_SIZE, basis_size
from hvp.linalg.layer_traces import NUM_PRODUCTS
from hvp.linalg.noise_floor import columns_at_once as columns_in_float64
from hvp.operators import Cost, Curvature

# Products of an iteration for both ends, in those that fill its basis once: measured on six
# networks, from 1 to 2.1 for H, 4 for G and 1.6 for R.
RESTARTS = {"H": 1.5, "G": 2.2, "R": 1.3}
# How many times as many a short basis takes: measured on 23 million parameters.
SHORT_BASIS_FACTOR = 2.3
# Seconds of Lanczos's own work for each entry of its basis and step: ARPACK's, and the one with
# blocks (measured, P from 7,000 to 50,000).
ARPACK_SECONDS, LANCZOS_SECONDS = 4e-9, 1.4e-9
# Vectors that the noise floor multiplies in both precisions, and how much longer a product in
# float64 takes.
NUM_CHECKED, FLOAT64_FACTOR = 6, 2.0
# Vectors of the model's precision that the noise floor has in memory for each that it multiplies at
# once: in both precisions, and their products.
VECTORS_AT_ONCE = 6
# Vectors of the model's precision that the certificate has in memory; those in float64 count twice.
CERTIFICATE_VECTORS = 20
# Vectors beside the basis, those of a product, and those that a journal copies: with a basis of 17
# and six eigenvectors ARPACK took 33 vectors, besides the product, and block Lanczos 24; a journal
# takes 1.4.
WORKING_VECTORS = 9
# What a float64 copy of a network and its products take, in vectors of the model's precision:
# measured on 23 million parameters.
FLOAT64_VECTORS = 36
# Vectors of the model's precision that the loss along two directions has in memory.
SLICE_VECTORS = 12
# What the programs take that are traced later, those in float64 and of blocks: measured on six
# networks, from none to 0.25 GB.
PROGRAM_BYTES = 120 << 20
# Seconds of a stage of the whole and of a layer besides its products: functions are traced.
STAGE_SECONDS, LAYER_STAGE_SECONDS = 0.3, 0.1
# A layer's products take this share of the time of the whole's (measured, 0.3 to 0.6 on networks
# of three to five layers), and so much of the time before the first; loops take all of both.
LAYER_SHARE, LAYER_FIRST_SHARE = 0.5, 0.3


@dataclass(frozen=True)
class StageCost:
    """The products and seconds of a stage, and the most bytes that it takes for its vectors."""

    num_products: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class ComparisonCost:
    """What a comparison is expected to take.

    Attributes:
        size, num_examples, num_batches: of the loss.
        stages: what each of its stages takes, in order.
        costs: of products, by letter.
        base: bytes of the process before the stages.
        saved: bytes of saved tensors.
    """

    size: int
    num_examples: int
    num_batches: int
    stages: Mapping[Stage, StageCost]
    costs: Mapping[str, Cost]
    base: int
    saved: int

    @property
    def seconds(self) -> float:
        return sum(cost.seconds for cost in self.stages.values())

    @property
    def num_products(self) -> int:
        return sum(cost.num_products for cost in self.stages.values())

    @property
    def bytes(self) -> int:
        """The peak of the memory of the process."""
        of_stages = max(cost.bytes for cost in self.stages.values())
        return self.base + self.saved + PROGRAM_BYTES + of_stages


class MeasuredCurvature(Curvature, Protocol):
    """A backend that measures what its products cost, see `hvp.Linearization.cost`."""

    def cost(self, matrix: str, count: int) -> Cost: ...


def measured_costs(lin: MeasuredCurvature, effort: Effort) -> dict[str, Cost]:
    """What products with each of the matrices cost. Each is traced for it."""
    return {letter: lin.cost(letter, effort.num_probes) for letter in effort.matrices}


def comparison_cost(
    lin: Curvature, effort: Effort, stages: Sequence[Stage], costs: Mapping[str, Cost]
) -> ComparisonCost:
    """What these stages are expected to take."""
    sizes = {
        name: sum(math.prod(lin.layout.shapes[i]) for i in positions)
        for name, positions in lin.layout.layers.items()
    }
    each = _StageCosts(lin, effort, sizes, costs)
    of_stages, kept = dict[Stage, StageCost](), 0
    for stage in stages:
        found = each.of(stage)
        of_stages[stage] = replace(found, bytes=found.bytes + kept)
        kept += each.kept_bytes(stage)
    return ComparisonCost(
        lin.size,
        lin.num_examples,
        lin.num_batches,
        of_stages,
        costs,
        psutil.Process().memory_info().rss - max(cost.kept for cost in costs.values()),
        _saved(costs),
    )


def _saved(costs: Mapping[str, Cost]) -> int:
    """The bytes of saved tensors of all matrices together, and of those in float64."""
    saved = sum(cost.saved for cost in costs.values())
    budget = max(cost.budget for cost in costs.values())
    return round(min((1 + FLOAT64_FACTOR) * saved, budget))


class _StageCosts:
    """The costs of stages, given the sizes of the layers and the costs of products."""

    def __init__(
        self, lin: Curvature, effort: Effort, sizes: Mapping[str, int], costs: Mapping[str, Cost]
    ):
        self._lin, self._effort, self._sizes, self._costs = lin, effort, sizes, costs

    def of(self, stage: Stage) -> StageCost:
        size = self._size(stage)
        is_layer = stage.part in self._sizes and size < self._lin.size
        compute = {
            "chain rule": self._chain_rule,
            "ends": self._ends,
            "density": self._density,
            "traces": self._traces,
            "loss slices": self._slices,
        }.get(stage.kind, self._checks)
        count, seconds, vectors = compute(stage, size, is_layer)
        seconds += LAYER_STAGE_SECONDS if is_layer else STAGE_SECONDS
        if is_layer and stage.kind == "ends":
            seconds += self._cost(stage, is_layer).first
        working = max(cost.working for cost in self._costs.values())
        return StageCost(count, seconds, vectors * self._lin.dtype.itemsize + working)

    def kept_bytes(self, stage: Stage) -> int:
        """The bytes of the eigenvectors that a stage finds, which are kept until the end."""
        if stage.kind != "ends":
            return 0
        size = self._size(stage)
        return 2 * min(self._effort.k, size) * size * self._lin.dtype.itemsize

    def _size(self, stage: Stage) -> int:
        """The number of parameters of the part of a stage."""
        return self._sizes.get(stage.part, self._lin.size)

    def _cost(self, stage: Stage, is_layer: bool) -> Cost:
        """The cost of products of a stage; those of a layer are not measured."""
        cost = self._costs[stage.letter]
        if not is_layer or cost.width == 1:
            return cost
        return replace(
            cost,
            first=LAYER_FIRST_SHARE * cost.first,
            alone=LAYER_SHARE * cost.alone,
            in_block=LAYER_SHARE * cost.in_block,
        )

    def _chain_rule(self, stage: Stage, size: int, is_layer: bool) -> tuple[int, float, int]:
        count = len(self._sizes) + 1
        seconds = sum(cost.first + count * cost.in_block for cost in self._costs.values())
        return 3 * count, seconds, 4 * min(count, columns_at_once(self._lin)) * size

    def _ends(self, stage: Stage, size: int, is_layer: bool) -> tuple[int, float, int]:
        cost, k = self._cost(stage, is_layer), min(self._effort.k, max(size - 1, 1))
        forms = (2 * k + NUM_SIGN_VECTORS) if self._lin.num_batches > 1 else 0
        if size <= DENSE_SIZE:
            return size + 2 * k, (size + 2 * k + forms) * cost.in_block, 3 * size
        basis = basis_size(2 * k, size)
        steps = round(RESTARTS[stage.letter] * basis)
        if (short := self._effort.basis(size)) is not None:
            basis, steps = short, round(SHORT_BASIS_FACTOR * steps)
        count = POWER_STEPS + steps + 2 * k
        seconds = (POWER_STEPS + steps) * (cost.alone + ARPACK_SECONDS * basis * size)
        # ARPACK holds the eigenvectors twice beside its basis while it sorts them; for large sizes
        # block Lanczos has them in the place of its basis.
        vectors = basis + WORKING_VECTORS + (4 * k if size < SHORT_BASIS_SIZE else 0)
        return count, seconds + (2 * k + forms) * cost.in_block, vectors * size

    def _density(self, stage: Stage, size: int, is_layer: bool) -> tuple[int, float, int]:
        cost = self._cost(stage, is_layer)
        probes, steps, resampled = self._effort.resolution(stage.letter, is_layer)
        steps = min(steps, size)
        count = (probes + (resampled if self._lin.num_batches > 1 else 0)) * steps
        work = probes * steps * steps * size * LANCZOS_SECONDS
        return count, count * cost.in_block + work, probes * (steps + 4) * size

    def _traces(self, stage: Stage, size: int, is_layer: bool) -> tuple[int, float, int]:
        count = min(NUM_PRODUCTS, size)
        vectors = count * size * 5 // 4
        return count, count * self._costs[stage.letter].in_block, vectors

    def _slices(self, stage: Stage, size: int, is_layer: bool) -> tuple[int, float, int]:
        """Two products and, each for no longer than a product, evaluations of the loss."""
        num_losses = 1 + 2 * (NUM_POINTS - 1)
        return 2, (2 + num_losses) * self._costs["H"].alone, SLICE_VECTORS * size

    def _checks(self, stage: Stage, size: int, is_layer: bool) -> tuple[int, float, int]:
        """The noise floor and the certificate: products in float64, which is traced anew."""
        costs = [cost for letter, cost in self._costs.items() if letter != "R"]
        copy = FLOAT64_VECTORS * size if self._effort.float64 else 0
        if stage.kind == "certificate":
            return 2, 4 * FLOAT64_FACTOR * costs[0].alone, CERTIFICATE_VECTORS * size + copy
        seconds = sum(
            FLOAT64_FACTOR * (2 * cost.first + NUM_CHECKED * cost.in_block)
            + NUM_CHECKED * cost.in_block
            for cost in costs
        )
        vectors = 2 * NUM_CHECKED + VECTORS_AT_ONCE * min(NUM_CHECKED, columns_in_float64(size))
        return 2 * NUM_CHECKED * len(costs), seconds, vectors * size + copy

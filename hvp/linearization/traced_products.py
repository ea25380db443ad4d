"""The linear maps of products: traced once for each shape of batches, used at every point."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from hvp.autodiff import tracing
from hvp.autodiff.curvature import Mode
from hvp.autodiff.tensorflow_errors import REFUSALS, raise_own, reason
from hvp.errors import Finding
from hvp.linearization.batch_functions import BatchFunctions
from hvp.linearization.batch_programs import BatchPrograms
from hvp.linearization.linear_map import LinearMap
from hvp.linearization.products import Product, Space
from hvp.linearization.traced_loss import TracedLoss
from hvp.passes.packing import Packing


@dataclass(frozen=True)
class Choice:
    """How the product of one batch shape runs.

    Attributes:
        product: "H", "G", "R", "J", "Jᵀ", "H, G and R", or one of these of the penalty.
        order: of differentiation.
        way: the backend of a product with one vector, "graph" or "XLA".
        seconds: of a batch's product by order, number of columns and backend, where it was measured
            to decide how blocks of vectors run.
    """

    product: str
    order: str
    way: str
    seconds: dict[str, float]


class TracedProducts:
    """The linear maps of a loss, over the parameters `chosen`.

    Attributes:
        jit: see `linearize`.
        maps: product and batch shape -> linear map, for those made so far.
        notes: findings made while tracing, in order.
    """

    def __init__(self, traced_loss: TracedLoss, chosen: Sequence[int], *, ad: str, jit: str | bool):
        self._traced_loss, self._chosen = traced_loss, tuple(chosen)
        self._layout = traced_loss.layout.restrict(chosen)
        self._ad, self.jit = ad, jit
        self._lock = threading.RLock()
        self.maps: dict[tuple[Product, BatchPrograms], LinearMap] = {}
        self.notes: dict[Finding, None] = {}
        self._orders: dict[tuple[Product, BatchPrograms], str] = {}

    @property
    def choices(self) -> list[Choice]:
        """How each linear map made so far runs."""
        return [
            Choice(
                _name(*key),
                order,
                self.maps[key].single.backend,
                {f"{order}, {name}": t for name, t in self.maps[key].seconds.items()},
            )
            for key, order in list(self._orders.items())
        ]

    def linear_map(
        self,
        product: Product,
        programs: BatchPrograms,
        inputs: Sequence[tf.Tensor],
        whole: TracedProducts | None,
    ) -> LinearMap:
        """The linear map of a batch's shape, traced at the first call.

        `inputs` are the parameters and the tensors of the batch. Where `whole`, the linear maps
        over more parameters, has made this one, the map is a part of its map.
        """
        with self._lock:
            key = (product, programs)
            if key not in self.maps:
                order, linear_map = self._part_of(whole, product, programs) or self._first_order(
                    product, programs, inputs
                )
                if self.jit is True:
                    linear_map.compile()
                self.maps[key], self._orders[key] = linear_map, order
            return self.maps[key]

    def _part_of(
        self, whole: TracedProducts | None, product: Product, programs: BatchPrograms
    ) -> tuple[str, LinearMap] | None:
        """A part of the map over more parameters, with its order; None where there is none."""
        key = (product, programs)
        if whole is None or key not in whole.maps:
            return None
        slices = dict(zip(whole._chosen, whole._layout.slices, strict=True))
        rows = [slices[i] for i in self._chosen]
        copies = [
            slice(s.start + whole._layout.size * copy, s.stop + whole._layout.size * copy)
            for copy in range(product.count)
            for s in rows
        ]
        linear_map = whole.maps[key].restricted(
            None if product.domain is Space.OUTPUTS else rows,
            None if product.codomain is Space.OUTPUTS else copies,
        )
        return None if linear_map is None else (whole._orders[key], linear_map)

    def _first_order(
        self, product: Product, programs: BatchPrograms, inputs: Sequence[tf.Tensor]
    ) -> tuple[str, LinearMap]:
        """The first order of differentiation that TensorFlow can build, and its linear map."""
        modes = product.loop_modes if programs.loops else product.modes
        if self._ad in modes:
            modes = {self._ad: modes[self._ad]}
        *others, last = modes
        for order in others:
            try:
                return order, self._traced(modes[order], product, programs, inputs)
            except REFUSALS as error:
                raise_own(error)
                note = f"no {order}: {reason(error)}"
                self.notes[Finding("note", product.name, note)] = None
        return last, self._traced(modes[last], product, programs, inputs)

    def _traced(
        self,
        mode: Mode,
        product: Product,
        programs: BatchPrograms,
        inputs: Sequence[tf.Tensor],
    ) -> LinearMap:
        """The linear map of a product, built by tracing it."""
        params = Packing.of(self._layout.shapes, tf.as_dtype(self._layout.dtype))
        network = programs.network
        rows = None if network is None else Packing.of(network.shapes, params.dtype)
        source = rows if product.domain is Space.OUTPUTS else params
        target = rows if product.codomain is Space.OUTPUTS else params
        assert source is not None
        assert target is not None
        target = Packing.of([slot.shape for slot in target.slots] * product.count, target.dtype)
        chosen, loss = self._chosen, self._traced_loss
        divisors, count = loss.divisors_of(programs), len(loss.objective.values)

        def function(
            tangents: list[tf.Tensor], values: list[tf.Tensor], *batch: tf.Tensor
        ) -> list[tf.Tensor]:
            tensors, seed = list(batch), None
            if product.seed is not None:
                seed = tensors.pop()
            functions = BatchFunctions(programs, divisors, chosen, values, tensors, seed)
            return product.build(mode, functions, tangents)

        specs = list(map(tf.TensorSpec.from_tensor, inputs))
        program = tracing.trace(function, source.specs, specs[:count], *specs[count:])
        return LinearMap.of(
            program,
            source,
            target,
            num_values=count + loss.num_state(programs),
            tries_xla=self.jit == "auto",
        )


def _name(product: Product, programs: BatchPrograms) -> str:
    return f"{product.name} of the penalty" if programs.is_penalty else product.name

"""Products summed over the batches of a snapshot, tensors in and tensors out.

A product is a sum of linear maps, one for each batch, and one for the penalty. A map is traced at
the first product with a batch of its shape. Saved tensors are kept while they fit the cache. Where
those of all batches are kept, short batches are multiplied in one call: they run in parallel, and
the cost of a call is paid once. Compiling that call takes as long as tens of products, so it is
done after many products only. It adds in the same order and gives the same bits.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import tensorflow as tf

from hvp.autodiff import tracing
from hvp.autodiff.curvature import Mode
from hvp.autodiff.tensorflow_errors import REFUSALS, raise_own, reason
from hvp.errors import Finding
from hvp.linearization import transfer
from hvp.linearization.batch_programs import BatchPrograms
from hvp.linearization.cache import SavedTensorCache
from hvp.linearization.linear_map import LinearMap, SavedTensors
from hvp.linearization.memory import Memory
from hvp.linearization.products import Batch, Product, Space
from hvp.linearization.snapshot import Snapshot
from hvp.operators import Cost
from hvp.passes.packing import Packing

# Vectors or blocks that are multiplied before batches are joined: more than a few eigenvalues take.
PRODUCTS_BEFORE_JOINING = 100

Term = tuple[LinearMap, SavedTensors]
Group = tuple[LinearMap, list[SavedTensors]]


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


class BatchSum:
    """The products of a loss with vectors, over some of its parameters, summed over all batches.

    `whole` has the products over more parameters, all of the chosen ones among them: those whose
    saved tensors it keeps are not traced again here.

    Attributes:
        maps: product and batch shape -> linear map, for those made so far.
        notes: findings made while tracing, in order.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        chosen: Sequence[int],
        cache: SavedTensorCache,
        *,
        ad: str,
        jit: str | bool,
        whole: BatchSum | None = None,
    ):
        self._snapshot, self._chosen, self._cache = snapshot, chosen, cache
        self._whole = whole
        self._ad, self._jit = ad, jit
        self._layout = snapshot.layout.restrict(chosen)
        self._lock = threading.RLock()
        self.maps: dict[tuple[Product, BatchPrograms], LinearMap] = {}
        self.notes: dict[Finding, None] = {}
        self._orders: dict[tuple[Product, BatchPrograms], str] = {}
        self._maps_by_batch: dict[Product, list[LinearMap]] = {}
        self._kept: dict[Product, list[Term]] = {}
        self._joined: dict[Product, list[Group]] = {}
        self._num_products: Counter[Product] = Counter()

    @property
    def choices(self) -> list[Choice]:
        """How each linear map made so far runs."""
        return [
            Choice(
                self._name(*key),
                order,
                self.maps[key].single.backend,
                {f"{order}, {name}": t for name, t in self.maps[key].seconds.items()},
            )
            for key, order in list(self._orders.items())
        ]

    @property
    def num_terms(self) -> int:
        """The number of batches and penalties, over the products made so far, kept or not."""
        return sum(map(len, self._maps_by_batch.values()))

    @property
    def memory(self) -> Memory:
        """The memory of the products made so far."""
        maps = list(self.maps.values())
        return Memory(
            budget=self._cache.budget,
            kept=self._cache.bytes,
            kept_batches=self._cache.count([linear_map.known for linear_map in maps]),
            batches=self.num_terms,
            product=max((linear_map.product_bytes for linear_map in maps), default=0),
        )

    def keeps(self, product: Product) -> bool:
        """Whether the saved tensors of all batches are kept."""
        return product in self._kept

    def width(self, product: Product, count: int) -> int:
        """How many of `count` columns to multiply at once."""
        linear_map, saved = next(iter(self.terms(product)))
        return linear_map.width(
            count,
            self._cache.budget,
            saved if self._jit == "auto" else None,
            self._snapshot.num_batches,
        )

    def widest(self, product: Product) -> int:
        """The most columns that were multiplied at once so far."""
        linear_map, _ = next(iter(self.terms(product)))
        return linear_map.widest

    def cost(self, product: Product, count: int) -> Cost:
        """The cost of a product, with one vector and with blocks of `count`: see `Cost`.

        It is measured on the first batch, and taken to be the same for the others.
        """
        begun = time.perf_counter()
        linear_map, saved = next(iter(self.terms(product)))
        traced = time.perf_counter() - begun
        _, batch = next(self.pieces(product))
        begun = time.perf_counter()
        computed = linear_map.known(batch)
        known = time.perf_counter() - begun
        width = self.width(product, count) if count > 1 else 1
        batches = self._snapshot.num_batches
        each = max(sum(map(transfer.nbytes, computed)), 1)
        num_kept = batches if self.keeps(product) else min(self._cache.free_bytes // each, batches)
        anew = (batches - num_kept) * known
        return Cost(
            first=traced + num_kept * known,
            alone=batches * linear_map.measure(1, saved) + anew,
            in_block=batches * linear_map.measure(width, saved) / width + anew / width,
            width=width,
            saved=num_kept * each,
            budget=self._cache.budget,
            working=width * linear_map.product_bytes,
        )

    def multiply(self, product: Product, parts: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The products over all batches, of vectors (n,) or blocks (n, K)."""
        if product.codomain is Space.OUTPUTS:
            shares = [[m.multiply(part, f) for part in parts] for m, f in self.terms(product)]
            return [tf.concat(found, axis=0) for found in zip(*shares, strict=True)]
        if product.domain is Space.OUTPUTS:
            return self._by_rows(product, parts)
        groups = self._joined.get(product) or self._join(product, len(parts))
        if groups:
            sums = ([m.multiply_all(part, saved) for part in parts] for m, saved in groups)
        else:
            terms = enumerate(self.terms(product))
            sums = (
                _sum([m.multiply(part, saved) for part in parts] for _, (m, saved) in group)
                for _, group in itertools.groupby(terms, self._group)
            )
        return _sum(sums)

    def _by_rows(self, product: Product, parts: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Jᵀu: each batch takes its rows of u."""

        def shares() -> Iterator[list[tf.Tensor]]:
            start = 0
            for linear_map, saved in self.terms(product):
                stop = start + linear_map.source.size
                yield [linear_map.multiply(part[start:stop], saved) for part in parts]
                start = stop

        return _sum(shares())

    def _group(self, numbered: tuple[int, Term]) -> tuple[int, int]:
        """A key that is equal for the terms, with their numbers, that are summed in one call."""
        number, (linear_map, _) = numbered
        return id(linear_map), number // linear_map.batches_per_call(self._snapshot.num_batches)

    def _join(self, product: Product, count: int) -> list[Group] | None:
        """The groups of a product's terms, None before enough vectors or blocks were multiplied.

        `count` is the number of those to be multiplied now.
        """
        if product not in self._kept or self._num_products[product] < PRODUCTS_BEFORE_JOINING:
            self._num_products[product] += count
            return None
        groups = itertools.groupby(enumerate(self._kept[product]), self._group)
        found = [[term for _, term in group] for _, group in groups]
        self._joined[product] = [(terms[0][0], [saved for _, saved in terms]) for terms in found]
        return self._joined[product]

    def terms(self, product: Product) -> Iterable[Term]:
        """The linear map and the saved tensors of each batch, computed anew unless kept."""
        return self._kept.get(product) or self._computed(product)

    def _computed(self, product: Product) -> Iterator[Term]:
        maps = []
        for index, (programs, batch) in enumerate(self.pieces(product)):
            linear_map = self._map(product, programs, batch)
            known = linear_map.known
            saved = self._cache.get(known, index)
            if saved is None:
                saved = known(batch)
                self._cache.add(known, index, batch if self._snapshot.in_memory else (), saved)
            maps.append(linear_map)
            yield linear_map, linear_map.taken(saved)
        self._maps_by_batch[product] = maps
        found = [(m, self._cache.get(m.known, index)) for index, m in enumerate(maps)]
        terms = [(m, m.taken(saved)) for m, saved in found if saved is not None]
        if len(terms) == len(maps):
            self._kept[product] = terms

    def pieces(self, product: Product) -> Iterator[tuple[BatchPrograms, list[tf.Tensor]]]:
        """The terms of the product's sum: the batches, and the penalty where it has one."""
        pieces = self._snapshot.pieces(penalty=product.has_penalty)
        for index, (programs, batch) in enumerate(pieces):
            seed = [] if product.seed is None else [tf.constant([product.seed, index], tf.int64)]
            yield programs, [*batch, *seed]

    def _map(
        self, product: Product, programs: BatchPrograms, batch: Sequence[tf.Tensor]
    ) -> LinearMap:
        """The linear map of a batch's shape, traced at the first call."""
        with self._lock:
            key = (product, programs)
            if key not in self.maps:
                order, linear_map = self._from_whole(product, programs) or self._first_order(
                    product, programs, batch
                )
                if self._jit is True:
                    linear_map.compile()
                self.maps[key], self._orders[key] = linear_map, order
            return self.maps[key]

    def _from_whole(
        self, product: Product, programs: BatchPrograms
    ) -> tuple[str, LinearMap] | None:
        """A part of the map over more parameters, with its order; None where there is none."""
        whole, key = self._whole, (product, programs)
        if whole is None or not whole.keeps(product) or key not in whole.maps:
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

    def _name(self, product: Product, programs: BatchPrograms) -> str:
        is_penalty = programs is self._snapshot.penalty
        return f"{product.name} of the penalty" if is_penalty else product.name

    def _first_order(
        self, product: Product, programs: BatchPrograms, batch: Sequence[tf.Tensor]
    ) -> tuple[str, LinearMap]:
        """The first order of differentiation that TensorFlow can build, and its linear map."""
        modes = product.loop_modes if programs.loops else product.modes
        if self._ad in modes:
            modes = {self._ad: modes[self._ad]}
        *others, last = modes
        for order in others:
            try:
                return order, self._traced(modes[order], product, programs, batch)
            except REFUSALS as error:
                raise_own(error)
                note = f"no {order}: {reason(error)}"
                self.notes[Finding("note", product.name, note)] = None
        return last, self._traced(modes[last], product, programs, batch)

    def _traced(
        self, mode: Mode, product: Product, programs: BatchPrograms, batch: Sequence[tf.Tensor]
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

        def function(
            tangents: list[tf.Tensor], point: list[tf.Tensor], *batch: tf.Tensor
        ) -> list[tf.Tensor]:
            tensors, seed = list(batch), None
            if product.seed is not None:
                seed = tensors.pop()
            functions = Batch(self._snapshot, self._chosen, programs, point, tensors, seed)
            return product.build(mode, functions, tangents)

        specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in batch]
        values = [self._snapshot.values[i] for i in self._chosen]
        program = tracing.trace(
            function, source.specs, list(map(tf.TensorSpec.from_tensor, values)), *specs
        )
        program = program.with_values(len(source.slots), values)
        linear_map = LinearMap.of(
            program,
            source,
            target,
            max_constant_bytes=self._cache.free_bytes,
            tries_xla=self._jit == "auto",
        )
        self._cache.count_constants(linear_map.known)
        return linear_map


def _sum(shares: Iterable[list[tf.Tensor]]) -> list[tf.Tensor]:
    """Lists of tensors, added one after the other."""
    return functools.reduce(lambda total, found: [*map(_add, total, found)], shares)


def _add(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.AddV2(x=first, y=second)

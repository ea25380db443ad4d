"""Products summed over the batches of a snapshot: traced once a batch shape, kept and joined.

A product is a sum of linear maps, one a batch. Maps are made on first use, and their frontiers kept
while they fit. Where all are kept, batches that are short work are multiplied in one call: they run
side by side, and what a call costs is paid once. To compile that takes as long as tens of products,
so it waits until many have run; it adds in the same order, and gives the same bits.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf

from hvp.autodiff import tracing
from hvp.autodiff.curvature import Mode
from hvp.errors import Finding
from hvp.linearization.autotuning import Choice, choose
from hvp.linearization.batch_programs import BatchPrograms
from hvp.linearization.cache import SavedTensorCache
from hvp.linearization.linear_map import LinearMap, SavedTensors
from hvp.linearization.products import Batch, Product, Space
from hvp.linearization.snapshot import Snapshot
from hvp.passes.packing import Packing

# Vectors or blocks that are multiplied before batches are joined: more than a few eigenvalues take.
PATIENCE = 100

Term = tuple[LinearMap, SavedTensors]


class BatchSum:
    """Products over some of a snapshot's parameters, tensors in and tensors out.

    Attributes:
        maps: the linear map of each product and batch shape made so far.
        choices: how each runs and what else was tried.
        notes: what was found while they were made.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        chosen: Sequence[int],
        frontiers: SavedTensorCache,
        *,
        ad: str,
        jit: str | bool,
    ):
        self._snapshot, self._chosen, self._frontiers = snapshot, chosen, frontiers
        self._ad, self._jit = ad, jit
        self._layout = snapshot.layout.restrict(chosen)
        self._lock = threading.RLock()
        self.maps: dict[tuple[Product, BatchPrograms], LinearMap] = {}
        self.choices: list[Choice] = []
        self.notes: dict[Finding, None] = {}
        self._routes: dict[Product, list[LinearMap]] = {}
        self._kept: dict[Product, list[Term]] = {}
        self._joined: dict[Product, list[tuple[LinearMap, list[SavedTensors]]]] = {}
        self._multiplied: Counter[Product] = Counter()

    @property
    def num_frontiers(self) -> int:
        """How many there are of the products made so far, kept or not."""
        return sum(map(len, self._routes.values()))

    def keeps(self, product: Product) -> bool:
        """Whether the frontiers of all batches are kept."""
        return product in self._kept

    def width(self, product: Product, count: int) -> int:
        """How many of `count` columns to multiply at once."""
        linear_map, frontier = next(iter(self.terms(product)))
        tried = frontier if self._jit == "auto" else None
        return linear_map.width(count, self._frontiers.budget, tried)

    def widest(self, product: Product) -> int:
        """The most columns that were multiplied at once so far."""
        linear_map, _ = next(iter(self.terms(product)))
        return linear_map.widest

    def multiply(self, product: Product, parts: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The products over all batches, of vectors (n,) or blocks (n, K)."""
        if product.codomain is Space.OUTPUTS:
            shares = [[m.multiply(part, f) for part in parts] for m, f in self.terms(product)]
            return [tf.concat(found, axis=0) for found in zip(*shares, strict=True)]
        if product.domain is Space.OUTPUTS:
            return self._by_rows(product, parts)
        groups = self._joined.get(product) or self._patiently(product, len(parts))
        if groups:
            sums = ([m.multiply_all(part, fs) for part in parts] for m, fs in groups)
        else:
            terms = enumerate(self.terms(product))
            sums = (
                _sum([m.multiply(part, f) for part in parts] for _, (m, f) in group)
                for _, group in itertools.groupby(terms, self._group)
            )
        return _sum(sums)

    def _by_rows(self, product: Product, parts: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Jᵀu: each batch takes its rows of u."""

        def shares() -> Iterator[list[tf.Tensor]]:
            start = 0
            for linear_map, frontier in self.terms(product):
                stop = start + linear_map.source.size
                yield [linear_map.multiply(part[start:stop], frontier) for part in parts]
                start = stop

        return _sum(shares())

    def _group(self, term: tuple[int, Term]) -> tuple[int, int]:
        """The same for terms, numbered, that are summed before others are added."""
        number, (linear_map, _) = term
        return id(linear_map), number // linear_map.most_batches(self._snapshot.num_batches)

    def _patiently(
        self, product: Product, count: int
    ) -> list[tuple[LinearMap, list[SavedTensors]]] | None:
        """The groups of a product's terms, once it is worth while to join them."""
        if product not in self._kept or self._multiplied[product] < PATIENCE:
            self._multiplied[product] += count
            return None
        groups = itertools.groupby(enumerate(self._kept[product]), self._group)
        found = [[term for _, term in group] for _, group in groups]
        self._joined[product] = [(terms[0][0], [f for _, f in terms]) for terms in found]
        return self._joined[product]

    def terms(self, product: Product) -> Iterable[Term]:
        """The linear map and the frontier of each batch; those kept are not computed anew."""
        return self._kept.get(product) or self._computed(product)

    def _computed(self, product: Product) -> Iterator[Term]:
        maps = []
        for index, (programs, batch) in enumerate(self.pieces(product)):
            linear_map = self._map(product, programs, batch)
            frontier = self._frontiers.get(linear_map, index)
            if frontier is None:
                frontier = linear_map.frontier(batch)
                hidden = linear_map.hidden_bytes
                self._frontiers.offer(linear_map, index, batch, frontier, hidden)
            maps.append(linear_map)
            yield linear_map, frontier
        self._routes[product] = maps
        kept = [self._frontiers.get(linear_map, index) for index, linear_map in enumerate(maps)]
        frontiers = [frontier for frontier in kept if frontier is not None]
        if len(frontiers) == len(maps):
            self._kept[product] = list(zip(maps, frontiers, strict=True))

    def pieces(self, product: Product) -> Iterator[tuple[BatchPrograms, list[tf.Tensor]]]:
        """The terms of the product's sum: the batches, and the penalty where it has one."""
        for index, batch in enumerate(self._snapshot.batches()):
            seed = [] if product.seed is None else [tf.constant([product.seed, index], tf.int64)]
            yield self._snapshot.programs(batch), [*batch, *seed]
        if product.has_penalty and self._snapshot.penalty is not None:
            yield self._snapshot.penalty, []

    def _map(
        self, product: Product, programs: BatchPrograms, batch: Sequence[tf.Tensor]
    ) -> LinearMap:
        """The linear map of a batch's shape, made on first use in the way that is fastest."""
        with self._lock:
            key = (product, programs)
            if key not in self.maps:
                self.maps[key] = self._made(product, programs, batch)
            return self.maps[key]

    def _made(
        self, product: Product, programs: BatchPrograms, batch: Sequence[tf.Tensor]
    ) -> LinearMap:
        modes = product.loop_modes if programs.loops else product.modes
        if self._ad in modes:
            modes = {self._ad: modes[self._ad]}
        makers = {
            order: functools.partial(self._traced, mode, product, programs, batch)
            for order, mode in modes.items()
        }
        is_penalty = programs is self._snapshot.penalty
        linear_map, choice, notes = choose(
            f"{product.name} of the penalty" if is_penalty else product.name,
            makers,
            batch,
            jit=self._jit,
            num_batches=1 if is_penalty else self._snapshot.num_batches,
        )
        self.choices.append(choice)
        self.notes.update((Finding("note", product.name, note), None) for note in notes)
        return linear_map

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
        target = Packing.of([place.shape for place in target.places] * product.count, target.dtype)

        def function(tangents: list[tf.Tensor], *batch: tf.Tensor) -> list[tf.Tensor]:
            tensors, seed = list(batch), None
            if product.seed is not None:
                seed = tensors.pop()
            functions = Batch(self._snapshot, self._chosen, programs, tensors, seed)
            return product.build(mode, functions, tangents)

        specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in batch]
        program = tracing.trace(function, source.specs, *specs)
        linear_map = LinearMap(program, source, target, room=self._frontiers.room)
        self._frontiers.hold(linear_map)
        return linear_map


def _sum(shares: Iterable[list[tf.Tensor]]) -> list[tf.Tensor]:
    """Lists of tensors, added one after the other."""
    return functools.reduce(lambda total, found: [*map(_add, total, found)], shares)


def _add(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.AddV2(x=first, y=second)

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
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from hvp.linearization import work
from hvp.linearization.batch_programs import BatchPrograms
from hvp.linearization.cache import CONSTANTS, SavedTensorCache, nbytes
from hvp.linearization.known_part import SavedTensors
from hvp.linearization.linear_map import LinearMap
from hvp.linearization.memory import Memory
from hvp.linearization.products import Product, Space
from hvp.linearization.snapshot import Snapshot
from hvp.linearization.traced_products import TracedProducts
from hvp.operators import Cost, Work

# Vectors or blocks that are multiplied before batches are joined: more than a few eigenvalues take.
PRODUCTS_BEFORE_JOINING = 100

Term = tuple[LinearMap, SavedTensors]
Group = tuple[LinearMap, list[SavedTensors]]


class BatchSum:
    """The products of a loss with vectors, over some of its parameters, summed over all batches.

    `traced` are the linear maps, of all points. `whole` has the products over more parameters, all
    of the chosen ones among them: those whose saved tensors it keeps are not traced again here.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        cache: SavedTensorCache,
        traced: TracedProducts,
        *,
        whole: BatchSum | None = None,
    ):
        self._snapshot, self._cache, self.traced = snapshot, cache, traced
        self._whole = whole
        self._maps_by_batch: dict[Product, list[LinearMap]] = {}
        self._kept: dict[Product, list[Term]] = {}
        self._joined: dict[Product, list[Group]] = {}
        self._num_products: Counter[Product] = Counter()
        self._num_batches = snapshot.traced_loss.num_batches
        cache.register(snapshot, self)

    def let_go(self) -> None:
        """Hold no saved tensors: those of the next product are computed anew."""
        self._kept, self._joined = {}, {}

    @property
    def num_terms(self) -> int:
        """The number of batches and penalties, over the products made so far, kept or not."""
        return sum(map(len, self._maps_by_batch.values()))

    @property
    def memory(self) -> Memory:
        """The memory of the products made so far."""
        maps = list(self.traced.maps.values())
        known = [linear_map.known for linear_map in maps]
        return Memory(
            budget=self._cache.budget,
            kept=self._cache.bytes,
            kept_batches=self._cache.count(self._snapshot, known),
            batches=self.num_terms,
            product=max((linear_map.product_bytes for linear_map in maps), default=0),
        )

    def keeps(self, product: Product) -> bool:
        """Whether the saved tensors of all batches are kept."""
        return product in self._kept

    def width(self, product: Product, count: int) -> int:
        """How many of `count` columns to multiply at once."""
        return self._first_map(product).width(
            count,
            self._cache.budget,
            (lambda: self._first_saved(product)) if self.traced.jit == "auto" else None,
            self._num_batches,
        )

    def widest(self, product: Product) -> int:
        """The most columns that were multiplied at once so far."""
        return self._first_map(product).widest

    def _first_map(self, product: Product) -> LinearMap:
        """The linear map of the first batch. Where it is known, no batch is read for it."""
        maps = self._maps_by_batch.get(product)
        return maps[0] if maps else next(iter(self.terms(product)))[0]

    def _first_saved(self, product: Product) -> SavedTensors:
        """The saved tensors of the first batch."""
        return next(iter(self.terms(product)))[1]

    def cost(self, product: Product, count: int) -> Cost:
        """The cost of a product, with one vector and with blocks of `count`: see `Cost`.

        It is measured on the first batch, and taken to be the same for the others.
        """
        begun = time.perf_counter()
        linear_map, saved = next(iter(self.terms(product)))
        traced = time.perf_counter() - begun
        _, inputs, held = next(self._pieces(product))
        begun = time.perf_counter()
        computed = linear_map.known(inputs)
        known = time.perf_counter() - begun
        width = self.width(product, count) if count > 1 else 1
        batches = self._num_batches
        each = max(nbytes(computed, held), 1)
        num_kept = batches if self.keeps(product) else min(self._cache.free_bytes // each, batches)
        anew = (batches - num_kept) * known
        known_work, linear_work = self._work(product)
        return Cost(
            first=traced + num_kept * known,
            alone=batches * linear_map.measure(1, saved) + anew,
            in_block=batches * linear_map.measure(width, saved) / width + anew / width,
            width=width,
            saved=num_kept * each,
            kept=self._cache.bytes,
            budget=self._cache.budget,
            working=width * linear_map.product_bytes,
            matrix=product.name,
            num_batches=batches,
            known=known_work,
            linear=linear_work,
        )

    def _work(self, product: Product) -> tuple[Work, Work]:
        """The work of the known part and of the linear part, over all batches."""
        maps = [self._map(product, *piece) for piece in self._pieces(product)]
        of_point = {linear_map.known: linear_map.known.work[0] for linear_map in maps}
        of_batches = [linear_map.known.work[1] for linear_map in maps]
        return work.total([*of_point.values(), *of_batches]), work.total(m.work for m in maps)

    def prepare(self, product: Product) -> None:
        """Choose at the next products what is otherwise chosen after many."""
        for piece in self._pieces(product):
            self._map(product, *piece).expect_many()
        self._num_products[product] = PRODUCTS_BEFORE_JOINING

    def multiply(self, product: Product, parts: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The products over all batches, of vectors (n,) or blocks (n, K)."""
        if product.codomain is Space.OUTPUTS:
            shares = self._shares(product, parts)
            return [tf.concat(found, axis=0) for found in zip(*shares, strict=True)]
        if product.domain is Space.OUTPUTS:
            return self._by_rows(product, parts)
        groups = self._joined.get(product) or self._join(product, len(parts))
        if groups:
            return _sum([m.multiply_all(part, saved) for part in parts] for m, saved in groups)
        return self._term_by_term(product, parts)

    def _term_by_term(self, product: Product, parts: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The sum over the terms, added in the order in which groups in one call are added."""
        total: list[tf.Tensor] = []
        of_group: list[tf.Tensor] = []
        last = None
        number = 0
        for linear_map, saved in self.terms(product):
            found = [linear_map.multiply(part, saved) for part in parts]
            del saved  # before the next batch is read
            group, number = self._group(number, linear_map), number + 1
            if group != last:
                total, of_group, last = _plus(total, of_group), [], group
            of_group = _plus(of_group, found)
            del found
        return _plus(total, of_group)

    def _shares(self, product: Product, parts: Sequence[tf.Tensor]) -> Iterator[list[tf.Tensor]]:
        """The products with each term, whose saved tensors are freed before the next."""
        for linear_map, saved in self.terms(product):
            yield [linear_map.multiply(part, saved) for part in parts]
            del saved  # before the next batch is read

    def _by_rows(self, product: Product, parts: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Jᵀu: each batch takes its rows of u."""

        def shares() -> Iterator[list[tf.Tensor]]:
            start = 0
            for linear_map, saved in self.terms(product):
                stop = start + linear_map.source.size
                yield [linear_map.multiply(part[start:stop], saved) for part in parts]
                start = stop
                del saved  # before the next batch is read

        return _sum(shares())

    def _group(self, number: int, linear_map: LinearMap) -> tuple[int, int]:
        """A key that is equal for the terms, with their numbers, that are summed in one call."""
        return id(linear_map), number // linear_map.batches_per_call(self._num_batches)

    def _join(self, product: Product, count: int) -> list[Group] | None:
        """The groups of a product's terms, None before enough vectors or blocks were multiplied.

        `count` is the number of those to be multiplied now.
        """
        if product not in self._kept or self._num_products[product] < PRODUCTS_BEFORE_JOINING:
            self._num_products[product] += count
            return None
        numbered = enumerate(self._kept[product])
        groups = itertools.groupby(numbered, lambda pair: self._group(pair[0], pair[1][0]))
        found = [[term for _, term in group] for _, group in groups]
        self._joined[product] = [(terms[0][0], [saved for _, saved in terms]) for terms in found]
        return self._joined[product]

    def terms(self, product: Product) -> Iterable[Term]:
        """The linear map and the saved tensors of each batch, computed anew unless kept."""
        return self._kept.get(product) or self._computed(product)

    def _computed(self, product: Product) -> Iterator[Term]:
        maps: list[LinearMap] = []
        for programs, inputs, held in self._pieces(product):
            linear_map = self._map(product, programs, inputs)
            saved = self._saved(linear_map, len(maps), inputs, held)
            maps.append(linear_map)
            yield linear_map, linear_map.taken(saved)
            del inputs, held, saved  # before the next batch is read
        self._maps_by_batch[product] = maps
        found = [(m, self._cache.get(self._snapshot, m.known, i)) for i, m in enumerate(maps)]
        terms = [(m, m.taken(saved)) for m, saved in found if saved is not None]
        if len(terms) == len(maps):
            self._kept[product] = terms

    def _map(
        self, product: Product, programs: BatchPrograms, inputs: Sequence[tf.Tensor], *_: Any
    ) -> LinearMap:
        """The linear map of a batch, traced unless it was."""
        whole = self._whole
        traced = whole.traced if whole is not None and whole.keeps(product) else None
        return self.traced.linear_map(product, programs, inputs, traced)

    def _saved(
        self,
        linear_map: LinearMap,
        index: int,
        inputs: Sequence[tf.Tensor],
        held: Sequence[tf.Tensor],
    ) -> SavedTensors:
        """The saved tensors of batch number `index`, from the cache or computed and kept there."""
        point, known = self._snapshot, linear_map.known
        saved = self._cache.get(point, known, index)
        if saved is not None:
            return saved
        constants = self._cache.get(point, known, CONSTANTS)
        if constants is None:
            constants = known.constants(inputs)
            self._cache.add(point, known, CONSTANTS, held, constants)
            if self._cache.get(point, known, CONSTANTS) is not None:
                held = [*held, *constants]
        else:
            held = [*held, *constants]
        saved = known(inputs, constants)
        self._cache.add(point, known, index, held, saved)
        return saved

    def inputs(self, product: Product) -> Iterator[list[tf.Tensor]]:
        """The inputs of the known part of each term of the product's sum."""
        return (inputs for _, inputs, _ in self._pieces(product))

    def _pieces(
        self, product: Product
    ) -> Iterator[tuple[BatchPrograms, list[tf.Tensor], list[tf.Tensor]]]:
        """The terms of the product's sum: the batches, and the penalty where it has one.

        Each is given as its programs, the inputs of its known part, and those of them that are in
        memory anyway.
        """
        values = self._snapshot.values
        # With enumerate, a batch would be held while the next one is read.
        number = itertools.count(self._snapshot.traced_loss.share.first)
        for programs, tensors in self._snapshot.pieces(penalty=product.has_penalty):
            index = next(number)
            seed = [] if product.seed is None else [tf.constant([product.seed, index], tf.int64)]
            held = [*values, *self._snapshot.held(tensors)]
            yield programs, [*values, *tensors, *seed], held
            del tensors, held  # before the next batch is read


def _sum(shares: Iterable[list[tf.Tensor]]) -> list[tf.Tensor]:
    """Lists of tensors, added one after the other."""
    return functools.reduce(_plus, shares)


def _plus(total: list[tf.Tensor], found: list[tf.Tensor]) -> list[tf.Tensor]:
    """Two lists added; an empty one is zero."""
    return [*map(_add, total, found)] if total and found else total or found


def _add(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.AddV2(x=first, y=second)

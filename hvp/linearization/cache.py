"""Saved tensors kept between products, within a budget of bytes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

import psutil
import tensorflow as tf

from hvp.linearization import transfer
from hvp.linearization.known_part import KnownPart, SavedTensors

# Of the memory that is available when the cache is made.
SHARE = 0.25
# The number of what a known part keeps for all batches, in place of that of a batch.
CONSTANTS = -1


class CachedPoint(Protocol):
    """A point at which products are made, of a family at which the same known parts serve."""

    @property
    def family(self) -> object: ...


class Keeper(Protocol):
    """What holds saved tensors of a point besides the cache."""

    def let_go(self) -> None: ...


class SavedTensorCache:
    """The saved tensors of as many batches as fit; those of a known part are dropped with it.

    Tensors belong to a point, and are dropped with it too. Where those of a new batch do not fit,
    the points of the same family that were used least recently lose all of theirs.

    `budget` is a number of bytes, None for a quarter of the memory available now, divided among so
    many `processes`.
    """

    def __init__(self, budget: int | None, processes: int = 1):
        available = psutil.virtual_memory().available
        self.budget = int(SHARE * available / processes) if budget is None else budget
        self._lock = threading.RLock()
        self._saved: WeakKeyDictionary[
            CachedPoint, WeakKeyDictionary[KnownPart, dict[int, tuple[SavedTensors, int]]]
        ] = WeakKeyDictionary()
        self._keepers: WeakKeyDictionary[CachedPoint, WeakSet[Keeper]] = WeakKeyDictionary()

    @property
    def bytes(self) -> int:
        """The bytes of all that is kept."""
        with self._lock:
            return sum(map(self._bytes_at, list(self._saved)))

    def _bytes_at(self, point: CachedPoint) -> int:
        kept = list(self._saved[point].values()) if point in self._saved else []
        return sum(size for batches in kept for _, size in list(batches.values()))

    @property
    def free_bytes(self) -> int:
        """What is left of the budget."""
        return self.budget - self.bytes

    def register(self, point: CachedPoint, keeper: Keeper) -> None:
        """Call `keeper.let_go` when the tensors of its point are dropped."""
        with self._lock:
            self._keepers.setdefault(point, WeakSet()).add(keeper)

    def count(self, point: CachedPoint, parts: Sequence[KnownPart]) -> int:
        """The number of batches kept, over some known parts."""
        kept = self._saved.get(point) or WeakKeyDictionary()
        return sum(len(kept.get(known, {}).keys() - {CONSTANTS}) for known in parts)

    def get(self, point: CachedPoint, known: KnownPart, index: int) -> SavedTensors | None:
        """The saved tensors of batch number `index`, None where they are not kept."""
        kept = self._saved.get(point)
        found = None if kept is None else kept.get(known, {}).get(index)
        return None if found is None else found[0]

    def add(
        self,
        point: CachedPoint,
        known: KnownPart,
        index: int,
        held: Sequence[tf.Tensor],
        saved: SavedTensors,
    ) -> None:
        """Keep the saved tensors of a batch if they fit; those `held` anyway are not counted."""
        size = nbytes(saved, held)
        if index != CONSTANTS:
            size += known.branch_bytes  # TensorFlow does not report the size of optional values
        with self._lock:
            # The point that was used last is the last one.
            kept: WeakKeyDictionary[KnownPart, dict[int, tuple[SavedTensors, int]]]
            kept = self._saved.pop(point, WeakKeyDictionary())
            self._saved[point] = kept
            self._make_room(point, size)
            if self.bytes + size <= self.budget:
                kept.setdefault(known, {})[index] = (saved, size)

    def _make_room(self, point: CachedPoint, size: int) -> None:
        """Drop the tensors of other points of the family, from the first, as far as it helps."""
        others = [p for p in self._saved if p.family is point.family and p is not point]
        if self.bytes + size - sum(map(self._bytes_at, others)) > self.budget:
            return
        for other in others:
            if self.bytes + size <= self.budget:
                return
            self.drop(other)

    def drop(self, point: CachedPoint) -> None:
        """Drop all tensors of a point."""
        with self._lock:
            self._saved.pop(point, None)
            for keeper in list(self._keepers.get(point, ())):
                keeper.let_go()


def nbytes(saved: SavedTensors, held: Sequence[tf.Tensor]) -> int:
    """The bytes of tensors, without those that are held anyway."""
    uncounted = {id(tensor) for tensor in held}
    return sum(transfer.nbytes(tensor) for tensor in saved if id(tensor) not in uncounted)

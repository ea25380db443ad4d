"""Frontiers kept between products, within a budget of bytes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from weakref import WeakKeyDictionary, WeakSet

import psutil
import tensorflow as tf

from hvp.linearization import transfer
from hvp.linearization.linear_map import LinearMap, SavedTensors

# Of the memory that is free when it is asked for.
SHARE = 0.25


class SavedTensorCache:
    """The frontiers of as many batches as fit; those of a linear map go with it.

    `budget` is a number of bytes, None for a quarter of the memory available now. With `beside`
    the batches themselves are held in memory anyway and are not counted.
    """

    def __init__(self, budget: int | None, *, beside: bool):
        available = psutil.virtual_memory().available
        self.budget = int(SHARE * available) if budget is None else budget
        self._beside = beside
        self._lock = threading.RLock()
        self._kept: WeakKeyDictionary[LinearMap, dict[int, tuple[SavedTensors, int]]]
        self._kept = WeakKeyDictionary()
        self._held: WeakSet[LinearMap] = WeakSet()

    @property
    def bytes(self) -> int:
        """What is kept."""
        with self._lock:
            frontiers = sum(size for kept in self._kept.values() for _, size in kept.values())
            return frontiers + sum(linear_map.shared_bytes for linear_map in self._held)

    @property
    def room(self) -> int:
        """What is left of the budget."""
        return self.budget - self.bytes

    def hold(self, linear_map: LinearMap) -> None:
        """Count what a linear map keeps for all its batches, as long as it is there."""
        with self._lock:
            self._held.add(linear_map)

    def count(self, maps: Sequence[LinearMap]) -> int:
        """The frontiers kept for some maps."""
        return sum(len(self._kept.get(linear_map, ())) for linear_map in maps)

    def get(self, linear_map: LinearMap, index: int) -> SavedTensors | None:
        """The frontier of a batch, None where it is not kept."""
        frontier, _ = self._kept.get(linear_map, {}).get(index, (None, 0))
        return frontier

    def offer(
        self,
        linear_map: LinearMap,
        index: int,
        batch: Sequence[tf.Tensor],
        frontier: SavedTensors,
        hidden: int = 0,
    ) -> None:
        """Keep the frontier of a batch if it fits, with `hidden` bytes that no tensor tells."""
        given = {id(tensor) for tensor in batch} if self._beside else set()
        told = sum(transfer.nbytes(tensor) for tensor in frontier if id(tensor) not in given)
        size = told + hidden
        with self._lock:
            if self.bytes + size <= self.budget:
                self._kept.setdefault(linear_map, {})[index] = (frontier, size)

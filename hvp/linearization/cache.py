"""Saved tensors kept between products, within a budget of bytes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from weakref import WeakKeyDictionary, WeakSet

import psutil
import tensorflow as tf

from hvp.linearization import transfer
from hvp.linearization.linear_map import LinearMap, SavedTensors

# Of the memory that is available when the cache is made.
SHARE = 0.25


class SavedTensorCache:
    """The saved tensors of as many batches as fit; those of a linear map are dropped with it.

    `budget` is a number of bytes, None for a quarter of the memory available now. Where batches
    are in memory anyway, `batches_in_memory`, tensors that belong to them are not counted.
    """

    def __init__(self, budget: int | None, *, batches_in_memory: bool):
        available = psutil.virtual_memory().available
        self.budget = int(SHARE * available) if budget is None else budget
        self._batches_in_memory = batches_in_memory
        self._lock = threading.RLock()
        self._saved: WeakKeyDictionary[LinearMap, dict[int, tuple[SavedTensors, int]]]
        self._saved = WeakKeyDictionary()
        self._with_constants: WeakSet[LinearMap] = WeakSet()

    @property
    def bytes(self) -> int:
        """The bytes of all that is kept."""
        with self._lock:
            saved = sum(size for kept in self._saved.values() for _, size in kept.values())
            return saved + sum(m.constant_bytes for m in self._with_constants)

    @property
    def free_bytes(self) -> int:
        """What is left of the budget."""
        return self.budget - self.bytes

    def count_constants(self, linear_map: LinearMap) -> None:
        """Count what a linear map keeps for all its batches, as long as it exists."""
        with self._lock:
            self._with_constants.add(linear_map)

    def count(self, maps: Sequence[LinearMap]) -> int:
        """The number of batches kept, over some linear maps."""
        return sum(len(self._saved.get(linear_map, ())) for linear_map in maps)

    def get(self, linear_map: LinearMap, index: int) -> SavedTensors | None:
        """The saved tensors of batch number `index`, None where they are not kept."""
        saved, _ = self._saved.get(linear_map, {}).get(index, (None, 0))
        return saved

    def add(
        self,
        linear_map: LinearMap,
        index: int,
        batch: Sequence[tf.Tensor],
        saved: SavedTensors,
        branch_bytes: int = 0,
    ) -> None:
        """Keep the saved tensors of a batch if they fit.

        `branch_bytes` are those of optional values, whose size TensorFlow does not report.
        """
        uncounted = {id(tensor) for tensor in batch} if self._batches_in_memory else set()
        tensors = [tensor for tensor in saved if id(tensor) not in uncounted]
        size = sum(map(transfer.nbytes, tensors)) + branch_bytes
        with self._lock:
            if self.bytes + size <= self.budget:
                self._saved.setdefault(linear_map, {})[index] = (saved, size)

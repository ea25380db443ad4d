"""Saved tensors kept between products, within a budget of bytes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from weakref import WeakKeyDictionary, WeakSet

import psutil
import tensorflow as tf

from hvp.linearization import transfer
from hvp.linearization.linear_map import KnownPart, SavedTensors

# Of the memory that is available when the cache is made.
SHARE = 0.25


class SavedTensorCache:
    """The saved tensors of as many batches as fit; those of a known part are dropped with it.

    `budget` is a number of bytes, None for a quarter of the memory available now.
    """

    def __init__(self, budget: int | None):
        available = psutil.virtual_memory().available
        self.budget = int(SHARE * available) if budget is None else budget
        self._lock = threading.RLock()
        self._saved: WeakKeyDictionary[KnownPart, dict[int, tuple[SavedTensors, int]]]
        self._saved = WeakKeyDictionary()
        self._with_constants: WeakSet[KnownPart] = WeakSet()

    @property
    def bytes(self) -> int:
        """The bytes of all that is kept."""
        with self._lock:
            saved = sum(size for kept in self._saved.values() for _, size in kept.values())
            return saved + sum(known.constant_bytes for known in self._with_constants)

    @property
    def free_bytes(self) -> int:
        """What is left of the budget."""
        return self.budget - self.bytes

    def count_constants(self, known: KnownPart) -> None:
        """Count what a known part keeps for all its batches, as long as it exists."""
        with self._lock:
            self._with_constants.add(known)

    def count(self, parts: Sequence[KnownPart]) -> int:
        """The number of batches kept, over some known parts."""
        return sum(len(self._saved.get(known, ())) for known in parts)

    def get(self, known: KnownPart, index: int) -> SavedTensors | None:
        """The saved tensors of batch number `index`, None where they are not kept."""
        saved, _ = self._saved.get(known, {}).get(index, (None, 0))
        return saved

    def add(
        self,
        known: KnownPart,
        index: int,
        held: Sequence[tf.Tensor],
        saved: SavedTensors,
    ) -> None:
        """Keep the saved tensors of a batch if they fit; those `held` anyway are not counted."""
        uncounted = {id(tensor) for tensor in held}
        tensors = [tensor for tensor in saved if id(tensor) not in uncounted]
        # TensorFlow does not report the size of optional values.
        size = sum(map(transfer.nbytes, tensors)) + known.branch_bytes
        with self._lock:
            if self.bytes + size <= self.budget:
                self._saved.setdefault(known, {})[index] = (saved, size)

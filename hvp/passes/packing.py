"""Where tensors lie in a flat vector: cutting the vector into them, and joining them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Slot:
    """Where a tensor lies in a flat vector."""

    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Packing:
    """The slots of tensors in a vector of `size` entries; `join` needs slots without gaps."""

    slots: tuple[Slot, ...]
    size: int
    dtype: tf.DType

    @classmethod
    def of(cls, shapes: Sequence[tuple[int, ...]], dtype: tf.DType) -> Packing:
        """Tensors that follow each other."""
        starts = list(itertools.accumulate(map(math.prod, shapes), initial=0))
        return cls(tuple(map(Slot, starts, shapes)), starts[-1], dtype)

    def restricted(self, rows: Sequence[slice] | None) -> tuple[list[int], Packing] | None:
        """The positions of the slots in some rows of the vector, and where they lie in these rows.

        The rows are slices in order, None for all. Returns None if a slot lies partly in them.
        """
        if rows is None:
            return list(range(len(self.slots))), self
        starts = list(itertools.accumulate((s.stop - s.start for s in rows), initial=0))
        positions, slots = [], []
        for position, slot in enumerate(self.slots):
            stop = slot.start + slot.size
            common = [max(min(s.stop, stop) - max(s.start, slot.start), 0) for s in rows]
            if slot.size and not any(common):
                continue
            if sum(common) < slot.size:
                return None
            first = next((i for i, n in enumerate(common) if n), 0)
            positions.append(position)
            slots.append(Slot(starts[first] + slot.start - rows[first].start, slot.shape))
        return positions, Packing(tuple(slots), starts[-1], self.dtype)

    @property
    def specs(self) -> list[tf.TensorSpec]:
        return [tf.TensorSpec(slot.shape, self.dtype) for slot in self.slots]

    def split(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """The tensors of a vector (size,), or of the columns of a block (size, K)."""
        axes = vector.shape[1:].as_list()
        # Unlike a part of tf.split, a slice whose edges are aligned is no copy.
        parts = [
            tf.slice(vector, [slot.start, *[0] * len(axes)], [slot.size, *axes])
            for slot in self.slots
        ]
        return [tf.reshape(t, [*p.shape, *axes]) for t, p in zip(parts, self.slots, strict=True)]

    def join(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """The vector (size,), or block (size, K), of such tensors."""
        flat = [
            tf.reshape(t, [slot.size, *t.shape[len(slot.shape) :]])
            for t, slot in zip(tensors, self.slots, strict=True)
        ]
        return flat[0] if len(flat) == 1 else tf.concat(flat, axis=0)

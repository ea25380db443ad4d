"""How a flat vector is cut into tensors, or joined from them."""

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
    """The tensors of a vector of `size` entries; those that are joined lie one behind the other."""

    places: tuple[Slot, ...]
    size: int
    dtype: tf.DType

    @classmethod
    def of(cls, shapes: Sequence[tuple[int, ...]], dtype: tf.DType) -> Packing:
        """Tensors one behind the other."""
        starts = list(itertools.accumulate(map(math.prod, shapes), initial=0))
        return cls(tuple(map(Slot, starts, shapes)), starts[-1], dtype)

    @property
    def specs(self) -> list[tf.TensorSpec]:
        return [tf.TensorSpec(place.shape, self.dtype) for place in self.places]

    def split(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """The tensors of a vector (size,), or of the columns of a block (size, K)."""
        behind = vector.shape[1:].as_list()
        # Unlike a part of tf.split, a slice whose edges are aligned is no copy.
        parts = [
            tf.slice(vector, [place.start, *[0] * len(behind)], [place.size, *behind])
            for place in self.places
        ]
        return [tf.reshape(t, [*p.shape, *behind]) for t, p in zip(parts, self.places, strict=True)]

    def join(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """The vector, or the columns of a block, that such tensors make."""
        flat = [
            tf.reshape(t, [place.size, *t.shape[len(place.shape) :]])
            for t, place in zip(tensors, self.places, strict=True)
        ]
        return flat[0] if len(flat) == 1 else tf.concat(flat, axis=0)

"""The layout of the parameters in one flat vector, and the selection of parameters by name."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from hvp.errors import InputError, shown
from hvp.objective.output_channels import last_axis


class Layout:
    """The layout of named tensors in one flat vector of P entries, in order, each row-major.

    A parameter is named ``layer/weight``: the part before the last slash is its layer. A name
    without a slash is its own layer. `channel_axes` are those of each tensor that number its output
    channels, by default the last one.
    """

    def __init__(
        self,
        names: Sequence[str],
        shapes: Sequence[Sequence[int]],
        dtype: np.dtype,
        channel_axes: Sequence[tuple[int, ...]] | None = None,
    ):
        self.names = tuple(names)
        self.shapes = tuple(tuple(shape) for shape in shapes)
        self.dtype = np.dtype(dtype)
        axes = map(last_axis, self.shapes) if channel_axes is None else channel_axes
        self.channel_axes = tuple(axes)
        assert len(set(self.names)) == len(self.names), "parameters need names of their own"
        self.sizes = tuple(int(np.prod(shape)) for shape in self.shapes)
        self.size = sum(self.sizes)
        stops = np.cumsum(self.sizes).tolist()
        self.slices = tuple(
            slice(stop - size, stop) for stop, size in zip(stops, self.sizes, strict=True)
        )

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """Layer name -> the positions of its parameters, in order."""
        layers: dict[str, tuple[int, ...]] = {}
        for position, name in enumerate(self.names):
            layer = layer_of(name)
            layers[layer] = (*layers.get(layer, ()), position)
        return layers

    def select(self, patterns: str | Sequence[str]) -> tuple[int, ...]:
        """Positions of the parameters that match a layer name, a parameter name or a glob.

        What is a name is not a glob, whatever its letters. A name also selects all names below it:
        ``encoder`` selects ``encoder/dense/kernel``.
        Raises InputError for a pattern that matches nothing.
        """
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if not isinstance(patterns, Iterable) or not all(isinstance(p, str) for p in patterns):
            raise InputError("names or globs", shown(patterns), f"use some of {self.names}")
        chosen: set[int] = set()
        for pattern in patterns:
            found = self._named(pattern) or {
                i for i, name in enumerate(self.names) if _matches(pattern, name)
            }
            if not found:
                raise InputError(
                    f"a layer, a parameter or a glob among {', '.join(self.layers)}",
                    shown(pattern),
                    "name one of these",
                )
            chosen |= found
        if not chosen:
            raise InputError("at least one layer", "none", "leave out variables= to use all")
        return tuple(sorted(chosen))

    def _named(self, name: str) -> set[int]:
        """The positions of the parameter or layer of exactly this name, with those below it."""
        return {i for i, each in enumerate(self.names) if name in _ancestors(each)}

    def restrict(self, positions: Sequence[int]) -> Layout:
        """The layout of some of the parameters."""
        return Layout(
            [self.names[i] for i in positions],
            [self.shapes[i] for i in positions],
            self.dtype,
            [self.channel_axes[i] for i in positions],
        )

    def split(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """The flat vector (P,) as one tensor per parameter."""
        pieces = tf.split(vector, self.sizes)
        return [tf.reshape(p, shape) for p, shape in zip(pieces, self.shapes, strict=True)]

    def join(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """One tensor per parameter as the flat vector (P,)."""
        return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)


def layer_of(name: str) -> str:
    """The layer of a parameter name."""
    return name.rpartition("/")[0] or name


def _ancestors(name: str) -> list[str]:
    """The name, its layer, the part of the model that this is in, and so on."""
    found = [name]
    while "/" in found[-1]:
        found.append(found[-1].rpartition("/")[0])
    return found


def _matches(pattern: str, name: str) -> bool:
    """Whether a glob matches the name or one of its ancestors."""
    return any(fnmatch.fnmatchcase(each, pattern) for each in _ancestors(name))

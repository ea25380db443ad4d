"""What a comparison can take from an earlier one: vectors that its eigenvalues start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hvp.comparison.results import Comparison
from hvp.errors import InputError
from hvp.linalg import start_vector
from hvp.operators import Curvature

Shapes = Mapping[str, Sequence[Sequence[int]]]


@dataclass(frozen=True, eq=False)
class Start:
    """Starting vectors for networks with the same parameters.

    Attributes:
        shapes: layer name -> the shapes of its parameters, in order.
        vectors: part and letter -> (P,) the sum of the eigenvectors at both ends.
    """

    shapes: Shapes
    vectors: Mapping[tuple[str, str], np.ndarray]

    @classmethod
    def of(cls, comparison: Comparison) -> Start:
        """From a comparison in memory."""
        return cls(
            comparison.shapes,
            {
                (part.name, letter): start_vector.summed(
                    found.smallest.vectors, found.largest.vectors
                )
                for part in comparison.parts.values()
                for letter, found in part.spectra.items()
            },
        )

    def check(self, lin: Curvature) -> None:
        """Raise InputError where `lin` has other parameters."""
        here, there = shapes(lin), {name: _tuples(each) for name, each in self.shapes.items()}
        if here == there:
            return
        for name in [*here, *there]:
            if here.get(name) != there.get(name):
                expected = f"a start with layer {name} of shapes {_shown(here.get(name))}"
                got = f"shapes {_shown(there.get(name))}"
                raise InputError(expected, got, "compare without a start")
        raise InputError("a start with layers in this order", "another", "compare without a start")

    def vector(self, part: str, letter: str, lin: Curvature, seed: int) -> np.ndarray | None:
        """(P,) where the eigenvalues of a part start; None where the earlier one lacks it."""
        found = self.vectors.get((part, letter))
        if found is None:
            return None
        return start_vector.combined(found[:, None], lin.size, lin.dtype, seed)


def shapes(lin: Curvature) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Layer name -> the shapes of its parameters, in order."""
    return {
        name: _tuples([lin.layout.shapes[i] for i in positions])
        for name, positions in lin.layout.layers.items()
    }


def _tuples(given: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(size) for size in shape) for shape in given)


def _shown(found: tuple[tuple[int, ...], ...] | None) -> str:
    return "none" if found is None else " ".join(map(str, found)) or "none"

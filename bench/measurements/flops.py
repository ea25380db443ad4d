"""Multiply-adds of a gradient and of the parts of Hv and Gv that depend on v.

A product A·B is one forward, and two more in the gradient. Where both factors have tangents, Hv
needs two for the tangent and four for the tangent of the gradient, Gv two and two. The first
layer's inputs have none: of the gradient one falls away, of Hv four, of Gv two. What is elementwise
is not counted, nor is the padding of a convolution taken away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.measurements.problems import Conv, Dense, Encoder, GlobalAverage, Layer, MaxPool, Problem


@dataclass(frozen=True)
class MultiplyAdds:
    """For the whole batch."""

    gradient: int = 0
    hvp: int = 0
    gnvp: int = 0

    def __add__(self, other: MultiplyAdds) -> MultiplyAdds:
        return MultiplyAdds(
            self.gradient + other.gradient, self.hvp + other.hvp, self.gnvp + other.gnvp
        )


def count(problem: Problem) -> MultiplyAdds:
    """Of one gradient, one Hv and one Gv."""
    total, shape, moves = MultiplyAdds(), problem.shape, False
    for layer in problem.layers:
        total += _layer(layer, problem.batch, shape, moves)
        moves = moves or isinstance(layer, Dense | Conv | Encoder)
        shape = _shape_after(layer, shape)
    return total


def matrix_products(problem: Problem) -> list[tuple[int, int, int]]:
    """Shapes (rows, inner, columns) of the largest layer's products: forward and both backward."""
    largest, shape = (1, 1, 1), problem.shape
    for layer in problem.layers:
        candidate = _map(layer, problem.batch, shape)
        largest = max(largest, candidate, key=math.prod)
        shape = _shape_after(layer, shape)
    rows, inner, columns = largest
    return [(rows, inner, columns), (rows, columns, inner), (inner, rows, columns)]


def _layer(layer: Layer, batch: int, shape: tuple[int, ...], moves: bool) -> MultiplyAdds:
    match layer:
        case Dense() | Conv():
            return _product(math.prod(_map(layer, batch, shape)), moves)
        case Encoder():
            rows, length = batch * shape[0], shape[0]
            projections = 4 * rows * layer.width * layer.width
            attention = 2 * rows * length * layer.width
            dense = 2 * rows * layer.width * layer.hidden
            # The normalisation before them has weights, so that all of them move.
            return _product(projections + attention + dense, True)
    return MultiplyAdds()


def _product(forward: int, moves: bool) -> MultiplyAdds:
    return MultiplyAdds(*(times * forward for times in ((3, 6, 4) if moves else (2, 2, 2))))


def _map(layer: Layer, batch: int, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The largest linear map of a layer as (rows, inputs, outputs)."""
    rows = batch * math.prod(shape[:-1])
    match layer:
        case Dense():
            return rows, layer.inputs, layer.units
        case Conv():
            return rows, 9 * layer.channels, layer.filters
        case Encoder():
            return rows, layer.width, layer.hidden
    return 1, 1, 1


def _shape_after(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    match layer:
        case Dense():
            return (*shape[:-1], layer.units)
        case Conv():
            return (*shape[:-1], layer.filters)
        case MaxPool():
            return (shape[0] // 2, shape[1] // 2, shape[2])
        case GlobalAverage():
            return shape[-1:]
    return shape

"""Count the multiply-adds of a gradient, and those of Hv and Gv that depend on v.

The unit is the number of multiply-adds of a product A·B in the forward pass. A gradient needs three
units. If both factors have tangents, Hv needs two units for the tangent of the product and four for
that of the gradient; Gv needs two and two. The inputs of the first layer have no tangent: there the
gradient needs one unit less, Hv four less and Gv two less. Elementwise operations are not counted.
Products with the zeros that pad a convolution are counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.measurements.problems import Conv, Dense, Encoder, GlobalAverage, Layer, MaxPool, Problem


@dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds for the whole batch."""

    gradient: int = 0
    hvp: int = 0
    gnvp: int = 0

    def __add__(self, other: MultiplyAdds) -> MultiplyAdds:
        return MultiplyAdds(
            self.gradient + other.gradient, self.hvp + other.hvp, self.gnvp + other.gnvp
        )


def count(problem: Problem) -> MultiplyAdds:
    """The multiply-adds of one gradient, one Hv and one Gv."""
    total, shape, has_tangent = MultiplyAdds(), problem.shape, False
    for layer in problem.layers:
        total += _layer(layer, problem.batch, shape, has_tangent)
        has_tangent = has_tangent or isinstance(layer, Dense | Conv | Encoder)
        shape = _shape_after(layer, shape)
    return total


def matrix_products(problem: Problem) -> list[tuple[int, int, int]]:
    """Shapes (rows, inner, columns) of the three matrix products of the largest layer."""
    largest, shape = (1, 1, 1), problem.shape
    for layer in problem.layers:
        candidate = _largest_product(layer, problem.batch, shape)
        largest = max(largest, candidate, key=math.prod)
        shape = _shape_after(layer, shape)
    rows, inner, columns = largest
    return [(rows, inner, columns), (rows, columns, inner), (inner, rows, columns)]


def _layer(layer: Layer, batch: int, shape: tuple[int, ...], has_tangent: bool) -> MultiplyAdds:
    match layer:
        case Dense() | Conv():
            return _product(math.prod(_largest_product(layer, batch, shape)), has_tangent)
        case Encoder():
            rows, length = batch * shape[0], shape[0]
            projections = 4 * rows * layer.width * layer.width
            attention = 2 * rows * length * layer.width
            dense = 2 * rows * layer.width * layer.hidden
            # The normalisation before these products has weights, so that all inputs have tangents.
            return _product(projections + attention + dense, True)
    return MultiplyAdds()


def _product(forward: int, has_tangent: bool) -> MultiplyAdds:
    return MultiplyAdds(*(times * forward for times in ((3, 6, 4) if has_tangent else (2, 2, 2))))


def _largest_product(layer: Layer, batch: int, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The largest matrix product of a layer, forward, as (rows, inputs, outputs)."""
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

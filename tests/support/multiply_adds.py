"""The multiply-adds of products, counted by hand for dense, convolutional and attention networks.

The unit is the number of multiply-adds of a product A·B in the forward pass. If both factors have
tangents, Hv needs two units for the tangent of the product and four for that of the gradient; Gv
needs two and two. The inputs of the first layer have no tangent: there both need two.

The bias of a dense layer on matrices is one more row of its kernel wherever the kernel's tangent,
or its gradient alone, is a single product: in all products of the first layer, and in one of H's
and two of G's in the others.
"""

import math
from dataclasses import dataclass

from bench.measurements.problems import Conv, Dense, Encoder, GlobalAverage, MaxPool


@dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds of one Hv and of one Gv, for the whole batch."""

    hvp: int = 0
    gnvp: int = 0

    def __add__(self, other):
        return MultiplyAdds(self.hvp + other.hvp, self.gnvp + other.gnvp)


def by_hand(problem, *, biases=True):
    """What depends on the vector; without `biases` as rows of kernels, as NumPy does it."""
    total, shape, has_tangent = MultiplyAdds(), problem.shape, False
    for layer in problem.layers:
        total += _layer(layer, problem.batch, shape, has_tangent, biases)
        has_tangent = has_tangent or isinstance(layer, Dense | Conv | Encoder)
        shape = _shape_after(layer, shape)
    return total


def _layer(layer, batch, shape, has_tangent, biases):
    rows = batch * math.prod(shape[:-1])
    match layer:
        case Conv():
            return _product(rows * 9 * layer.channels * layer.filters, has_tangent)
        case Dense():
            entries = rows * layer.units if biases and len(shape) == 1 else 0
            joined = MultiplyAdds(entries, 2 * entries)
            if not has_tangent:
                joined = MultiplyAdds(2 * entries, 2 * entries)
            return _product(rows * layer.inputs * layer.units, has_tangent) + joined
        case Encoder():
            projections = 4 * rows * layer.width * layer.width
            attention = 2 * rows * shape[0] * layer.width
            dense = 2 * rows * layer.width * layer.hidden
            # The normalisation before these products has weights, so that all inputs have tangents.
            return _product(projections + attention + dense, True)
    return MultiplyAdds()


def _product(forward, has_tangent):
    return MultiplyAdds(*(times * forward for times in ((6, 4) if has_tangent else (2, 2))))


def _shape_after(layer, shape):
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

"""Other points of a loss: from vectors, lists of arrays, models and their files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.errors import InputError
from hvp.linearization import transfer
from hvp.objective.objective import Objective, Point
from hvp.objective.parameters import Layout


def point_of(
    source: Any, objective: Objective, every: Layout, here: Point, chosen: Sequence[int]
) -> Point:
    """The point that `source` holds: see `Linearization.at`.

    A vector and a list of arrays are the `chosen` parameters; the others and the state are those of
    the point `here`. `every` is the layout of all parameters. Raises InputError for what is no
    point of this loss.
    """
    names, layout = every.names, every.restrict(chosen)
    if isinstance(source, list | tuple) and _are_arrays(source, layout):
        arrays = _checked(source, layout)
    elif hasattr(source, "shape") or isinstance(source, list | tuple):
        vector = transfer.check_vector(source, layout.size, layout.dtype)
        parts = zip(layout.slices, layout.shapes, strict=True)
        arrays = [vector[part].reshape(shape) for part, shape in parts]
    else:
        point = objective.point(source)
        places = [*names, *[""] * len(point.state)]
        _require_finite([*point.values, *point.state], places)
        return point
    _require_finite(arrays, layout.names)
    values = list(here.values)
    for position, array in zip(chosen, arrays, strict=True):
        values[position] = tf.constant(array)
    return Point(values, list(here.state))


def _are_arrays(source: Sequence[Any], layout: Layout) -> bool:
    """Whether a list holds arrays, and is not a vector of numbers."""
    return layout.size != len(source) or any(np.ndim(each) for each in source)


def _checked(source: Sequence[Any], layout: Layout) -> list[np.ndarray]:
    """The arrays, one for each parameter. Raises InputError for others."""
    shapes = [np.shape(each) for each in source]
    if shapes == list(layout.shapes):
        return [
            transfer.check_array(np.reshape(each, -1), size, layout.dtype).reshape(shape)
            for each, size, shape in zip(source, layout.sizes, layout.shapes, strict=True)
        ]
    if len(shapes) != len(layout.shapes):
        expected = f"a vector of {layout.size:,} numbers, or {len(layout.names)} arrays"
        raise InputError(expected, f"a list of {len(shapes)}", "give one for each parameter")
    wrong = next(i for i, shape in enumerate(shapes) if shape != layout.shapes[i])
    expected = f"shape {layout.shapes[wrong]} for {layout.names[wrong]}"
    raise InputError(expected, shapes[wrong], "give the parameters in the order of lin.names")


def _require_finite(values: Sequence[Any], names: Sequence[str]) -> None:
    for name, value in zip(names, values, strict=True):
        if not transfer.is_finite(np.asarray(value)):
            where = f" in {name}" if name else " in what is not trained"
            raise InputError(
                "finite parameters", f"NaN or infinity{where}", "check where they come from"
            )

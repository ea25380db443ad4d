"""Whole numbers that are constants: what operations make of constants, and of known shapes.

Axes, permutations and conditions that are computed from ranks are among them; the shapes of what
follows depend on them, and TensorFlow knows them of constants alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from hvp.autodiff.program import Node, Program
from hvp.autodiff.replay import apply

# More entries are left to be computed where they are used.
MAX_ENTRIES = 64
OF_SHAPES: dict[str, Callable[[list[int]], object]] = {
    "Rank": len,
    "Shape": list,
    "Size": math.prod,
}


def of_shape(node: Node, specs: Mapping[int, tf.TensorSpec]) -> list[np.ndarray] | None:
    """The result of an operation that depends on a known shape alone, None for all others."""
    if node.op.type not in OF_SHAPES:
        return None
    shape, spec = specs[node.inputs[0]].shape, specs[node.outputs[0]]
    if not shape.is_fully_defined() or not _is_few(spec):
        return None
    number = OF_SHAPES[node.op.type](shape.as_list())
    return [np.array(number, spec.dtype.as_numpy_dtype)]


def of_constants(node: Node, program: Program) -> list[np.ndarray] | None:
    """The results of an operation on constants, None where they are not a few whole numbers."""
    if not all(_is_few(program.specs[n]) for n in node.outputs):
        return None
    literals, specs = program.literals, program.specs
    with tf.init_scope():
        if all(n in literals for n in node.inputs):
            results = apply(node, [tf.constant(literals[n], specs[n].dtype) for n in node.inputs])
        else:
            results = program.part((), list(node.outputs)).replay()
        arrays = [tensor.numpy() for tensor in results]
    return arrays if all(array.size <= MAX_ENTRIES for array in arrays) else None


def chosen_branch(is_switch: bool, choice: np.ndarray, count: int) -> int:
    """The position of the branch that a constant chooses of `count`."""
    if not is_switch:
        return 0 if choice else 1
    return int(choice) if 0 <= choice < count else count - 1


def _is_few(spec: tf.TensorSpec) -> bool:
    is_whole = spec.dtype.is_integer or spec.dtype.is_bool
    return is_whole and (spec.shape.num_elements() or 0) <= MAX_ENTRIES

"""A program in another precision than the one it was traced in, whatever casts it contains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
import tensorflow as tf

from hvp.autodiff.program import Program, is_uniform, uniform
from hvp.autodiff.replay import promoted

T = TypeVar("T")
EPSILON = {
    tf.bfloat16: 2.0**-7,
    tf.float16: 2.0**-10,
    tf.float32: 2.0**-23,
    tf.float64: 2.0**-52,
}


def promote(program: Program, dtype: tf.DType) -> Program:
    """The program with all its floating-point values, inputs included, in `dtype`.

    Constants keep the values that they were rounded to in the trace, and random numbers are those
    of the traced program.
    """
    nodes = tuple(
        replace(node, dtype=dtype, bodies=tuple(promote(body, dtype) for body in node.bodies))
        for node in program.nodes
    )
    return replace(
        program,
        nodes=nodes,
        captures=_mapped(program.captures, lambda t: cast(t, dtype)),
        literals=_mapped(program.literals, lambda a: _array(a, dtype)),
        specs=_mapped(program.specs, lambda s: _spec(s, dtype)),
    )


def cast(tensor: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The tensor in this precision, if it holds floating-point or complex numbers."""
    target = promoted(tensor.dtype, dtype)
    return tensor if tensor.dtype == target else tf.cast(tensor, target)


def _mapped(values: Mapping[int, T], function: Callable[[T], T]) -> dict[int, T]:
    return {number: function(value) for number, value in values.items()}


def _array(literal: np.ndarray, dtype: tf.DType) -> np.ndarray:
    if literal.dtype == object:
        return literal
    target = promoted(tf.as_dtype(literal.dtype), dtype).as_numpy_dtype
    if is_uniform(literal):
        return uniform(target(literal.flat[0]), literal.shape)
    return literal.astype(target, copy=False)


def _spec(spec: tf.TensorSpec, dtype: tf.DType) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, promoted(spec.dtype, dtype))

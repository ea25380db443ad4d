"""A program in another precision than it was traced in, whatever casts it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff.program import Program, is_uniform, uniform
from hvp.autodiff.replay import promoted


def promote(program: Program, dtype: tf.DType) -> Program:
    """The program with all its floating-point values in `dtype`, its inputs among them.

    Constants keep the values they were rounded to; random numbers are those of the program.
    """
    nodes = tuple(
        replace(node, dtype=dtype, bodies=tuple(promote(body, dtype) for body in node.bodies))
        for node in program.nodes
    )
    return replace(
        program,
        nodes=nodes,
        captures=_map(program.captures, lambda t: cast(t, dtype)),
        literals=_map(program.literals, lambda a: _array(a, dtype)),
        specs=_map(program.specs, lambda s: _spec(s, dtype)),
    )


def cast(tensor: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The tensor in this precision, if it holds floating-point or complex numbers."""
    kind = promoted(tensor.dtype, dtype)
    return tensor if tensor.dtype == kind else tf.cast(tensor, kind)


def _map(values: Mapping[int, Any], function: Any) -> dict[int, Any]:
    return {number: function(value) for number, value in values.items()}


def _array(literal: np.ndarray, dtype: tf.DType) -> np.ndarray:
    if literal.dtype == object:
        return literal
    kind = promoted(tf.as_dtype(literal.dtype), dtype).as_numpy_dtype
    if is_uniform(literal):
        return uniform(kind(literal.flat[0]), literal.shape)
    return literal.astype(kind, copy=False)


def _spec(spec: tf.TensorSpec, dtype: tf.DType) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, promoted(spec.dtype, dtype))

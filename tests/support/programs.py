"""Small programs that know no model and no loss: a table of them, and random ones."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from hypothesis import Phase, settings
from hypothesis import strategies as st

from hvp.autodiff.program import Program, leaves
from hvp.autodiff.tracing import trace

Function = Callable[[tf.Tensor], tf.Tensor]
SHAPE = (2, 3)
HEAVY = {"BatchMatMulV2", "Conv2D", "Conv2DBackpropFilter", "Conv2DBackpropInput", "MatMul"}
few = settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate])


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers of their own for each shape."""
    seed += zlib.crc32(repr(shape).encode())
    return np.random.default_rng(seed).standard_normal(shape)


def spec(*shape: int) -> tf.TensorSpec:
    return tf.TensorSpec(shape, tf.float64)


def types(program: Program) -> list[str]:
    return [node.op.type for node in program.nodes]


def heavy(program: Program) -> int:
    return sum(kind in HEAVY for kind in types(program))


def reached(program: Program, count: int = 1) -> set[int]:
    """The values that depend on the first inputs."""
    found = set(program.inputs[:count])
    for node in program.nodes:
        if found & set(node.inputs):
            found.update(node.outputs)
    return found


def run(program: Program, *inputs: np.ndarray) -> list[np.ndarray]:
    """The outputs of an eager replay."""
    results = program.replay(*map(tf.constant, inputs))
    return [tensor.numpy() for tensor in leaves(results)]


def tangent(function: Function) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The product (v, x) -> f'(x)v in forward mode."""

    def product(v: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        with tf.autodiff.ForwardAccumulator(x, v) as forward:
            y = function(x)
        return forward.jvp(y, unconnected_gradients="zero")

    return product


def curvature(function: Function) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The product (v, x) -> ∇²(Σ sin f)(x) v, forward over reverse."""

    def slope(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(tf.sin(function(x)))
        return tape.gradient(value, x, unconnected_gradients="zero")

    return tangent(slope)


def traced(function: Function, shape: Sequence[int] = SHAPE) -> Program:
    """The program of the product f'(x)v with the inputs v and x."""
    return trace(tangent(function), spec(*shape), spec(*shape))


# --- random programs: each step makes a value of any shape from two made before ---


def fitted(b: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Entries of b in another shape, repeated and cut."""
    size, flat = int(np.prod(shape)), tf.reshape(b, [-1])
    repeats = -(-size // int(flat.shape[0]))
    return tf.reshape(tf.tile(flat, [repeats])[:size], shape)


def matrix(a: tf.Tensor) -> tf.Tensor:
    return tf.reshape(a, [-1, int(a.shape[-1])])


def image(a: tf.Tensor) -> tf.Tensor:
    return fitted(a, [1, 4, 4, 2])


def stable_max_pool(a: tf.Tensor) -> tf.Tensor:
    return tf.nn.max_pool2d(image(a) + np.linspace(0, 9, 32).reshape(1, 4, 4, 2), 2, 2, "VALID")


STEPS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "sin": lambda a, b: tf.sin(a),
    "tanh": lambda a, b: tf.tanh(a),
    "mul": lambda a, b: a * fitted(b, a.shape),
    "broadcast": lambda a, b: a * fitted(b, [*a.shape[:-1], 1]) - fitted(b, a.shape[-1:]),
    "matmul": lambda a, b: tf.matmul(matrix(a), fitted(b, [3, int(a.shape[-1])]), transpose_b=True),
    "batched": lambda a, b: tf.matmul(fitted(a, [2, 2, 3]), fitted(b, [2, 3, 2])),
    "reshape": lambda a, b: tf.reshape(a, [-1, 1]),
    "concat": lambda a, b: tf.concat([a, fitted(b, a.shape)], axis=-1),
    "slice": lambda a, b: a[..., : max(int(a.shape[-1]) // 2, 1)] + a[..., -1:],
    "reduce": lambda a, b: tf.reduce_sum(a, axis=-1, keepdims=True) / 2,
    "mean": lambda a, b: a - tf.reduce_mean(a, axis=0),
    "transpose": lambda a, b: tf.transpose(a),
    "where": lambda a, b: tf.where(a > 0, a, fitted(b, a.shape)),
    "conv": lambda a, b: tf.nn.conv2d(image(a), fitted(b, [2, 2, 2, 3]), 1, "SAME"),
    "average": lambda a, b: tf.nn.avg_pool2d(image(a), 2, 2, "VALID"),
    "maximum": lambda a, b: stable_max_pool(a),
    "stack": lambda a, b: tf.stack([a, a * a], axis=0) if a.shape.rank < 4 else -a,
}

seeds = st.integers(0, 2**31)
recipes = st.lists(
    st.tuples(st.sampled_from(list(STEPS)), st.integers(0, 9), st.integers(0, 9)),
    min_size=2,
    max_size=6,
)


def cooked(recipe: Sequence[tuple[str, int, int]]) -> Function:
    """A function by its steps; a scaled sum of all it makes, so that no step is dead."""

    def function(x: tf.Tensor) -> tf.Tensor:
        values = [x]
        for name, first, second in recipe:
            a, b = values[-1 - first % len(values)], values[second % len(values)]
            made = STEPS[name](a, b)
            if int(np.prod(made.shape)) > 200:
                made = tf.reduce_mean(made, axis=0, keepdims=True)
            values.append(tf.sin(made) if name in ("conv", "matmul", "batched") else made)
        return tf.concat([tf.reshape(value, [-1]) for value in values[1:]], axis=0)

    return function

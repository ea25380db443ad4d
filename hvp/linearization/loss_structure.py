"""Properties of a loss as a function of the outputs, found by numerical tests at the outputs.

There are two tests: is the loss convex, and does each loss value depend on its own output alone?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from hvp.autodiff import curvature, tensorflow_private
from hvp.autodiff.curvature import Tensors
from hvp.linearization.batch_programs import OutputSplit
from hvp.objective.objective import Target

# How many random directions the test of convexity uses.
NUM_DIRECTIONS = 8
# The scale of the curvature is also taken at the outputs times this fraction.
OUTPUT_FRACTION = 1 / 8


def convexity_test(
    network: OutputSplit, values: Tensors, batch: Tensors
) -> Callable[[Tensors, Tensors], bool]:
    """The test of convexity for parameters and batches of these shapes, compiled.

    It says whether uᵀΛu ≥ 0 for each example along random directions u of the outputs. Λ is the
    Hessian of the loss in the outputs. A loss with negative curvature along few directions may
    pass. uᵀΛu is relative to the larger ‖u‖‖Λu‖ of two points, the outputs and a fraction of them:
    Λ may vanish up to rounding, as it does for a softmax with a probability near 1.
    """
    count = len(values)

    def curved(z: Tensors, u: Tensors, batch: Tensors) -> Tensors:
        return curvature.reverse_over_reverse(
            lambda z: tf.add_n(network.loss_of.replay(*z, *batch)), z, u
        )

    def lowest(seed: tf.Tensor, *inputs: tf.Tensor) -> tf.Tensor:
        z, batch = network.outputs.replay(*inputs), inputs[count:]
        u = [
            tf.cast(tf.random.stateless_normal(t.shape, seed + i), t.dtype) for i, t in enumerate(z)
        ]
        nearer = curved([tf.cast(OUTPUT_FRACTION, t.dtype) * t for t in z], u, batch)
        forms = [_form(*three) for three in zip(u, curved(z, u, batch), nearer, strict=True)]
        return tf.reduce_min(tf.concat(forms, axis=0))

    specs = [tf.TensorSpec([2], tf.int32), *_specs(values), *_specs(batch)]
    run = tensorflow_private.compiled(lowest, specs)

    def is_convex(values: Tensors, batch: Tensors) -> bool:
        seeds = [tf.constant([seed, 0]) for seed in range(NUM_DIRECTIONS)]
        lowest_forms = [float(run([seed, *values, *batch])[0]) for seed in seeds]
        return min(lowest_forms) >= -_tolerance(values)

    return is_convex


def has_scores(
    network: OutputSplit, targets: Sequence[Target], values: Tensors, batch: Tensors
) -> bool:
    """Whether each loss value ℓᵢ depends only on its own part of an output.

    This holds if and only if, for random signs sᵢ, part i of ∇ Σ sᵢℓᵢ is sᵢ times part i of ∇ Σ ℓᵢ.
    """
    likelihood = network.likelihood
    if likelihood is None:
        return False
    z_shapes = [network.shapes[target.output] for target in targets]
    value_shapes = [tuple(likelihood.specs[n].shape) for n in likelihood.outputs.values]
    if not all(map(_is_part, value_shapes, z_shapes)):
        return False

    def error(*params: tf.Tensor) -> tf.Tensor:
        z = network.outputs.replay(*params, *batch)
        found = []
        for i, target in enumerate(targets):
            shape = [*value_shapes[i], *[1] * (len(z_shapes[i]) - len(value_shapes[i]))]
            noise = tf.random.stateless_normal(value_shapes[i], [1, i])

            def slope(weights: tf.Tensor, i: int = i, at: int = target.output) -> tf.Tensor:
                def total(z: Tensors) -> tf.Tensor:
                    each = likelihood.replay(*z, *batch).values[i]
                    return tf.reduce_sum(tf.cast(weights, each.dtype) * each)

                return curvature.gradient(total, z)[at]

            plain, signed = slope(tf.ones_like(noise)), slope(tf.sign(noise))
            expected = plain * tf.cast(tf.reshape(tf.sign(noise), shape), plain.dtype)
            size = tf.maximum(tf.norm(plain), np.finfo(np.float32).tiny)
            found.append(tf.cast(tf.norm(signed - expected) / size, tf.float64))
        return tf.reduce_max(found)

    (found,) = tensorflow_private.compiled(error, _specs(values))(values)
    return float(found) < _tolerance(values)


def _is_part(values: tuple[int, ...], z: tuple[int, ...]) -> bool:
    """Whether each axis of the loss values is an axis of the outputs z, or has length 1."""
    return len(values) <= len(z) and all(a in (1, b) for a, b in zip(values, z, strict=False))


def _form(u: tf.Tensor, curved: tf.Tensor, nearer: tf.Tensor) -> tf.Tensor:
    """uᵀΛu of each example over the larger ‖u‖‖Λu‖ of two points, as a flat vector."""
    axes = list(range(1, u.shape.rank))
    inner = tf.reduce_sum(u * curved, axes)
    squares = [tf.reduce_sum(Lu**2, axes) for Lu in (curved, nearer)]
    squares[1] = tf.where(tf.math.is_finite(squares[1]), squares[1], 0)
    size = tf.sqrt(tf.reduce_sum(u**2, axes) * tf.maximum(*squares))
    return tf.reshape(tf.cast(tf.math.divide_no_nan(inner, size), tf.float64), [-1])


def _specs(tensors: Tensors) -> list[tf.TensorSpec]:
    return [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]


def _tolerance(values: Tensors) -> float:
    return float(np.sqrt(np.finfo(values[0].dtype.as_numpy_dtype).eps))

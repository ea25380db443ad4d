"""What a loss is like around its outputs, seen by trying: convex, and made of separate values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from hvp.autodiff import curvature, tensorflow_private
from hvp.autodiff.curvature import Tensors
from hvp.linearization.batch_programs import OutputSplit
from hvp.objective.objective import Target

# Along which the loss is probed for convexity.
DIRECTIONS = 8
# Of outputs, at which a loss that is flat where they are is not.
FRACTION = 1 / 8


def is_convex(network: OutputSplit, values: Tensors, batch: Tensors) -> bool:
    """Whether uᵀΛu ≥ 0 for each example along random directions u of the outputs.

    `values` are the parameters. Curvature that is negative along few directions may be missed.
    Where curvature has died out, as that of a softmax which is certain, rounding is no sign of it:
    forms are held against the curvature at a fraction of the outputs too.
    """

    def curved(z: Tensors, u: Tensors) -> Tensors:
        return curvature.reverse_over_reverse(
            lambda z: tf.add_n(network.loss_of.replay(*z, *batch)), z, u
        )

    def lowest(seed: tf.Tensor, *params: tf.Tensor) -> tf.Tensor:
        z = network.outputs.replay(*params, *batch)
        u = [
            tf.cast(tf.random.stateless_normal(t.shape, seed + i), t.dtype) for i, t in enumerate(z)
        ]
        nearer = curved([tf.cast(FRACTION, t.dtype) * t for t in z], u)
        forms = [_form(*three) for three in zip(u, curved(z, u), nearer, strict=True)]
        return tf.reduce_min(tf.concat(forms, axis=0))

    run = tensorflow_private.compiled(lowest, [tf.TensorSpec([2], tf.int32), *_specs(values)])
    found = [float(run([tf.constant([seed, 0]), *values])[0]) for seed in range(DIRECTIONS)]
    return min(found) >= -_tolerance(values)


def has_scores(
    network: OutputSplit, targets: Sequence[Target], values: Tensors, batch: Tensors
) -> bool:
    """Whether each loss value depends on its own part of an output alone.

    Then, and only then, signs sᵢ given to the values ℓᵢ are those of the parts of ∇ Σ sᵢ ℓᵢ.
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
    """Whether loss values of this shape share their axes with outputs, or have them summed up."""
    return len(values) <= len(z) and all(a in (1, b) for a, b in zip(values, z, strict=False))


def _form(u: tf.Tensor, curved: tf.Tensor, nearer: tf.Tensor) -> tf.Tensor:
    """uᵀΛu by example, relative to ‖u‖‖Λu‖, with Λ where it is larger of two points."""
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

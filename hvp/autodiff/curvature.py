"""The mathematics of the products, as functions of lists of tensors.

``loss`` maps the parameters to a scalar, ``outputs`` maps them to the tensors z, and ``loss_of``
maps z to the scalar. A derivative that TensorFlow gives as None counts as zero; that it is zero the
caller has proved before (`hvp.autodiff.differentiability`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from hvp.autodiff import forward_mode

Tensors = Sequence[tf.Tensor]
Loss = Callable[[Tensors], tf.Tensor]
Outputs = Callable[[Tensors], list[tf.Tensor]]


def gradient(loss: Loss, params: Tensors) -> list[tf.Tensor]:
    """∇L."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(params)
        value = loss(params)
    return _dense(tape.gradient(value, params, unconnected_gradients="zero"))


def forward_over_reverse(loss: Loss, params: Tensors, tangents: Tensors) -> list[tf.Tensor]:
    """Hv = d/dε ∇L(w + εv) at ε = 0, the tangent of the gradient (Pearlmutter 1994)."""
    _, pushed = jvp(lambda params: gradient(loss, params), params, tangents)
    return pushed


def reverse_over_reverse(loss: Loss, params: Tensors, tangents: Tensors) -> list[tf.Tensor]:
    """Hv = ∇(∇L · v), the gradient of the slope along v."""

    def slope(params: Tensors) -> tf.Tensor:
        return _dot(gradient(loss, params), tangents)

    return gradient(slope, params)


def jvp(
    outputs: Outputs, params: Tensors, tangents: Tensors
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The outputs z and Jv by forward mode, in a graph that is being traced."""
    params = [tf.identity(param) for param in params]
    z = outputs(params)
    pushed = forward_mode.push(z, params, tangents)
    return z, [tf.zeros_like(y) if t is None else t for y, t in zip(z, pushed, strict=True)]


def jvp_by_reverse(
    outputs: Outputs, params: Tensors, tangents: Tensors
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The outputs z and Jv by reverse mode, twice: Jv is the gradient of uᵀJv in u."""
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(params)
            z = outputs(params)
        # Any u serves but zeros: TensorFlow would leave out the terms that they multiply.
        u = [tf.ones_like(t) for t in z]
        outer.watch(u)
        grads = inner.gradient(z, params, output_gradients=u, unconnected_gradients="zero")
        grads = _dense(grads)
    return z, outer.gradient(grads, u, output_gradients=tangents, unconnected_gradients="zero")


def vjp(outputs: Outputs, params: Tensors, cotangents: Tensors) -> list[tf.Tensor]:
    """Jᵀu."""
    return gradient(lambda params: _dot(outputs(params), cotangents), params)


class Mode(NamedTuple):
    """How products with a Hessian, and with a Jacobian, are computed."""

    hessian: Callable[[Loss, Tensors, Tensors], list[tf.Tensor]]
    jvp: Callable[[Outputs, Tensors, Tensors], tuple[list[tf.Tensor], list[tf.Tensor]]]


FORWARD_MODE = Mode(forward_over_reverse, jvp)
# Reverse mode alone, for programs with loops, which forward mode refuses.
REVERSE_MODE = Mode(reverse_over_reverse, jvp_by_reverse)


def gauss_newton(
    outputs: Outputs,
    loss_of: Loss,
    params: Tensors,
    tangents: Tensors,
    mode: Mode = FORWARD_MODE,
) -> list[tf.Tensor]:
    """Gv = Jᵀ ∇²ℓ(z) Jv, from right to left."""
    return sandwich(outputs, lambda z, jv: mode.hessian(loss_of, z, jv), params, tangents, mode)


def sandwich(
    outputs: Outputs,
    curve: Callable[[Tensors, Tensors], list[tf.Tensor]],
    params: Tensors,
    tangents: Tensors,
    mode: Mode,
) -> list[tf.Tensor]:
    """JᵀCJv with ``curve(z, u) = Cu``; the outputs are computed once."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(params)
        z, jv = mode.jvp(outputs, params, tangents)
    curved = curve(z, jv)
    return _dense(tape.gradient(z, params, output_gradients=curved, unconnected_gradients="zero"))


def outer(scores: tf.Tensor, factors: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """Σᵢ fᵢ gᵢ gᵢᵀu, where i runs over the loss values: the mean over S samples of the scores gᵢ.

    `u` has the shape of one output z. `scores` (S, *z.shape) holds S samples of the derivatives of
    the loss values in z. `factors` has the shape of the loss values: an axis of z that it lacks, or
    in which it has length one, belongs to a single loss value.
    """
    shape = [*factors.shape, *[1] * (u.shape.rank - factors.shape.rank)]
    axes = [axis for axis, length in enumerate(shape) if length == 1]
    inner = tf.reduce_sum(scores * u, [axis + 1 for axis in axes], keepdims=True)
    factors = tf.reshape(factors, shape)
    return factors * tf.reduce_mean(scores * inner, axis=0)


def residual(
    outputs: Outputs,
    loss_of: Loss,
    params: Tensors,
    tangents: Tensors,
    mode: Mode = FORWARD_MODE,
) -> list[tf.Tensor]:
    """Rv = d/dε J(w + εv)ᵀ∇ℓ at ε = 0 with ∇ℓ fixed: the second derivatives of the outputs alone.

    It is not computed as Hv - Gv, so that it has no rounding errors of two large products: where R
    is zero, the result is zero.
    """

    def linear_loss(params: Tensors) -> tf.Tensor:
        z = outputs(params)
        return _dot(z, [tf.stop_gradient(slope) for slope in gradient(loss_of, z)])

    return mode.hessian(linear_loss, params, tangents)


def _dot(first: Tensors, second: Tensors) -> tf.Tensor:
    """Σ aᵀb over the pairs of tensors, in the precision of `second`."""
    return tf.add_n(
        [tf.reduce_sum(tf.cast(a, b.dtype) * b) for a, b in zip(first, second, strict=True)]
    )


def _dense(grads: Sequence[tf.Tensor | tf.IndexedSlices]) -> list[tf.Tensor]:
    """The gradients as tensors; of a table of which rows were read TensorFlow gives the rows."""
    return [tf.convert_to_tensor(grad) for grad in grads]

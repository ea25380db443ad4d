"""The mathematics of the products: a few lines each, over plain functions of lists of tensors.

``loss`` maps the parameters to a scalar, ``outputs`` maps them to the tensors z, and ``loss_of``
maps these to the scalar. A path that does not exist counts as zero: the caller has proved
beforehand (`hvp.audit`) that a missing derivative is a zero one.
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
    """Hv = d/dε ∇L(w + εv), the tangent of the gradient (Pearlmutter 1994)."""
    _, pushed = jvp(lambda params: gradient(loss, params), params, tangents)
    return pushed


def reverse_over_reverse(loss: Loss, params: Tensors, tangents: Tensors) -> list[tf.Tensor]:
    """Hv = ∇(∇L · v)."""

    def slope(params: Tensors) -> tf.Tensor:
        return _dot(gradient(loss, params), tangents)

    return gradient(slope, params)


def jvp(
    outputs: Outputs, params: Tensors, tangents: Tensors
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The outputs z and Jv, in a graph that is being traced."""
    params = [tf.identity(param) for param in params]
    z = outputs(params)
    pushed = forward_mode.push(z, params, tangents)
    return z, [tf.zeros_like(y) if t is None else t for y, t in zip(z, pushed, strict=True)]


def jvp_by_reverse(
    outputs: Outputs, params: Tensors, tangents: Tensors
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The outputs z and Jv, the derivative of uᵀJv in u."""
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(params)
            z = outputs(params)
        # Not zeros, for which TensorFlow leaves out what is multiplied with them.
        u = [tf.ones_like(t) for t in z]
        outer.watch(u)
        grads = inner.gradient(z, params, output_gradients=u, unconnected_gradients="zero")
        grads = _dense(grads)
    return z, outer.gradient(grads, u, output_gradients=tangents, unconnected_gradients="zero")


def vjp(outputs: Outputs, params: Tensors, cotangents: Tensors) -> list[tf.Tensor]:
    """Jᵀu."""
    return gradient(lambda params: _dot(outputs(params), cotangents), params)


class Mode(NamedTuple):
    """How products with a Hessian and with a Jacobian are differentiated."""

    hessian: Callable[[Loss, Tensors, Tensors], list[tf.Tensor]]
    jvp: Callable[[Outputs, Tensors, Tensors], tuple[list[tf.Tensor], list[tf.Tensor]]]


FORWARD = Mode(forward_over_reverse, jvp)
# Forward mode cannot enter loops.
REVERSE = Mode(reverse_over_reverse, jvp_by_reverse)


def gauss_newton(
    outputs: Outputs,
    loss_of: Loss,
    params: Tensors,
    tangents: Tensors,
    mode: Mode = FORWARD,
) -> list[tf.Tensor]:
    """Gv by the chain Jv -> ∇²ℓ·(Jv) -> Jᵀ(·)."""
    return sandwich(outputs, lambda z, jv: mode.hessian(loss_of, z, jv), params, tangents, mode)


def sandwich(
    outputs: Outputs,
    curve: Callable[[Tensors, Tensors], list[tf.Tensor]],
    params: Tensors,
    tangents: Tensors,
    mode: Mode,
) -> list[tf.Tensor]:
    """JᵀCJv with ``curve(z, u) = Cu``, in one forward and one backward pass."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(params)
        z, jv = mode.jvp(outputs, params, tangents)
    curved = curve(z, jv)
    return _dense(tape.gradient(z, params, output_gradients=curved, unconnected_gradients="zero"))


def outer(scores: tf.Tensor, factors: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """Σᵢ fᵢ gᵢ gᵢᵀu over the loss values i, a mean over draws of the gᵢ.

    `scores` (S, …) holds S draws of the derivatives in an output, `factors` has the shape of the
    loss values: the axes that these lack, or have with length one, are those of one loss value.
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
    mode: Mode = FORWARD,
) -> list[tf.Tensor]:
    """Rv = d/dε J(w + εv)ᵀ∇ℓ with ∇ℓ held fixed: the network's second derivatives alone.

    One pass, and no difference of two large products: where R is zero so is the result.
    """

    def held(params: Tensors) -> tf.Tensor:
        z = outputs(params)
        return _dot(z, [tf.stop_gradient(slope) for slope in gradient(loss_of, z)])

    return mode.hessian(held, params, tangents)


def _dot(first: Tensors, second: Tensors) -> tf.Tensor:
    """Σ aᵀb, in the precision of `second`."""
    return tf.add_n(
        [tf.reduce_sum(tf.cast(a, b.dtype) * b) for a, b in zip(first, second, strict=True)]
    )


def _dense(grads: Sequence[tf.Tensor | tf.IndexedSlices]) -> list[tf.Tensor]:
    """Where rows were looked up TensorFlow gives the rows alone."""
    return [tf.convert_to_tensor(grad) for grad in grads]

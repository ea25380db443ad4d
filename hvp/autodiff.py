"""The mathematics of the products: a few lines each, over plain functions of lists of tensors.

``loss`` maps the parameters to a scalar, ``outputs`` maps them to one tensor z, and ``loss_of``
maps z to the scalar. A path that does not exist counts as zero: the caller has proved beforehand
(`hvp.audit`) that a missing derivative is a zero one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

Tensors = Sequence[tf.Tensor]


def gradient(loss: Callable[[Tensors], tf.Tensor], params: Tensors) -> list[tf.Tensor]:
    """∇L."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(params)
        value = loss(params)
    return _dense(tape.gradient(value, params, unconnected_gradients="zero"))


def forward_over_reverse(
    loss: Callable[[Tensors], tf.Tensor], params: Tensors, tangents: Tensors
) -> list[tf.Tensor]:
    """Hv = d/dε ∇L(w + εv), the tangent of the gradient (Pearlmutter 1994)."""
    with tf.autodiff.ForwardAccumulator(params, tangents) as forward:
        grads = gradient(loss, params)
    return _dense(forward.jvp(grads, unconnected_gradients="zero"))


def reverse_over_reverse(
    loss: Callable[[Tensors], tf.Tensor], params: Tensors, tangents: Tensors
) -> list[tf.Tensor]:
    """Hv = ∇(∇L · v)."""

    def slope(params: Tensors) -> tf.Tensor:
        grads = gradient(loss, params)
        return tf.add_n([tf.reduce_sum(g * v) for g, v in zip(grads, tangents, strict=True)])

    return gradient(slope, params)


def jvp(
    outputs: Callable[[Tensors], tf.Tensor], params: Tensors, tangents: Tensors
) -> tuple[tf.Tensor, tf.Tensor]:
    """The outputs z and Jv."""
    with tf.autodiff.ForwardAccumulator(params, tangents) as forward:
        z = outputs(params)
    return z, forward.jvp(z, unconnected_gradients="zero")


def vjp(
    outputs: Callable[[Tensors], tf.Tensor], params: Tensors, cotangent: tf.Tensor
) -> list[tf.Tensor]:
    """Jᵀu."""

    def projected(params: Tensors) -> tf.Tensor:
        z = outputs(params)
        return tf.reduce_sum(z * tf.cast(cotangent, z.dtype))

    return gradient(projected, params)


def gauss_newton(
    outputs: Callable[[Tensors], tf.Tensor],
    loss_of: Callable[[tf.Tensor], tf.Tensor],
    params: Tensors,
    tangents: Tensors,
) -> list[tf.Tensor]:
    """Gv by the chain Jv -> ∇²ℓ·(Jv) -> Jᵀ(·), in one forward and one backward pass."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(params)
        z, jv = jvp(outputs, params, tangents)
    (curved,) = forward_over_reverse(lambda zs: loss_of(zs[0]), [z], [jv])
    return _dense(tape.gradient(z, params, output_gradients=curved, unconnected_gradients="zero"))


def residual(
    outputs: Callable[[Tensors], tf.Tensor],
    loss_of: Callable[[tf.Tensor], tf.Tensor],
    params: Tensors,
    tangents: Tensors,
) -> list[tf.Tensor]:
    """Rv = d/dε J(w + εv)ᵀ∇ℓ with ∇ℓ held fixed: the network's second derivatives alone.

    One pass, and no difference of two large products: where R is zero so is the result.
    """

    def held(params: Tensors) -> tf.Tensor:
        z = outputs(params)
        (slope,) = gradient(lambda zs: loss_of(zs[0]), [z])
        return tf.reduce_sum(z * tf.stop_gradient(slope))

    return forward_over_reverse(held, params, tangents)


def _dense(grads: Sequence[tf.Tensor | tf.IndexedSlices]) -> list[tf.Tensor]:
    """Where rows were looked up TensorFlow gives the rows alone."""
    return [tf.convert_to_tensor(grad) for grad in grads]

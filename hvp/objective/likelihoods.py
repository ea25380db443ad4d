"""Losses as negative log-likelihoods: the distribution of the targets given the outputs.

The cross-entropies belong to the categorical and the Bernoulli distribution, the mean squared error
to the Gaussian. Each of these losses is affine in the target, or its Hessian does not depend on the
target. So the Fisher matrix E_y ∇²ℓ(z, y) is the Hessian at the expected target (Martens 2020, §5).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

CATEGORICAL, BERNOULLI, GAUSSIAN = "categorical", "Bernoulli", "Gaussian"
DISTRIBUTIONS = {
    "sparse_categorical_crossentropy": CATEGORICAL,
    "categorical_crossentropy": CATEGORICAL,
    "binary_crossentropy": BERNOULLI,
    "mean_squared_error": GAUSSIAN,
}
# The final operation whose input Keras takes as logits.
FINAL_OPERATIONS: dict[str | None, tuple[str, ...]] = {
    CATEGORICAL: ("Softmax",),
    BERNOULLI: ("Sigmoid",),
}


def distribution(loss: keras.Loss) -> str | None:
    """The distribution of the targets that a loss belongs to; None where it is not known."""
    if type(loss).call is not keras.losses.MeanSquaredError.call:
        return None
    kinds = {getattr(keras.losses, name): kind for name, kind in DISTRIBUTIONS.items()}
    function = getattr(loss, "fn", None)
    known = [kind for each, kind in kinds.items() if each is function]
    if not known:
        return None
    options = loss.get_config()
    # A loss that smooths its targets is not a likelihood of them.
    if options.get("label_smoothing") or options.get("axis", -1) != -1:
        return None
    return known[0]


def mean(loss: keras.Loss, z: tf.Tensor) -> tf.Tensor:
    """The expected target, of the shape of the outputs z."""
    kind, is_logits = distribution(loss), _is_of_logits(loss)
    operations = FINAL_OPERATIONS.get(kind, ()) if is_logits else ()
    logits = None if kind == GAUSSIAN else logits_before(z, operations)
    if logits is not None:
        z, is_logits = logits, True
    if kind == CATEGORICAL:
        return tf.nn.softmax(z) if is_logits else z / tf.reduce_sum(z, axis=-1, keepdims=True)
    if kind == BERNOULLI:
        return tf.sigmoid(z) if is_logits else z
    return z


def logits_before(z: tf.Tensor, operations: Sequence[str]) -> tf.Tensor | None:
    """The logits that Keras computes a cross-entropy from in place of z, None for z itself.

    They are the tensor that an activation layer of Keras attached to z, or the input of the
    operation that made z if its type is one of `operations`.
    """
    attached = getattr(z, "_keras_logits", None)
    if attached is not None:
        return attached
    operation = getattr(z, "op", None)
    if operation is None or operation.type not in operations:
        return None
    return operation.inputs[0]


def expected(loss: keras.Loss, z: tf.Tensor) -> tf.Tensor:
    """The loss values at the expected target, a constant: their Hessian is the Fisher matrix."""
    kind, target = distribution(loss), tf.stop_gradient(mean(loss, z))
    if kind == CATEGORICAL:
        return keras.losses.categorical_crossentropy(target, z, from_logits=_is_of_logits(loss))
    if kind == BERNOULLI:
        return keras.losses.binary_crossentropy(target, z, from_logits=_is_of_logits(loss))
    return keras.losses.mean_squared_error(target, z)


def sample(kind: str | None, mean: tf.Tensor, target: tf.TensorSpec, seed: tf.Tensor) -> tf.Tensor:
    """A random target with this mean, in the shape and type of the targets of the data."""
    if kind == GAUSSIAN:
        drawn = mean + tf.random.stateless_normal(tf.shape(mean), seed, 0, 0.5**0.5, mean.dtype)
    else:
        uniform = tf.random.stateless_uniform(tf.shape(mean), seed, 0, 1, mean.dtype)
        if kind == BERNOULLI:
            drawn = tf.cast(uniform < mean, mean.dtype)
        else:
            # The index of the largest log p plus Gumbel noise has the distribution p.
            classes = tf.argmax(tf.math.log(mean) - tf.math.log(-tf.math.log(uniform)), axis=-1)
            is_onehot = target.shape.rank == mean.shape.rank and target.shape[-1] == mean.shape[-1]
            drawn = tf.one_hot(classes, mean.shape[-1]) if is_onehot else classes
    return tf.reshape(tf.cast(drawn, target.dtype), target.shape)


def temperature(kind: str | None, z: tf.TensorShape) -> float:
    """The factor from a loss value to a negative log-likelihood.

    It is the length of the last axis of z where Keras takes the mean over it, else 1.
    """
    return 1.0 if kind == CATEGORICAL else float(z[-1])


def _is_of_logits(loss: keras.Loss) -> bool:
    return bool(loss.get_config().get("from_logits", False))

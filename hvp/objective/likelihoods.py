"""Losses as negative log-likelihoods: what the network's outputs say about its targets.

The cross-entropies are those of a categorical and of a Bernoulli distribution, the mean of squares
that of a Gaussian. All are affine in the target or have a Hessian that does not depend on it, so
that the Fisher matrix E_y ∇²ℓ(z, y) is the Hessian at the expected target (Martens 2020, §5).
"""

from __future__ import annotations

import keras
import tensorflow as tf

CATEGORICAL, BERNOULLI, GAUSSIAN = "categorical", "Bernoulli", "Gaussian"
DISTRIBUTIONS = {
    "sparse_categorical_crossentropy": CATEGORICAL,
    "categorical_crossentropy": CATEGORICAL,
    "binary_crossentropy": BERNOULLI,
    "mean_squared_error": GAUSSIAN,
}


def distribution(loss: keras.Loss) -> str | None:
    """The distribution of the targets that a loss stands for, None where it is not known."""
    if type(loss).call is not keras.losses.MeanSquaredError.call:
        return None
    kinds = {getattr(keras.losses, name): kind for name, kind in DISTRIBUTIONS.items()}
    function = getattr(loss, "fn", None)
    known = [kind for each, kind in kinds.items() if each is function]
    if not known:
        return None
    options = loss.get_config()
    # A loss that smooths its targets is no likelihood of them.
    smoothed = options.get("label_smoothing") or options.get("axis", -1) != -1
    return None if smoothed else known[0]


def mean(loss: keras.Loss, z: tf.Tensor) -> tf.Tensor:
    """The expected target, of the shape of the outputs z."""
    kind, is_logits = distribution(loss), _is_of_logits(loss)
    if kind != GAUSSIAN and hasattr(z, "_keras_logits"):
        # Keras takes these, whichever activation they went into.
        z, is_logits = z._keras_logits, True
    if kind == CATEGORICAL:
        return tf.nn.softmax(z) if is_logits else z / tf.reduce_sum(z, axis=-1, keepdims=True)
    if kind == BERNOULLI:
        return tf.sigmoid(z) if is_logits else z
    return z


def expected(loss: keras.Loss, z: tf.Tensor) -> tf.Tensor:
    """The loss values with the expected target held fixed: their Hessian is Fisher's matrix."""
    kind, target = distribution(loss), tf.stop_gradient(mean(loss, z))
    if kind == CATEGORICAL:
        return keras.losses.categorical_crossentropy(target, z, from_logits=_is_of_logits(loss))
    if kind == BERNOULLI:
        return keras.losses.binary_crossentropy(target, z, from_logits=_is_of_logits(loss))
    return keras.losses.mean_squared_error(target, z)


def sample(kind: str | None, mean: tf.Tensor, target: tf.TensorSpec, seed: tf.Tensor) -> tf.Tensor:
    """A target drawn from the distribution with this mean, as a target of the data looks."""
    if kind == GAUSSIAN:
        drawn = mean + tf.random.stateless_normal(tf.shape(mean), seed, 0, 0.5**0.5, mean.dtype)
    else:
        uniform = tf.random.stateless_uniform(tf.shape(mean), seed, 0, 1, mean.dtype)
        if kind == BERNOULLI:
            drawn = tf.cast(uniform < mean, mean.dtype)
        else:
            # The largest of log p plus Gumbel noise is distributed as p.
            classes = tf.argmax(tf.math.log(mean) - tf.math.log(-tf.math.log(uniform)), axis=-1)
            is_onehot = target.shape.rank == mean.shape.rank and target.shape[-1] == mean.shape[-1]
            drawn = tf.one_hot(classes, mean.shape[-1]) if is_onehot else classes
    return tf.reshape(tf.cast(drawn, target.dtype), target.shape)


def temperature(kind: str | None, z: tf.TensorShape) -> float:
    """How many times a loss value the negative log-likelihood is: values are means."""
    return 1.0 if kind == CATEGORICAL else float(z[-1])


def _is_of_logits(loss: keras.Loss) -> bool:
    return bool(loss.get_config().get("from_logits", False))

"""Cross-entropies whose labels need not add up to one.

TensorFlow's gradient of `SoftmaxCrossEntropyWithLogits` is softmax(z) - y. The derivative of its
value -Σ y log softmax(z) is softmax(z)·Σy - y: it differs for several labels, weighted labels and
rows of zeros, and in the labels.
"""

from __future__ import annotations

import tensorflow as tf


def softmax_cross_entropy(
    op: tf.Operation, logits: tf.Tensor, labels: tf.Tensor
) -> list[tf.Tensor]:
    """-Σ y log softmax(z) of each row, and the gradient that TensorFlow gives beside it."""
    log_softmax = tf.nn.log_softmax(logits)
    loss = -tf.reduce_sum(tf.math.multiply_no_nan(log_softmax, labels), -1)
    return [loss, tf.exp(log_softmax) - labels]

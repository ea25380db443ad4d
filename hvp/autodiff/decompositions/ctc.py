"""Connectionist temporal classification by its forward recursion, in logarithms.

TensorFlow's kernel gives the loss and its gradient, which has no derivative. The loss is
-log Σ_paths Π_t p_t(path_t) over all paths that collapse to the labels (Graves et al. 2006, section
4.1), a smooth function of the logits: α_t(s) is the logarithm of the sum over the paths that end in
position s of the labels with blanks between them.
"""

from __future__ import annotations

import tensorflow as tf

from hvp.errors import InputError

# The logarithm of a path that does not exist: finite, so that its derivatives are zero, not NaN.
NO_PATH = -1e30


def ctc_loss(
    op: tf.Operation,
    logits: tf.Tensor,
    indices: tf.Tensor,
    values: tf.Tensor,
    lengths: tf.Tensor,
) -> list[tf.Tensor] | None:
    """The losses (N,) of logits (T, N, C), whose last class is the blank, and their gradients."""
    plain = op.get_attr("ctc_merge_repeated") and not op.get_attr("preprocess_collapse_repeated")
    if not plain or op.get_attr("ignore_longer_outputs_than_inputs"):
        raise InputError(
            "CTC that merges repeated classes, and takes the labels as they are",
            f"{op.name!r} with other options",
            "leave the options of tf.compat.v1.nn.ctc_loss at their defaults",
        )
    if not logits.shape.is_fully_defined() or None in (logits.shape[0], logits.shape[2]):
        return None
    count, blank = logits.shape[1], logits.shape[2] - 1
    given = {"labels_indices": indices, "labels_values": values, "sequence_length": lengths}
    kernel = tf.raw_ops.CTCLoss(inputs=tf.stop_gradient(logits), **given)

    sizes = tf.math.unsorted_segment_sum(tf.ones_like(values), indices[:, 0], count)
    longest = tf.cast(tf.reduce_max(tf.concat([sizes, [0]], 0)), tf.int64)
    shape = tf.stack([tf.constant(count, tf.int64), longest])
    labels = tf.scatter_nd(indices, values - blank, shape) + blank
    return [_loss(logits, labels, sizes, lengths, blank), kernel.gradient]


def dense(
    loss: tf.Tensor,
    logits: tf.Tensor,
    labels: tf.Tensor,
    sizes: tf.Tensor,
    lengths: tf.Tensor,
    *unique: tf.Tensor,
) -> tf.Tensor:
    """The losses (N,) of `tf.nn.ctc_loss` with dense labels (N, L), where class 0 is the blank."""
    if not logits.shape.is_fully_defined():
        raise InputError(
            "CTC of logits whose shape is known before it runs", str(logits.shape), "reshape them"
        )
    is_label = tf.sequence_mask(sizes, tf.shape(labels)[1])
    labels = tf.where(is_label, tf.cast(labels, tf.int32), 0)
    sizes, lengths = tf.cast(sizes, tf.int32), tf.cast(lengths, tf.int32)
    return _loss(logits, labels, sizes, lengths, blank=0)


def _loss(
    logits: tf.Tensor, labels: tf.Tensor, sizes: tf.Tensor, lengths: tf.Tensor, blank: int
) -> tf.Tensor:
    """(N,) by the recursion over the steps of logits (T, N, C), for `sizes` labels of (N, L)."""
    steps, count, _ = logits.shape
    # Labels of every example between blanks: blank, l_1, blank, l_2, …, blank.
    between = tf.fill(tf.shape(labels), blank)
    extended = tf.reshape(tf.stack([between, labels], 2), [count, -1])
    extended = tf.concat([extended, tf.fill([count, 1], blank)], 1)

    log_p = tf.gather(
        tf.transpose(tf.nn.log_softmax(logits), [1, 0, 2]),
        tf.tile(extended[:, None], [1, steps, 1]),
        batch_dims=2,
    )  # (N, T, positions)
    two_before = tf.pad(extended[:, :-2], [[0, 0], [2, 0]], constant_values=-1)
    may_skip = tf.not_equal(extended, blank) & tf.not_equal(extended, two_before)
    may_skip &= two_before >= 0
    position = tf.range(tf.shape(extended)[1])
    none = tf.constant(NO_PATH, logits.dtype)

    def shifted(a: tf.Tensor, by: int) -> tf.Tensor:
        return tf.pad(a, [[0, 0], [by, 0]], constant_values=NO_PATH)[:, : tf.shape(a)[1]]

    alpha = tf.where(position < 2, log_p[:, 0], none)
    for t in range(1, steps):
        paths = [alpha, shifted(alpha, 1), tf.where(may_skip, shifted(alpha, 2), none)]
        moved = log_sum(tf.stack(paths, -1)) + log_p[:, t]
        alpha = tf.where((t < lengths)[:, None], moved, alpha)
    last = 2 * sizes
    ends = [tf.gather(alpha, last, batch_dims=1)]
    ends.append(tf.where(sizes > 0, tf.gather(alpha, tf.maximum(last - 1, 0), batch_dims=1), none))
    return -log_sum(tf.stack(ends, -1))


def log_sum(x: tf.Tensor) -> tf.Tensor:
    """log Σ exp x over the last axis."""
    highest = tf.stop_gradient(tf.reduce_max(x, -1, keepdims=True))
    return tf.math.log(tf.reduce_sum(tf.exp(x - highest), -1)) + highest[..., 0]

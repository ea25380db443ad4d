"""The two front doors: from a Keras model, or from plain functions, to a `Linearization`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvp.errors import InputError
from hvp.linearization.cache import SavedTensorCache
from hvp.linearization.linearization import Linearization
from hvp.linearization.products import ORDERS
from hvp.linearization.snapshot import Snapshot
from hvp.objective import keras_model
from hvp.objective import objective as objectives
from hvp.objective.batches import BATCH_SIZE, as_batches
from hvp.objective.parameters import Layout


def linearize(
    model: keras.Model,
    data: Any,
    loss: Any = None,
    *,
    variables: str | Sequence[str] | None = None,
    training: bool = False,
    class_weight: Mapping[int, float] | None = None,
    dtype: str | None = None,
    batch_size: int = BATCH_SIZE,
    cache: str | int = "auto",
    ad: str = "auto",
    jit: str | bool = "auto",
) -> Linearization:
    """The loss of a Keras model on data, ready for products with its curvature.

    The objective is the one that ``model.fit`` minimises, taken over all the data at once::

        L(w) = Σ_n weight_n ℓ(z_n(w), y_n) / divisor + penalties(w)

    It is a snapshot: the model is left as it is, and what happens to it later changes nothing here.

    Args:
        model: a built Keras model; P is the size of its trainable variables.
        data: ``(x, y)`` or ``(x, y, sample_weight)`` arrays of N examples, a `tf.data.Dataset`, or
            any re-iterable of such batches. Batches may have unequal sizes.
        loss: a Keras loss, its name or a function, or one an output in a list or by name; None
            takes what the model is compiled with, its loss weights or its own `compute_loss`.
        variables: layer names, parameter names or globs; None takes all.
        class_weight: class number -> what its examples count for, as in `fit`.
        training: the mode the model is called in. Unlike `fit`, the default is inference.
        dtype: "float64" evaluates a model of lower precision in float64 from its weights to the
            loss, whatever casts it holds; None keeps the precision of the parameters.
        batch_size: arrays are cut into parts as equal as possible of at most this many examples.
        cache: bytes that may be kept between products, "auto" for a quarter of the memory that is
            free: what of a product is the same for all v is kept for as many batches as fit and
            computed anew for the others. Blocks of vectors are multiplied at once within it.
        ad: order of differentiation of Hv, "forward-over-reverse" or "reverse-over-reverse";
            "auto" takes the first, but for loops, and where TensorFlow cannot build it, the other.
        jit: True compiles with XLA, False does not. "auto" measures whether to multiply several
            vectors of a block at once, and, after 100 blocks of short products, whether XLA is
            faster for them. Either may change the last bits between runs. With `jit` given the same
            input gives the same bits.

    Raises:
        InputError: a model, loss or data that cannot be used, an operation without a second
            derivative, a loss that is not finite; the line says what and where.

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense")])
    >>> lin = linearize(model, (np.eye(2), np.ones((2, 1))), "mean_squared_error")
    >>> lin.size, lin.names
    (3, ('dense/kernel', 'dense/bias'))
    >>> lin.hvp(np.array([0.0, 0.0, 1.0])).round(4).tolist()
    [1.0, 1.0, 2.0]
    """
    if not isinstance(training, bool):
        raise InputError("training=True or False", repr(training), "choose one")
    objective = keras_model.from_model(model, loss, training=training, class_weight=class_weight)
    batches = as_batches(data, batch_size)
    return _linearization(objective, batches, variables, dtype, cache, ad, jit)


def linearize_function(
    loss: Callable[..., tf.Tensor],
    params: Any,
    data: Any = None,
    *,
    outputs: Callable[..., tf.Tensor] | None = None,
    reduction: str | None = None,
    variables: str | Sequence[str] | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    cache: str | int = "auto",
    ad: str = "auto",
    jit: str | bool = "auto",
) -> Linearization:
    """A loss written as a function, ready for products with its curvature.

    Args:
        loss: ``loss(params)``, or ``loss(params, batch)`` with data, a scalar; with `outputs` it is
            ``loss(outputs(params, batch), batch)`` and the Gauss-Newton products exist.
        params: a tensor, array or variable, or a list of them, all float32 or all float64.
        data: a tuple, dict or array of examples along the first axis, a `tf.data.Dataset`, or any
            re-iterable of batches; None for a loss of the parameters alone.
        outputs: the network, giving one tensor.
        reduction: what the loss of a batch is, "sum" or "mean" over its examples; required with
            several batches, into which arrays are cut only when it is given.
        variables, dtype, batch_size, cache, ad, jit: as for `linearize`.

    Raises:
        InputError: as for `linearize`.

    >>> import numpy as np, tensorflow as tf
    >>> A = np.array([[2.0, 1.0], [1.0, 3.0]])
    >>> def quadratic(w):
    ...     return tf.reduce_sum(w * tf.linalg.matvec(A, w)) / 2
    >>> lin = linearize_function(quadratic, np.ones(2))
    >>> lin.hvp(np.array([1.0, 0.0])).tolist()
    [2.0, 1.0]
    """
    objective = objectives.from_function(
        loss, params, outputs=outputs, reduction=reduction, has_data=data is not None
    )
    if reduction is not None and batch_size is None:
        batch_size = BATCH_SIZE
    batches = None if data is None else as_batches(data, batch_size)
    lin = _linearization(objective, batches, variables, dtype, cache, ad, jit)
    if lin.num_batches > 1 and reduction is None:
        raise InputError(
            'reduction="sum" or "mean" with several batches',
            f"{lin.num_batches} batches and no reduction",
            "say what the loss of one batch is",
        )
    return lin


def _linearization(
    objective: objectives.Objective,
    batches: Any,
    variables: str | Sequence[str] | None,
    dtype: str | None,
    cache: str | int,
    ad: str,
    jit: str | bool,
) -> Linearization:
    if not isinstance(ad, str) or ad not in ORDERS:
        raise InputError(f"ad among {', '.join(ORDERS)}", repr(ad), "choose one of these")
    if not (isinstance(jit, bool) or jit == "auto"):
        raise InputError('jit "auto", True or False', repr(jit), "choose one of these")
    if cache != "auto" and not (isinstance(cache, int) and cache >= 0):
        raise InputError('cache "auto" or a number of bytes', repr(cache), "choose one of these")
    shapes = [value.shape for value in objective.values]
    layout = Layout(objective.names, shapes, _dtype(objective, dtype))
    chosen = range(len(layout.names)) if variables is None else layout.select(variables)
    snapshot = Snapshot(objective, layout, batches, chosen, promoted=dtype is not None)
    frontiers = SavedTensorCache(
        None if cache == "auto" else int(cache), batches_in_memory=snapshot.in_memory
    )
    return Linearization(snapshot, chosen, frontiers, ad=ad, jit=jit)


def _dtype(objective: objectives.Objective, dtype: str | None) -> np.dtype:
    dtypes = sorted({value.dtype.name for value in objective.values})
    if dtype is not None and not (isinstance(dtype, str) and dtype == "float64"):
        raise InputError('dtype="float64" or None', repr(dtype), "choose one of these")
    if dtype is not None and all(value.dtype.is_floating for value in objective.values):
        return np.dtype(dtype)
    if dtypes not in (["float32"], ["float64"]):
        raise InputError(
            "parameters all float32 or all float64",
            ", ".join(dtypes),
            'cast them before, or pass dtype="float64"',
        )
    return np.dtype(dtypes[0])

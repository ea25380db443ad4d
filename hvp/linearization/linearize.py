"""`linearize` a Keras model, or `linearize_function` a loss of plain functions, at a point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvp.certificate import Certificate, certify
from hvp.errors import InputError, shown
from hvp.linearization.cache import SavedTensorCache
from hvp.linearization.linearization import Linearization
from hvp.linearization.products import ORDERS
from hvp.linearization.snapshot import Snapshot
from hvp.linearization.versions import warn_if_untested
from hvp.objective.batches import BATCH_SIZE, as_batches
from hvp.objective.functions import FunctionObjective
from hvp.objective.keras_model import KerasObjective
from hvp.objective.objective import Objective
from hvp.objective.parameters import Layout
from hvp.operators import Curvature

# An error names as many parameters of each type.
NUM_NAMED = 3


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
    verify: bool = False,
) -> Linearization:
    """The loss of a Keras model at its current weights w, for products with its curvature.

    The loss is the one that ``model.fit`` minimises, over all N examples at once::

        L(w) = Σ_n weight_n ℓ(z_n(w), y_n) / divisor + penalties(w)

    with z_n the outputs and y_n the target of example n. The divisor is the number of loss values
    or, where Keras takes it, the sum of their weights. The weights are copied: the model does not
    change, and later training does not change the result.

    Args:
        model: a built Keras model. Its trainable variables are the P parameters.
        data: ``(x, y)`` or ``(x, y, sample_weight)`` arrays of N examples, a `tf.data.Dataset`, any
            other iterable of such batches that can be read again and again, or a function that
            gives an iterator over them each time. Of these and of memory-mapped files
            (``np.load(..., mmap_mode="r")``) two batches at most are in memory, besides `cache`.
            Batches may have unequal sizes. Targets may be NaN where a loss of one's own leaves them
            out.
        loss: a Keras loss, its name or a function, or a list or dict of them, one for each output.
            None takes the loss that the model is compiled with, with its loss weights, or the
            `compute_loss` that the model overrides.
        variables: the parameters to differentiate in, as layer names, parameter names or globs; the
            others are constants. None takes all.
        training: the mode that the model is called in. The default is inference, unlike in `fit`.
            With True, random layers keep the numbers that their seeds give next. What TensorFlow
            draws anew at each call is refused; what Python draws is drawn once, when it is traced.
        class_weight: class number -> weight of its examples, as in `fit`.
        dtype: "float64" evaluates the whole loss of a model of lower precision in float64, despite
            any casts in it. None keeps the precision of the parameters.
        batch_size: the most examples a batch when arrays are cut into batches of about equal size.
        cache: the most bytes to save between products, "auto" for a quarter of the free memory. The
            part of a product that is the same for all vectors is saved for as many batches as fit,
            and computed anew for the others.
        ad: the order of differentiation of Hv, "forward-over-reverse" or "reverse-over-reverse".
            "auto" takes the first; the second for loops, and where TensorFlow cannot build the
            first.
        jit: True compiles products with XLA, False runs them as TensorFlow graphs. "auto" measures
            whether to multiply several vectors of a block at once and, after 100 blocks of short
            products, whether XLA is faster for them. Either may change the last bits between runs;
            `choices` shows what was taken. With `jit` given, the same input gives the same bits.
        verify: test Hv by differences of the gradient, the gradient by those of the loss, and vᵀGv
            by those of the outputs, in float64 where the model allows it, which takes as long as
            about twelve products. The result is in `Linearization.certificate`. A loss with a loop
            that compares numbers of the parameters, as bisection does, is tested in any case.

    Raises:
        InputError: the model, loss or data cannot be used, an operation has no second derivative,
            the loss is not finite, or `verify` found a wrong derivative. The message says what was
            expected and what to do.

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense")])
    >>> lin = linearize(model, (np.eye(2), np.ones((2, 1))), "mean_squared_error")
    >>> lin.size, lin.names
    (3, ('dense/kernel', 'dense/bias'))
    >>> lin.hvp(np.array([0.0, 0.0, 1.0])).round(4).tolist()
    [1.0, 1.0, 2.0]
    """
    warn_if_untested()
    if not isinstance(training, bool):
        raise InputError("training=True or False", shown(training), "choose one")
    if hasattr(loss, "shape"):
        raise InputError(
            "(x, y) as one tuple",
            f"a third argument that is no loss, {shown(loss)}",
            "call hvp.linearize(model, (x, y))",
        )
    objective = KerasObjective(model, loss, training=training, class_weight=class_weight)
    batches = as_batches(data, batch_size, objective.may_miss)
    return _linearization(objective, batches, variables, dtype, cache, ad, jit, verify)


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
    verify: bool = False,
) -> Linearization:
    """A loss given as a TensorFlow function, at given parameters, for products with its curvature.

    Args:
        loss: a function that returns a scalar tensor: ``loss(params)`` without data,
            ``loss(params, batch)`` with data. With `outputs` its first argument is z instead:
            ``loss(outputs(params, batch), batch)``. Only then G, R and J are defined.
        params: a tensor, array or variable, or a list of them, all float32 or all float64. They
            reach the functions in the same form.
        data: a tuple, dict or array of examples along the first axis, a `tf.data.Dataset`, any
            other iterable of batches that can be read again and again, or a function that gives an
            iterator over them each time. None for a loss of the parameters alone.
        outputs: a function of ``(params, batch)``, or of ``(params)``, that returns one tensor z.
        reduction: whether the loss of a batch is the "sum" or the "mean" over its examples.
            Required with several batches; without it arrays are not cut.
        variables, dtype, batch_size, cache, ad, jit, verify: as for `linearize`.

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
    warn_if_untested()
    objective = FunctionObjective(
        loss, params, outputs=outputs, reduction=reduction, has_data=data is not None
    )
    if reduction is not None and batch_size is None:
        batch_size = BATCH_SIZE
    batches = None if data is None else as_batches(data, batch_size, objective.may_miss)
    return _linearization(objective, batches, variables, dtype, cache, ad, jit, verify)


def _linearization(
    objective: Objective,
    batches: Any,
    variables: str | Sequence[str] | None,
    dtype: str | None,
    cache: str | int,
    ad: str,
    jit: str | bool,
    verify: bool,
) -> Linearization:
    check_options(ad, jit, cache)
    layout, chosen = layout_of(objective, variables, dtype)
    snapshot = Snapshot.trace(objective, layout, batches, chosen, promoted=dtype is not None)
    saved_tensors = SavedTensorCache(None if cache == "auto" else int(cache))
    lin = Linearization(snapshot, chosen, saved_tensors, ad=ad, jit=jit)
    loop = snapshot.traced_loss.comparing_loop(chosen)
    if verify or loop is not None:
        lin.certificate = certified(lin, None if loop is None else str(loop))
    return lin


def check_options(ad: str, jit: str | bool, cache: str | int) -> None:
    """Raise InputError for values that these options of `linearize` do not take."""
    if not isinstance(ad, str) or ad not in ORDERS:
        raise InputError(f"ad among {', '.join(ORDERS)}", shown(ad), "choose one of these")
    if not (isinstance(jit, bool) or (isinstance(jit, str) and jit == "auto")):
        raise InputError('jit "auto", True or False', shown(jit), "choose one of these")
    is_size = isinstance(cache, int) and cache >= 0
    if not (is_size or (isinstance(cache, str) and cache == "auto")):
        raise InputError('cache "auto" or a number of bytes', shown(cache), "choose one of these")


def layout_of(
    objective: Objective, variables: str | Sequence[str] | None, dtype: str | None
) -> tuple[Layout, tuple[int, ...]]:
    """The layout of all parameters, and the positions of those that `variables` name."""
    shapes = [value.shape for value in objective.values]
    given = _dtype(objective, dtype)
    layout = Layout(objective.names, shapes, given, objective.channel_axes)
    chosen = range(len(layout.names)) if variables is None else layout.select(variables)
    return layout, tuple(chosen)


def certified(lin: Curvature, loop: str | None) -> Certificate:
    """The certificate of a linearization. Raises InputError where it has failed.

    `loop` is one that may choose its result by comparisons, None without one.
    """
    certificate = certify(lin)
    if certificate.passed:
        return certificate
    failed = [check for check in certificate.checks if not check.passed]
    differences = "; ".join(" ".join(check.row) for check in failed)
    if loop is not None:
        raise InputError(
            "a loop whose derivatives are those of the loss",
            f"{loop}, which chooses by comparisons, as bisection does: {differences}",
            "take two Newton steps from its result behind tf.stop_gradient, or use functions "
            "without such loops, as tf.linalg.eigvalsh",
        )
    raise InputError(
        "derivatives that agree with differences",
        differences,
        "hvp.testing.check says which product is wrong, and verify=False leaves this test out",
    )


def _dtype(objective: Objective, dtype: str | None) -> np.dtype:
    if dtype is not None and not (isinstance(dtype, str) and dtype == "float64"):
        raise InputError('dtype="float64" or None', shown(dtype), "choose one of these")
    if dtype is not None and all(value.dtype.is_floating for value in objective.values):
        return np.dtype(dtype)
    names: dict[str, list[str]] = {}
    for name, value in zip(objective.names, objective.values, strict=True):
        names.setdefault(value.dtype.name, []).append(name)
    if list(names) not in (["float32"], ["float64"]):
        where = [f"{each} in {_listed(names[each])}" for each in sorted(names)]
        raise InputError(
            "parameters all float32 or all float64",
            " and ".join(where if len(where) > 1 else names),
            'cast them before, or pass dtype="float64"',
        )
    return np.dtype(next(iter(names)))


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" ({rest} more)" if rest > 0 else "")

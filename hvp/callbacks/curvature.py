"""`Curvature`: a Keras callback that measures curvature during ``model.fit``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvp.callbacks.event_file import EventFile
from hvp.callbacks.measurements import QUANTITIES, Measurements
from hvp.callbacks.stability_edge import refuse_unknown
from hvp.callbacks.time_budget import TimeBudget
from hvp.errors import InputError, shown
from hvp.linearization.linearization import Linearization
from hvp.linearization.linearize import linearize
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of

UNITS = ("epoch", "step")
ADAPTIVE = (keras.optimizers.Adam, keras.optimizers.AdamW)


class Curvature(keras.callbacks.Callback):
    """Measures the curvature of the compiled loss during ``model.fit`` and writes it to `logs`.

    With the Hessian H and the Gauss-Newton matrix G of the loss on `data`, at the present weights:

    ========================  ====================================================================
    `measure`                 what is written under this name
    ========================  ====================================================================
    "sharpness"               λmax(H)
    "gauss_newton_sharpness"  λmax(G)
    "trace"                   tr H, estimated from 32 products
    "step_curvature"          dᵀHd / ‖d‖² along the step d that has led to these weights; of several
                              steps together with ``steps_per_execution``
    "batch_sharpness"         the mean over batches B of g_BᵀH_Bg_B / ‖g_B‖², with the gradient and
                              the Hessian of each batch's own loss (`Linearization.batch_sharpness`)
    "edge"                    the optimiser's edge of stability with the learning rate of the next
                              step, see `stability_edge`. SGD is stable while "sharpness" is below
                              it; Adam while "preconditioned_sharpness" is, λmax(P⁻¹ᐟ²HP⁻¹ᐟ²), which
                              is then written too
    ========================  ====================================================================

    At the end of each epoch `logs` has one float for each name: the number measured in this epoch,
    the last of several, or NaN where none was. So `History`, `CSVLogger` and others have the same
    columns in all epochs. They get them if this callback stands before them in ``callbacks=``;
    `History` does so by itself. `EarlyStopping` takes an epoch with NaN as one without improvement
    and needs ``mode="min"`` or "max". With ``unit="step"`` the numbers are in the logs of the
    measured steps too. `rows` has all measurements, with their errors.

    The loss is traced once, before the first epoch. Each measurement takes the present weights and
    moving statistics, and eigenvalues start from those before. Model, optimiser and random numbers
    are left as they are: training gives the same bits as without. The epochs and steps that are
    measured follow from their numbers, so that a training resumed by `BackupAndRestore` goes on.

    Args:
        data: what `hvp.linearize` takes: ``(x, y)``, ``(x, y, sample_weight)``, a `tf.data.Dataset`
            or another iterable of batches that can be read again. Time is proportional to its size.
            The callback does not know the ``class_weight=`` of `fit`: give it as sample weights.
        measure: names from the table.
        every: measure at epochs or steps that are multiples of this, counted from 1, and at the
            first of each `fit`. Steps are counted by the optimiser.
        unit: "epoch" or "step".
        budget: the largest share of the time of the training that measurements may take, such as
            0.1. One that would exceed it is skipped, judged by the time of the last; a warning at
            the end says how many were. The first is always made: a short training may spend more.
            None measures all.
        batch_size: the most examples a batch when arrays are cut. "batch_sharpness" depends on it
            and needs that of `fit`; the other numbers do not.
        training: the mode in which the model is called, see `hvp.linearize`.
        tol: of eigenvalues, relative to the norm of the matrix.
        seed: of starting vectors and probes.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).
        log_dir: directory for an event file, which TensorBoard shows; tensorboard is not needed to
            write it. The tags are ``curvature/`` and the name, the steps those of the optimiser.

    Attributes:
        num_skipped: the measurements that were skipped for the budget.
        share: the share of the time that measurements have taken, after `fit`.

    Raises:
        InputError: in `fit`, for a model, loss or data that `hvp.linearize` refuses, and for
            weights that are NaN or infinite, unless `TerminateOnNaN` has stopped the training.
            At once, for unknown arguments. An optimiser whose edge is not known is a warning, and
            its edge NaN.

    Source: Cohen et al. 2021 (arXiv 2103.00065): sharpness rises to the edge and stays; Cohen et
    al. 2022 (arXiv 2207.14484) for Adam; Andreyev and Beneventano 2024 (arXiv 2412.20553,
    definition 3) for batch sharpness.

    >>> import keras, numpy as np, hvp
    >>> x, y = np.eye(2), np.array([[1.0], [2.0]])
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(keras.optimizers.SGD(0.5), "mean_squared_error")
    >>> history = model.fit(
    ...     x, y, epochs=2, verbose=0, callbacks=[hvp.callbacks.Curvature((x, y))])
    >>> np.round(history.history["sharpness"], 5).tolist(), history.history["edge"]
    ([1.0, 1.0], [4.0, 4.0])
    """

    def __init__(
        self,
        data: Any,
        *,
        measure: str | Sequence[str] = ("sharpness", "edge"),
        every: int = 1,
        unit: str = "epoch",
        budget: float | None = None,
        batch_size: int | None = None,
        training: bool = False,
        tol: float = 1e-3,
        seed: int = DEFAULT_SEED,
        rng: RNG = NOT_GIVEN,
        log_dir: str | Path | None = None,
    ):
        super().__init__()
        self._quantities = _checked_quantities(measure)
        _check_numbers(every, unit, budget, tol)
        is_cut = isinstance(data, tuple | dict | np.ndarray | tf.Tensor)
        if "batch_sharpness" in self._quantities and is_cut and batch_size is None:
            raise InputError("batch_size= for batch_sharpness", "none", "give that of fit")
        if hasattr(data, "gnvp"):
            raise InputError(
                "data, (x, y)", type(data).__name__, "the callback linearizes by itself"
            )
        self._data, self._every, self._unit = data, every, unit
        self._options: dict[str, Any] = {"training": training, "jit": False}
        if batch_size is not None:
            self._options["batch_size"] = batch_size
        self._budget_share, self._tol, self._log_dir = budget, tol, log_dir
        self._seed = seed_of(seed, rng)
        self.num_skipped, self.share = 0, 0.0
        self._rows: list[dict[str, float]] = []
        # Of the present fit.
        self._lin: Linearization | None = None
        self._event_file: EventFile | None = None
        self._budget = TimeBudget(budget)
        self._names: list[str] = []
        self._latest: dict[str, float] = {}
        self._before: np.ndarray | None = None
        self._num_due = self._epoch = self._step = 0

    def rows(self) -> list[dict[str, float]]:
        """A dict for each measurement of the last `fit`, as `pandas.DataFrame` takes them.

        `epoch` is counted from 1, and `step` by the optimiser. Eigenvalues, trace and batch
        sharpness have their errors in ``NAME_error``: ‖Av - λv‖ for eigenvalues, the standard
        error of the probes for the trace, that over the batches for batch sharpness.
        """
        return [dict(row) for row in self._rows]

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        model = self._compiled_model()
        self._budget = TimeBudget(self._budget_share)
        with self._budget.spending(prepares=True):
            self._lin = linearize(model, self._data, **self._options)
            self._names = _names(self._quantities, model.optimizer)
            known = _known(self._quantities, model)
            self._measurements = Measurements(model, known, self._tol, self._seed)
        if self._log_dir is not None:
            self._event_file = EventFile(self._log_dir)
        self._rows, self.num_skipped, self._num_due = [], 0, 0
        self._step = int(model.optimizer.iterations)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch, self._latest = epoch + 1, {}

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        is_needed = "step_curvature" in self._quantities and self._may_be_due_after(batch)
        self._before = self._weights() if is_needed else None

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if self._unit != "step":
            return
        before, self._step = self._step, int(self.model.optimizer.iterations)
        if self._is_due(before, self._step):
            self._latest = self._measured()
            if logs is not None:
                logs.update(self._all_names(self._latest))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._unit == "epoch" and self._is_due(epoch, epoch + 1):
            self._latest = self._measured()
        if logs is not None:
            logs.update(self._all_names(self._latest))

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._lin = self._before = None
        self.share = self._budget.spent / self._budget.seconds
        if self._event_file is not None:
            self._event_file.close()
        said = []
        if self.num_skipped:
            said.append(f"{self.num_skipped} skipped for budget={self._budget_share:g}")
        if self._measurements.num_unconverged:
            said.append(f"{self._measurements.num_unconverged} eigenvalues not converged")
        if said:
            warnings.warn(
                f"hvp: of {self._num_due} measurements of curvature {', '.join(said)} (NaN in the "
                f"logs); the others took {self.share:.0%} of the time",
                stacklevel=2,
            )

    def _is_due(self, before: int, now: int) -> bool:
        """Whether a multiple of `every` lies after `before` and up to `now`, or nothing was due."""
        return now > before and (not self._num_due or now // self._every > before // self._every)

    def _may_be_due_after(self, batch: int) -> bool:
        """Whether the step to come may be the last one before a measurement."""
        together = self.model.steps_per_execution
        if self._unit == "step":
            return self._is_due(self._step, self._step + together)
        count = self.params.get("steps")
        is_last = count is None or batch + together >= count
        return is_last and self._is_due(self._epoch - 1, self._epoch)

    def _measured(self) -> dict[str, float]:
        """The numbers at the present weights, none where the budget does not allow it."""
        self._num_due += 1
        if not self._budget.allows():
            self.num_skipped += 1
            return {}
        with self._budget.spending():
            if not self._has_finite_weights():
                return {}
            assert self._lin is not None
            step = None if self._before is None else self._weights() - self._before
            with self._lin.at(self.model) as there:
                numbers = self._measurements.at(there, step)
        step_number = int(self.model.optimizer.iterations)
        self._rows.append({"epoch": self._epoch, "step": step_number, **numbers})
        if self._event_file is not None:
            self._event_file.write(self._all_names(numbers), step_number)
        return numbers

    def _all_names(self, numbers: dict[str, float]) -> dict[str, float]:
        """The number of each name of the logs, NaN where there is none."""
        return {name: numbers.get(name, math.nan) for name in self._names}

    def _weights(self) -> np.ndarray:
        return np.concatenate([np.ravel(each) for each in self.model.trainable_variables])

    def _has_finite_weights(self) -> bool:
        """Whether all are finite. Raises InputError if not and the training goes on."""
        for variable in self.model.weights:
            value = variable.numpy()
            if np.issubdtype(value.dtype, np.inexact) and not np.isfinite(value).all():
                if self.model.stop_training:
                    return False
                raise InputError(
                    "finite weights",
                    f"NaN or infinity in {variable.path} in epoch {self._epoch}",
                    "lower the learning rate, or stop by keras.callbacks.TerminateOnNaN()",
                )
        return True

    def _compiled_model(self) -> keras.Model:
        if not isinstance(self.model, keras.Model) or not self.model.compiled:
            got = "none" if self.model is None else f"{self.model.name!r}, not compiled"
            raise InputError("a compiled model", got, "pass the callback to model.fit")
        return self.model


def _checked_quantities(measure: Any) -> tuple[str, ...]:
    """The names, each once. Raises InputError for others."""
    names = (measure,) if isinstance(measure, str) else measure
    if not isinstance(names, list | tuple) or not names:
        raise InputError("measure= with names", shown(measure), f"use {', '.join(QUANTITIES)}")
    for name in names:
        if name not in QUANTITIES:
            raise InputError(f"measure= among {', '.join(QUANTITIES)}", shown(name), "choose one")
    return tuple(dict.fromkeys(names))


def _check_numbers(every: Any, unit: Any, budget: Any, tol: Any) -> None:
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise InputError("every= as a number of 1 or more", shown(every), "count epochs or steps")
    if unit not in UNITS:
        raise InputError(f"unit= among {', '.join(UNITS)}", shown(unit), "choose one")
    if budget is not None and not (isinstance(budget, int | float) and 0 < budget < 1):
        raise InputError("budget= between 0 and 1", shown(budget), "give a share such as 0.1")
    if not (isinstance(tol, int | float) and 0 < tol < 1):
        raise InputError("tol= between 0 and 1", shown(tol), "give 1e-3")


def _names(quantities: Sequence[str], optimizer: keras.optimizers.Optimizer) -> list[str]:
    """The names that are written to the logs."""
    names = list(quantities)
    if "edge" in names and isinstance(optimizer, ADAPTIVE):
        names.append("preconditioned_sharpness")
    return names


def _known(quantities: Sequence[str], model: keras.Model) -> list[str]:
    """The quantities without an edge that is not known, which is a warning."""
    if "edge" not in quantities:
        return list(quantities)
    try:
        refuse_unknown(model.optimizer, model.trainable_variables)
    except InputError as error:
        warnings.warn(f"hvp: the edge is NaN in the logs: {error}", stacklevel=4)
        return [name for name in quantities if name != "edge"]
    return list(quantities)

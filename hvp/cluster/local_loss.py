"""The share of a loss that one worker holds: traced, and multiplied with, at several places."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import tensorflow as tf

from hvp.cluster.model_recipe import unpacked
from hvp.cluster.state import Description, Job, Place, StoredBatches
from hvp.errors import InputError
from hvp.linearization.cache import SavedTensorCache
from hvp.linearization.linearization import Linearization
from hvp.linearization.linearize import layout_of
from hvp.linearization.share import Share
from hvp.linearization.snapshot import Snapshot
from hvp.linearization.totals import Totals
from hvp.linearization.traces import Traces
from hvp.objective import files
from hvp.objective.batches import as_batches
from hvp.objective.keras_model import KerasObjective
from hvp.objective.objective import Point


@dataclass(frozen=True)
class _Local:
    """A place in this process, and how products are made there."""

    snapshot: Snapshot
    traces: Traces
    ad: str
    jit: str | bool


class LocalLoss:
    """The share of worker `number`, from 0, at all places asked for so far."""

    def __init__(self, job: Job, number: int):
        self._job, self._number = job, number
        self._data, self._num_workers = job.data[number], len(job.data)
        self._places: dict[int, Place] = {}
        self._locals: dict[int, _Local] = {}
        self._linearizations: dict[tuple[int, tuple[int, ...] | None], Linearization] = {}
        self._cache: SavedTensorCache | None = None

    def add_place(self, place: Place) -> None:
        """Know a place, or what the terms of the loss are divided by there."""
        self._places[place.number] = place

    def count_batches(self) -> int:
        """The number of batches in this share."""
        return sum(1 for _ in self._batches)

    def describe(self, place: int) -> Description:
        """What is known of the share before the first product."""
        snapshot = self._local(self._places[place]).snapshot
        loss = snapshot.traced_loss
        loop = loss.comparing_loop(self._job.chosen)
        return Description(
            loss.first_totals,
            snapshot.penalty(),
            loss.data_digest,
            snapshot.weights_digest,
            loss.objective_digest,
            loss.findings,
            None if loop is None else str(loop),
            loss.has_own_divisors,
        )

    def check(self, place: int) -> None:
        """Raise InputError where the loss has no right second derivatives at a place."""
        self._local(self._places[place])

    def totals(self, place: int) -> tuple[Totals, float]:
        """The sums over the batches at a place, and the penalty there."""
        snapshot = self._local(self._places[place]).snapshot
        return snapshot.totals().without_data(), snapshot.penalty()

    def weights_digest(self, place: int) -> str:
        """See `hvp.Linearization`."""
        return self._local(self._places[place]).snapshot.weights_digest

    def batch_sharpness(self, place: int, inside: tuple[int, ...] | None) -> np.ndarray:
        """Those of this share, with the penalty, which counts in full in each batch."""
        here = self._local(self._places[place])
        snapshot = here.snapshot.with_penalty()
        traces = Traces(snapshot.traced_loss, ad=here.ad, jit=here.jit)
        whole = self._whole(_Local(snapshot, traces, here.ad, here.jit))
        return (whole if inside is None else whole.restricted(inside)).batch_sharpness()

    def linearization(self, place: int, inside: tuple[int, ...] | None) -> Linearization:
        """The products of this share over some parameters, all that were chosen for None."""
        key = place, inside
        if key not in self._linearizations:
            if inside is None:
                self._linearizations[key] = self._whole(self._local(self._places[place]))
            else:
                whole = self.linearization(place, None)
                self._linearizations[key] = whole.restricted(inside)
        return self._linearizations[key]

    def forget(self, number: int) -> None:
        """Free the memory of a place."""
        for key in [key for key in self._linearizations if key[0] == number]:
            self._linearizations.pop(key).close()
        self._locals.pop(number, None)
        self._places.pop(number, None)

    def _whole(self, here: _Local) -> Linearization:
        assert self._cache is not None
        return Linearization(
            here.snapshot,
            self._job.chosen,
            self._cache,
            ad=here.ad,
            jit=here.jit,
            traces=here.traces,
        )

    def _local(self, place: Place) -> _Local:
        if place.number not in self._locals:
            self._locals[place.number] = self._reached(place)
        found = self._locals[place.number]
        if place.divisors is not None:
            found.snapshot.traced_loss.divisors = list(place.divisors)
        return found

    def _reached(self, place: Place) -> _Local:
        """The place, by its step from its parent."""
        if place.parent is None:
            return self._first(place)
        parent = self._local(place.parent)
        snapshot, ad, jit = parent.snapshot, parent.ad, parent.jit
        if place.step == "at":
            there = snapshot.at(_point(place.arguments[0], snapshot))
            return _Local(there, parent.traces, ad, jit)
        if place.step == "in_float64":
            snapshot, jit = snapshot.in_float64(), False
        else:
            given_ad, given_jit = place.arguments
            ad, jit = ad if given_ad is None else given_ad, jit if given_jit is None else given_jit
        return _Local(snapshot, Traces(snapshot.traced_loss, ad=ad, jit=jit), ad, jit)

    def _first(self, place: Place) -> _Local:
        """The place of the model as it was sent: its batches are traced and checked."""
        job, division = self._job, place.division
        neighbours = division.neighbours[self._number]
        budget = None if job.cache == "auto" else int(job.cache)
        self._cache = SavedTensorCache(budget, processes=neighbours)
        share = Share(
            first=sum(division.counts[: self._number]),
            num_batches=sum(division.counts),
            has_penalty=self._number == 0,
        )
        layout, _ = layout_of(self._objective, None, job.dtype)
        promoted = job.dtype is not None
        snapshot = Snapshot.trace(
            self._objective, layout, self._batches, job.chosen, promoted=promoted, share=share
        )
        traces = Traces(snapshot.traced_loss, ad=job.ad, jit=job.jit)
        return _Local(snapshot, traces, job.ad, job.jit)

    @functools.cached_property
    def _objective(self) -> KerasObjective:
        job = self._job
        model = job.recipe.model(ray.get(job.arrays))
        return KerasObjective(
            model, unpacked(job.loss), training=job.training, class_weight=job.class_weight
        )

    @functools.cached_property
    def _batches(self) -> Any:
        """The batches, which can be read again."""
        if isinstance(self._data, StoredBatches):
            return ray.get(list(self._data.references))
        try:
            data = self._data(self._number, self._num_workers)
        except Exception as error:  # the user's own code
            raise InputError(
                "a function of (worker, workers) that gives the data of a worker",
                f"{type(error).__name__} for worker {self._number} of {self._num_workers}: "
                f"{files.first_line(error)}",
                "call it in one process first",
            ) from error
        return as_batches(data, self._job.batch_size, self._objective.may_miss)


def _point(reference: Any, parent: Snapshot) -> Point:
    """The point in the object store; without a state of its own, with that of the parent."""
    values, state = ray.get(reference)
    return Point(_tensors(values), list(parent.state) if state is None else _tensors(state))


def _tensors(arrays: Sequence[np.ndarray]) -> list[tf.Tensor]:
    return list(map(tf.convert_to_tensor, arrays))

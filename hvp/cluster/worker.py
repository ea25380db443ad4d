"""The actor: a process that holds a share of the data and answers calls."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
import tensorflow as tf

from hvp.cluster.local_loss import LocalLoss
from hvp.cluster.state import Call, Failure, Place, Report
from hvp.errors import InputError
from hvp.linearization import transfer

# Tasks that concern a place and all parameters.
OF_A_PLACE = ("describe", "totals", "weights_digest", "check")
# Tasks whose answers, several vectors or a number and a vector, are summed as one vector.
JOINED = ("products", "loss_and_gradient")


class Worker:
    """Answers calls about its share of a loss. Nothing is built before the first call.

    A process that Ray has started again knows nothing, says so, and is given its job anew.
    """

    def __init__(self, number: int, num_cpus: int):
        # Before TensorFlow starts its threads.
        tf.config.threading.set_intra_op_parallelism_threads(num_cpus)
        tf.config.threading.set_inter_op_parallelism_threads(num_cpus)
        transfer.limit_threads(num_cpus)
        self._number, self._node = number, ray.util.get_node_ip_address()
        self._loss: LocalLoss | None = None

    def start(self, job: list[Any], places: Sequence[Place]) -> None:
        """Take a job, as a list of its reference, and the places known so far."""
        self._loss = LocalLoss(ray.get(job[0]), self._number)
        for place in places:
            self._loss.add_place(place)

    def add_place(self, place: Place) -> None:
        """Know a place from now on."""
        if self._loss is not None:
            self._loss.add_place(place)

    def run(self, call: Call, array: np.ndarray | None) -> tuple[Any, Report]:
        """The answer to a call, None where it failed, and the report."""
        begun, answer, failure = time.perf_counter(), None, None
        if self._loss is None:
            return None, Report(self._node, os.getpid(), 0.0, None, is_new=True)
        try:
            answer = self._answer(self._loss, call, array)
        except InputError as error:
            failure = Failure.of(error)
        return answer, Report(self._node, os.getpid(), time.perf_counter() - begun, failure)

    def plus(self, first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
        """The sum of two answers in float64, None where one of them failed."""
        if first is None or second is None:
            return None
        return np.add(first, second, dtype=np.float64)

    def forget(self, place: int) -> None:
        """Free the memory of a place."""
        if self._loss is not None:
            self._loss.forget(place)

    def node(self) -> str:
        """The number of the machine."""
        return ray.get_runtime_context().get_node_id()

    def _answer(self, loss: LocalLoss, call: Call, array: np.ndarray | None) -> Any:
        place = call.place
        if place is None:
            return loss.count_batches()
        if call.task in OF_A_PLACE:
            return getattr(loss, call.task)(place)
        if call.task == "batch_sharpness":
            return loss.batch_sharpness(place, call.inside)
        if call.task == "prepare":
            columns, *matrices = call.arguments
            loss.linearization(place, call.inside).prepare(*matrices, columns=columns)
            return None
        attribute = getattr(loss.linearization(place, call.inside), call.task)
        if not callable(attribute):
            return attribute
        if call.slices is not None:
            assert array is not None
            array = array[call.slices[self._number]]
        answer = attribute(*[] if array is None else [array], *call.arguments)
        if call.task in JOINED:
            return np.concatenate([np.atleast_1d(each) for each in answer])
        return answer

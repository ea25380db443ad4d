"""What is sent between the process that asks and the workers, and what is known of a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hvp import errors
from hvp.cluster.model_recipe import ModelRecipe
from hvp.errors import Finding, InputError
from hvp.linearization.totals import Totals


@dataclass(frozen=True)
class StoredBatches:
    """The batches of one worker, as references to the object store."""

    references: tuple[Any, ...]


# The batches of a worker, or a function of (worker, number of workers) that gives its data.
ShareOfData = StoredBatches | Callable[[int, int], Any]


@dataclass(frozen=True)
class Job:
    """What the workers compute. Each is given a reference to it when it starts, or starts again.

    Attributes:
        recipe: of the model.
        arrays: the reference of its arrays in the object store.
        data: the share of each worker.
        loss, class_weight, training: of the objective.
        chosen: the positions of the parameters to differentiate in.
        dtype, batch_size, cache, ad, jit: as those of `linearize`.
    """

    recipe: ModelRecipe
    arrays: Any
    data: tuple[ShareOfData, ...]
    loss: Any
    class_weight: dict[int, float] | None
    training: bool
    chosen: tuple[int, ...]
    dtype: str | None
    batch_size: int
    cache: str | int
    ad: str
    jit: str | bool


@dataclass(frozen=True)
class Division:
    """How the batches are divided.

    Attributes:
        counts: the number of batches of each worker, in their order.
        neighbours: the number of workers on the machine of each.
    """

    counts: tuple[int, ...]
    neighbours: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """A loss at a point, as a way there from the model as it was sent.

    A worker that has started again is given all of them, and follows this way.

    Attributes:
        number: of the place.
        division: of the batches.
        parent: the place that it is reached from, None for the first one.
        step: "at", with the reference of a point; "in_float64"; or "forced", with `ad` and `jit`.
        arguments: of the step.
        divisors: what the terms of the loss are divided by, once all workers have told their sums.
    """

    number: int
    division: Division
    parent: Place | None = None
    step: str = ""
    arguments: tuple[Any, ...] = ()
    divisors: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Call:
    """What a worker is asked for.

    Attributes:
        task: a name of `hvp.cluster.local_loss.LocalLoss`, or of `hvp.Linearization`.
        place: the number of the place, None for none.
        inside: the positions of the parameters chosen, among those of the job; None for all.
        arguments: those that follow the array.
        slices: the part of the array for each worker, None for all of it.
    """

    task: str
    place: int | None = None
    inside: tuple[int, ...] | None = None
    arguments: tuple[Any, ...] = ()
    slices: tuple[slice, ...] | None = None


@dataclass(frozen=True)
class Failure:
    """An InputError of a worker, as its class and its parts."""

    kind: str
    expected: str
    got: str
    remedy: str

    @classmethod
    def of(cls, error: InputError) -> Failure:
        """The parts of an error."""
        got = error.got if isinstance(error.got, str) else errors.shown(error.got)
        return cls(type(error).__name__, error.expected, got, error.remedy)

    def error(self) -> InputError:
        """The error."""
        kind = getattr(errors, self.kind)
        assert issubclass(kind, InputError)
        return kind(self.expected, self.got, self.remedy)


@dataclass(frozen=True)
class Report:
    """What a worker says beside its answer.

    Attributes:
        node: the address of its machine.
        pid: the number of its process.
        seconds: that the answer took.
        failure: the InputError in place of an answer, None with one.
        is_new: whether there is no answer because the process has just started again.
    """

    node: str
    pid: int
    seconds: float
    failure: Failure | None
    is_new: bool = False


@dataclass(frozen=True)
class Description:
    """What a worker has found out about its batches at a place.

    Attributes:
        totals: the sums over them.
        penalty: the penalty on the weights, zero but in the first worker.
        data_digest, weights_digest, objective_digest: see `hvp.Linearization`.
        findings: of the audit.
        loop: a loop that compares numbers of the parameters, None without one.
        has_own_divisors: whether the divisors depend on the parameters.
    """

    totals: Totals
    penalty: float
    data_digest: str
    weights_digest: str
    objective_digest: str
    findings: tuple[Finding, ...]
    loop: str | None
    has_own_divisors: bool


@dataclass(frozen=True)
class WorkerState:
    """What is known of a worker of `ClusterLinearization.workers`.

    Attributes:
        number: its number, from 1.
        node: the address of its machine.
        pid: the number of its process there.
        num_batches: how many batches it holds.
        num_examples: how many examples they have.
        restarts: how often another process was found to answer in its place.
        seconds: the median time of its products, NaN before the first one.
    """

    number: int
    node: str
    pid: int
    num_batches: int
    num_examples: int
    restarts: int
    seconds: float

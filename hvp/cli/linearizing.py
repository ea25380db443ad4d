"""The loss of a job at its weights, in batches that fit into memory."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING, Any, cast

from hvp.errors import DataError, InputError, MixedExamplesError

if TYPE_CHECKING:
    from hvp.cli.loading import Job
    from hvp.linearization.linearization import Linearization
    from hvp.report.terminal import Terminal

# The values that a network computes on a batch take at most this fraction of the memory for saved
# tensors: a product saves two to five times as much, and as much again while it runs.
MAX_BATCH_FRACTION = 1 / 8
# The memory of a single batch is extrapolated from so many examples and twice as many.
FEW_EXAMPLES = 32
NO_WORKERS = "leave --workers out, as they have a batch each"


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user chose of a loss, and the bytes of saved tensors, None for a quarter of what is
    free.

    With `workers` the examples are divided among so many processes of a cluster at `address`, on
    this machine for None; `opened` closes them.
    """

    loss: str | None
    layers: list[str] | None
    dtype: str | None
    batch_size: int | None
    cache: int | None = None
    workers: int | None = None
    address: str | None = None
    opened: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)


def connect(options: Options, count: int) -> None:
    """Connect to the cluster that the workers of `count` losses run on, if any were asked for."""
    if options.workers is None:
        return
    from hvp.cluster.linearize import connected

    connection = connected(options.address, options.workers * count)
    options.opened.callback(connection.close)


def linearized(job: Job, options: Options, terminal: Terminal) -> Linearization:
    """The loss of a job at its weights. Raises InputError where it cannot take the data."""
    return with_batch_size(job, options, terminal)[0]


def with_batch_size(job: Job, options: Options, terminal: Terminal) -> tuple[Linearization, int]:
    """The loss of a job at its weights, and the batch size that was given or chosen for it."""
    try:
        return _batched(job, options, terminal)
    except DataError as error:
        if not job.is_digits:
            raise
        expected = "--data, as this model cannot take the built-in digits"
        raise InputError(expected, "none", "give its x and y by --data FILE.npz") from error


def _batched(job: Job, options: Options, terminal: Terminal) -> tuple[Linearization, int]:
    """The loss in batches; in a single one, where it mixes examples and that fits into memory."""
    from hvp.objective.batches import batch_size_for_sampling_errors, num_examples

    terminal.start(f"{job.title}: linearising")
    if options.batch_size is not None:
        try:
            lin = _in_batches(job, options, job.data, options.batch_size)
            return lin, options.batch_size
        except MixedExamplesError as error:
            remedy = "leave --batch-size out" if options.workers is None else NO_WORKERS
            raise InputError(error.expected, error.got, remedy) from error
    try:
        batch_size = batch_size_for_sampling_errors(job.data[0])
        return _in_small_batches(job, options, batch_size)
    except MixedExamplesError as error:
        if options.workers is not None:
            raise InputError(error.expected, error.got, NO_WORKERS) from error
        count = num_examples(job.data[0])
        needed, budget = _single_batch_bytes(job, options, count)
        if needed > budget:
            got = (
                f"{error.got}; one batch would save about {needed >> 20:,} MiB of {budget >> 20:,}"
            )
            raise InputError(error.expected, got, "take fewer examples") from error
    terminal.say(
        f"{job.title}: the loss mixes examples: all {count:,} are one batch, so sampling errors "
        "are not known"
    )
    return _in_batches(job, options, job.data, count), count


def _in_small_batches(job: Job, options: Options, batch_size: int) -> tuple[Linearization, int]:
    """The loss in these batches, or in smaller ones where the values of one take much memory."""
    lin = _in_batches(job, options, job.data, batch_size)
    of_batch = lin.forecast.kept / lin.num_batches
    most = MAX_BATCH_FRACTION * lin.memory.budget
    if of_batch <= most:
        return lin, batch_size
    batch_size = max(int(lin.num_examples / lin.num_batches * most / of_batch), 1)
    lin.close()
    return _in_batches(job, options, job.data, batch_size), batch_size


def _single_batch_bytes(job: Job, options: Options, count: int) -> tuple[int, int]:
    """What all examples in one batch would save, and the budget, in bytes.

    Extrapolated from few examples and twice as many: losses of pairs grow like the square.
    """
    import keras

    def saved(few: int) -> tuple[int, int]:
        part = keras.tree.map_structure(lambda array: array[:few], job.data)
        lin = _in_batches(job, options, part, few)
        return lin.forecast.kept, lin.memory.budget

    few = min(FEW_EXAMPLES, count)
    (once, _), (twice, budget) = saved(few), saved(min(2 * few, count))
    if count <= 2 * few:
        return twice, budget
    return int(twice * (twice / once) ** math.log2(count / (2 * few))), budget


def _in_batches(
    job: Job, options: Options, data: tuple[Any, ...], batch_size: int
) -> Linearization:
    from hvp.linearization.linearize import linearize

    workers = options.workers or 1
    # With order and backend given, no timing decides anything: equal input gives equal bits.
    given: dict[str, Any] = {
        "variables": [name for names in options.layers or [] for name in names.split(",")] or None,
        "dtype": options.dtype,
        "batch_size": batch_size,
        "cache": "auto" if options.cache is None else options.cache // workers,
        "ad": "forward-over-reverse",
        "jit": False,
    }
    if options.workers is None:
        return linearize(job.model, data, options.loss, **given)
    from hvp.cluster.linearize import linearize as on_cluster

    lin = on_cluster(job.model, data, options.loss, num_workers=workers, **given)
    options.opened.callback(lin.close)
    return cast("Linearization", lin)  # it has the same members

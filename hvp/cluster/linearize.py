"""`linearize` on a cluster: a Keras model and its data, sent to workers."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from hvp.cluster.linearization import ClusterLinearization, SharedLoss, described
from hvp.cluster.model_recipe import ModelRecipe, arrays_of, packed
from hvp.cluster.shares import check_count, divided
from hvp.cluster.state import Call, Description, Division, Job, Place
from hvp.errors import InputError, shown
from hvp.linearization.linearize import certified, check_options, layout_of
from hvp.linearization.versions import warn_if_untested
from hvp.objective.batches import BATCH_SIZE
from hvp.objective.keras_model import KerasObjective
from hvp.objective.objective import Point

if TYPE_CHECKING:
    from hvp.cluster.connection import Connection


def linearize(
    build: keras.Model | str | Path | Callable[[], keras.Model],
    data: Any,
    loss: Any = None,
    *,
    num_workers: int,
    num_cpus: int = 1,
    address: str | None = None,
    max_restarts: int = 3,
    variables: str | Sequence[str] | None = None,
    training: bool = False,
    class_weight: Mapping[int, float] | None = None,
    dtype: str | None = None,
    batch_size: int = BATCH_SIZE,
    cache: str | int = "auto",
    ad: str = "auto",
    jit: str | bool = False,
    verify: bool = False,
) -> ClusterLinearization:
    """What `hvp.linearize` gives, with the data divided among the workers of a Ray cluster.

    L(w) is the same loss, over all N examples of all workers. A product takes each worker the time
    of its share; the vector goes to all of them, and the results come back and are added.

    Args:
        build: a built Keras model, its ``.keras`` file, or a function without arguments that builds
            and returns one. A model travels as its configuration and its arrays; one with layers or
            losses of your own needs a function, which Ray sends as it sends all Python code. The
            weights are those of the model here, also where a function builds it.
        data: what `hvp.linearize` takes: it is read once, here, and kept in Ray's object store,
            batch by batch. Or a function of (worker, workers), numbered from 0, that gives the data
            of one worker, which reads them itself: the way for data that do not fit one machine.
        loss: as for `hvp.linearize`.
        num_workers: how many workers hold a share each.
        num_cpus: the threads of a worker.
        address: of a Ray cluster. None takes the one that the program is connected to or that
            ``RAY_ADDRESS`` names. Otherwise a cluster is started on this machine, which listens on
            the loopback only.
        max_restarts: how often Ray may start a worker again that has died. It reads its share
            anew and repeats the product.
        variables, training, class_weight, dtype, ad, verify: as for `hvp.linearize`.
        batch_size: as for `hvp.linearize`, but arrays give one batch at least for each worker.
        cache: the most bytes that a worker saves, "auto" for a quarter of the free memory of its
            machine, divided among the workers there.
        jit: as for `hvp.linearize`. Its "auto" may change the last bits of a product.

    Raises:
        InputError: as `hvp.linearize`, for fewer batches than workers, for models that are not
            built from their configuration, for an address without a cluster, and without Ray.
        WorkerError: a worker died more than `max_restarts` times.

    ::

        with hvp.cluster.linearize(model, (x, y), num_workers=4) as lin:
            print(hvp.eigsh(hvp.Hessian(lin), k=3).values, lin.workers)
    """
    require_ray()
    from hvp.cluster.workers import Workers

    warn_if_untested()
    check_count("num_workers", num_workers, 1)
    check_count("num_cpus", num_cpus, 1)
    check_count("max_restarts", max_restarts, 0)
    if not isinstance(training, bool):
        raise InputError("training=True or False", shown(training), "choose one")
    check_options(ad, jit, cache)
    model, recipe = ModelRecipe.of(build)
    objective = KerasObjective(model, loss, training=training, class_weight=class_weight)
    layout, chosen = layout_of(objective, variables, dtype)
    connection = connected(address, num_workers * num_cpus)
    try:
        shares, digest = divided(data, num_workers, batch_size, objective.may_miss, Workers.store)
        job = Job(
            recipe=recipe,
            arrays=Workers.store(arrays_of(model)),
            data=tuple(shares),
            loss=packed(loss),
            class_weight=None if class_weight is None else dict(class_weight),
            training=training,
            chosen=chosen,
            dtype=dtype,
            batch_size=batch_size,
            cache=cache,
            ad=ad,
            jit=jit,
        )
        workers = Workers(job, num_cpus=num_cpus, max_restarts=max_restarts, connection=connection)
    except BaseException:
        connection.close()
        raise
    try:
        first = Place(0, _division(workers))
        place, descriptions, value = described(workers, first)
        workers.num_examples = [each.totals.num_examples for each in descriptions]
        _require_equal(descriptions)
        here = Point([tf.cast(v, layout.dtype) for v in objective.values], list(objective.state))
        digest = digest or _digest([each.data_digest for each in descriptions])
        shared = SharedLoss(objective, layout, chosen, digest, itertools.count(1))
        lin = ClusterLinearization(
            workers,
            shared,
            place,
            here,
            descriptions,
            dtype=layout.dtype,
            value=value,
            is_first=True,
        )
        loop = next((each.loop for each in descriptions if each.loop), None)
        if verify or loop is not None:
            lin.certificate = certified(lin, loop)
    except BaseException:
        workers.close()
        raise
    return lin


def require_ray() -> None:
    """Raise InputError where the package of the extra "ray" is not installed."""
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            "the package of the extra 'ray'", "no module ray", "pip install 'hvp[ray]'"
        ) from error


def connected(address: str | None, num_cpus: int) -> Connection:
    """The process connected to a cluster with so many CPUs, see `Connection`."""
    require_ray()
    from hvp.cluster.connection import Connection

    return Connection(address, num_cpus)


def _division(workers: Any) -> Division:
    """Count the batches of each worker, and the workers of each machine."""
    neighbours = workers.neighbours()
    workers.num_batches = workers.gather(Call("count_batches"))
    empty = [i + 1 for i, count in enumerate(workers.num_batches) if count == 0]
    if empty:
        raise InputError(
            "data for each worker", f"none for worker {empty[0]}", "give each one some batches"
        )
    return Division(tuple(workers.num_batches), neighbours)


def _require_equal(descriptions: Sequence[Description]) -> None:
    """Raise InputError where the workers have models with other weights or constants."""
    if len({each.weights_digest for each in descriptions}) > 1:
        raise InputError(
            "the same model in each worker",
            "other weights or constants in some",
            "build it without random choices",
        )


def _digest(digests: Sequence[str]) -> str:
    """The digest of data that each worker has read itself: that of their digests."""
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()

"""The data, divided among the workers: neighbouring batches, so that the order stays."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.cluster.state import ShareOfData, StoredBatches
from hvp.errors import InputError, shown
from hvp.linearization.totals import DataDigest
from hvp.objective.batches import as_batches, num_examples


def divided(
    data: Any,
    num_workers: int,
    batch_size: int,
    may_miss: Callable[[Any], Any],
    store: Callable[[Any], Any],
) -> tuple[list[ShareOfData], str | None]:
    """The share of each worker, and the digest of the data where they are read here.

    A function stays as it is: each worker calls it for its own share. Other data are read once and
    kept by `store`, batch by batch; arrays are cut into one batch at least for each worker.
    """
    if callable(data):
        return [data] * num_workers, None
    if isinstance(data, tuple | dict | np.ndarray | tf.Tensor):
        batch_size = min(batch_size, max(-(-num_examples(data) // num_workers), 1))
    digest, references = DataDigest(), []
    for batch in as_batches(data, batch_size, may_miss):
        arrays = tf.nest.map_structure(_as_array, batch)
        digest.add([leaf for leaf in tf.nest.flatten(arrays) if leaf is not None])
        references.append(store(arrays))
    if len(references) < num_workers:
        raise InputError(
            f"at least one batch for each of {num_workers} workers",
            f"{len(references)}",
            "take fewer workers, or smaller batches",
        )
    edges = [len(references) * i // num_workers for i in range(num_workers + 1)]
    shares: list[ShareOfData] = [
        StoredBatches(tuple(references[start:stop])) for start, stop in itertools.pairwise(edges)
    ]
    return shares, digest.value


def check_count(name: str, value: Any, least: int) -> None:
    """Raise InputError for what is no whole number from `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} of at least {least}", shown(value), "give a whole number")


def _as_array(leaf: Any) -> np.ndarray | None:
    """A leaf of a batch as TensorFlow would take it."""
    return None if leaf is None else np.asarray(tf.convert_to_tensor(leaf))

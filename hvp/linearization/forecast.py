"""What products will take, told from the loss alone before the first is made."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hvp.linearization.snapshot import Snapshot

# A product with what is known kept, in evaluations of the loss: measured from 1.2 on short nets to
# 5.2 on attention.
EVALUATIONS = 4.0
# Beyond so many seconds a product, or the budget, a forecast is worth a note.
LONG = 1.0


@dataclass(frozen=True)
class Forecast:
    """What one product with H over all the data is expected to take, within a factor of three.

    Attributes:
        seconds: of a product, its first excepted, with everything kept that does not depend on v.
        kept: bytes that this takes: about those of all that the network computes, and of the batch.
            What a loop leaves of its rounds is not among them.
    """

    seconds: float
    kept: int

    def __str__(self) -> str:
        return (
            f"a product is expected to take about {self.seconds:.0e} s, and to keep about "
            f"{self.kept / 2**20:.0f} MiB"
        )


def forecast(snapshot: Snapshot) -> Forecast:
    """The forecast, from one evaluation of the first batch."""
    batch = next(snapshot.batches())
    programs = snapshot.programs(batch)
    snapshot.evaluate(programs, batch)  # the first call compiles
    begun = time.perf_counter()
    snapshot.evaluate(programs, batch)
    seconds = time.perf_counter() - begun
    loss = programs.loss
    count = len(snapshot.values)
    params, tensors = loss.inputs[:count], loss.inputs[count:]
    computed = loss.reach(params) - set(params)
    kept = loss.nbytes([*computed, *tensors])
    return Forecast(EVALUATIONS * seconds * snapshot.num_batches, kept * snapshot.num_batches)

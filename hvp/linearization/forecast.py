"""The time and memory of products, estimated from the loss before the first product."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hvp.errors import Finding
from hvp.linearization.memory import mebibytes
from hvp.linearization.snapshot import Snapshot

# Time of a product with saved tensors, in evaluations of the loss: measured from 1.2 on short
# networks to 5.2 on attention.
EVALUATIONS = 4.0
# A forecast of more seconds a product, or of more bytes than the budget, becomes a finding.
LONG_SECONDS = 1.0


@dataclass(frozen=True)
class Forecast:
    """The expected time and memory of a product with H over all the data.

    Both are right within a factor of about three.

    Attributes:
        seconds: of a product after the first, with the tensors of all batches saved.
        kept: bytes of these tensors: about those of all values that the network computes and of the
            batches. What the rounds of a loop save is not counted.
    """

    seconds: float
    kept: int

    def findings(self, budget: int) -> list[Finding]:
        """What a user should know where products take long, or more than may be saved."""
        exceeds = self.kept > budget
        if self.seconds < LONG_SECONDS and not exceeds:
            return []
        remedy = "take fewer examples, or layers by variables=, if that is too long"
        if exceeds:
            remedy = f"what exceeds the budget of {mebibytes(budget)} is computed anew"
        return [Finding("note", "products", str(self), remedy=remedy)]

    def __str__(self) -> str:
        return (
            f"a product is expected to take about {self.seconds:.0e} s, and to save about "
            f"{self.kept / 2**20:.0f} MiB"
        )


def forecast(snapshot: Snapshot) -> Forecast:
    """The forecast, from one evaluation of the first batch."""
    programs, batch = next(snapshot.pieces(penalty=False))
    programs.evaluate_at(snapshot.values, batch)  # compiles
    begun = time.perf_counter()
    programs.evaluate_at(snapshot.values, batch)
    seconds = time.perf_counter() - begun
    loss = programs.loss
    count = len(snapshot.values)
    params, tensors = loss.inputs[:count], loss.inputs[count:]
    computed = loss.reach(params) - set(params)
    kept = loss.nbytes([*computed, *tensors])
    num_batches = snapshot.traced_loss.num_batches
    return Forecast(EVALUATIONS * seconds * num_batches, kept * num_batches)

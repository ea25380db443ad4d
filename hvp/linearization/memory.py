"""The memory that the products of a linearization take and save."""

from __future__ import annotations

from dataclasses import dataclass

from hvp.errors import Finding


@dataclass(frozen=True)
class Memory:
    """The memory of the products made so far, in bytes.

    Attributes:
        budget: the most that may be saved between products, for all layers together.
        kept: what is saved now.
        kept_batches: how many batches have their tensors saved, counted for each product.
        batches: how many batches there are, counted likewise.
        product: the most that one product takes, without saved tensors, vector and result. Small
            batches that run in one call may take 16 MiB together.
    """

    budget: int
    kept: int
    kept_batches: int
    batches: int
    product: int

    @property
    def findings(self) -> list[Finding]:
        """What a user should know where not all tensors are saved."""
        if self.kept_batches == self.batches:
            return []
        message = (
            f"the tensors of {self.kept_batches} of {self.batches} batches are saved for later "
            f"products, {mebibytes(self.kept)} of a budget of {mebibytes(self.budget)}; those of "
            f"the others are computed anew. A product takes {mebibytes(self.product)} without its "
            "vectors"
        )
        return [Finding("note", "memory", message, remedy="raise cache= if memory allows")]


def mebibytes(size: float) -> str:
    """A number of bytes in MiB."""
    return f"{size / 2**20:.1f} MiB"

"""Which batches of a loss one process holds, where several hold them together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """The batches that are here, of all that the loss is a sum over.

    A part does not know what the terms of the loss are divided by, nor the loss: they follow from
    the sums of all parts, and `TracedLoss.divisors` is to be set before the first product.

    Attributes:
        first: the number of batches before these.
        num_batches: the number of all; None where all are here.
        has_penalty: whether the penalty on the weights is added here.
    """

    first: int = 0
    num_batches: int | None = None
    has_penalty: bool = True

    @property
    def is_part(self) -> bool:
        """Whether other processes hold batches too."""
        return self.num_batches is not None

    def total(self, here: int) -> int:
        """The number of all batches, of which so many are `here`."""
        return here if self.num_batches is None else self.num_batches

    def place(self, number: int, here: int) -> str:
        """A term of the loss in words, counted from 1: one of the batches `here`, or after them."""
        is_batch = number <= here
        return f"batch {number + self.first} of {self.total(here)}" if is_batch else "the penalty"


WHOLE = Share()

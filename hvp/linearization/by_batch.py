"""What each batch adds to a product: quadratic forms by batch, and which batch gives NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hvp.errors import NotFiniteError
from hvp.linearization import transfer
from hvp.linearization.batch_sum import BatchSum
from hvp.linearization.products import Product, Space
from hvp.linearization.refusals import refusals_as_input_errors
from hvp.linearization.share import WHOLE, Share
from hvp.sampling_error import BatchForms, BatchGrams

# A function of the share AV of a batch and of V, both of shape (P, k).
Reduction = Callable[[np.ndarray, np.ndarray], np.ndarray]


def not_finite(product: Product, source: str) -> NotFiniteError:
    """The error of a product with NaN or infinity, which `source` gives."""
    return NotFiniteError(
        f"finite products with {product.name}",
        f"NaN or infinity{f' from {source}' if source else ''}",
        "the loss has no second derivative there, or its numbers overflow: change the parameters, "
        "the data or the operation, and mask NaN in the data before they are computed with",
    )


@dataclass(frozen=True, eq=False)
class ByBatch:
    """Products with the share of each of B batches in a matrix, instead of with their sum.

    Attributes:
        batch_sum: gives the linear map of each batch.
        examples: (B,) how many examples each batch holds.
        share: which of all batches these are.
    """

    batch_sum: BatchSum
    examples: np.ndarray
    share: Share = WHOLE

    @refusals_as_input_errors
    def forms(self, product: Product, V: np.ndarray) -> BatchForms:
        """vᵀAv for each batch's share A and each column v of a block V (P, K)."""

        def forms(AV: np.ndarray, V: np.ndarray) -> np.ndarray:
            return np.einsum("pk,pk->k", AV, V, dtype=np.float64)

        found = np.concatenate(self._reduce(product, V, forms), axis=1)
        self._require_finite(product, V, found)
        shares, penalty = np.split(found, [len(self.examples)])
        return BatchForms(shares, penalty.sum(axis=0), self.examples)

    @refusals_as_input_errors
    def grams(self, product: Product, V: np.ndarray) -> BatchGrams:
        """VᵀAV for each batch's share A, with a block V (P, K)."""

        def grams(AV: np.ndarray, _: np.ndarray) -> np.ndarray:
            return (V.T @ AV).astype(np.float64)

        found = np.concatenate(self._reduce(product, V, grams), axis=2)
        self._require_finite(product, V, found)
        found = (found + found.transpose(0, 2, 1)) / 2
        shares, penalty = np.split(found, [len(self.examples)])
        return BatchGrams(shares, penalty.sum(axis=0), self.examples)

    @refusals_as_input_errors
    def source_of_nan(self, product: Product, V: np.ndarray) -> str:
        """The first batch, counted from 1, and operation that give NaN or infinity in AV."""
        if product.domain is Space.OUTPUTS:
            return ""
        num_batches = len(self.examples)
        with transfer.TransferBuffers().lend(list(V.T)) as lent:
            terms = zip(self.batch_sum.terms(product), self.batch_sum.inputs(product), strict=True)
            for number, ((linear_map, saved), inputs) in enumerate(terms, 1):
                for column, _ in lent:
                    if np.isfinite(linear_map.multiply(column, saved).numpy()).all():
                        continue
                    term = self.share.place(number, num_batches)
                    operation = linear_map.source_of_nan(column, inputs)
                    return f"{operation}, in {term}" if operation else term
        return ""

    def _require_finite(self, product: Product, V: np.ndarray, found: np.ndarray) -> None:
        if not np.isfinite(found).all():
            raise not_finite(product, self.source_of_nan(product, V))

    def _reduce(self, product: Product, V: np.ndarray, reduce: Reduction) -> list[np.ndarray]:
        """For each part of the columns of V: `reduce` of all batches (and the penalty), stacked."""
        if V.shape[1] == 0:
            return [np.zeros((len(self.examples), *reduce(V, V).shape))]
        parts = self._parts(product, V)

        def by_term(group: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
            with transfer.TransferBuffers().lend(group) as lent:
                for linear_map, saved in self.batch_sum.terms(product):
                    yield [
                        reduce(
                            transfer.as_columns(linear_map.multiply(part, saved)),
                            transfer.as_columns(buffer),
                        )
                        for part, buffer in lent
                    ]
                    del saved  # before the next batch is read

        found = []
        for group in transfer.group_by_call(parts, saved=self.batch_sum.keeps(product)):
            found += [np.stack(each) for each in zip(*by_term(group), strict=True)]
        return found

    def _parts(self, product: Product, V: np.ndarray) -> list[np.ndarray]:
        """V in blocks as wide as were multiplied before, so that none is traced; the rest one by
        one."""
        width = self.batch_sum.widest(product)
        stop = V.shape[1] - V.shape[1] % width if width > 1 else 0
        blocks = [V[:, start : start + width] for start in range(0, stop, width)]
        return [*blocks, *transfer.columns(V[:, stop:])]

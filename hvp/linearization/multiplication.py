"""Products with NumPy arrays: cut into parts, multiplied, checked, and put together again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from hvp.linearization import transfer
from hvp.linearization.batch_sum import BatchSum
from hvp.linearization.by_batch import ByBatch, not_finite
from hvp.linearization.products import Product, Space
from hvp.linearization.refusals import refusals_as_input_errors
from hvp.linearization.traced_loss import TracedLoss
from hvp.objective.parameters import Layout
from hvp.operators import Cost

# Products of a block that take less are measured over all batches.
SHORT_SECONDS = 1.0
# The first saves the tensors of all batches, the second may join the batches.
PRODUCTS_TO_PREPARE = 2


class Multiplication:
    """The products of a loss with vectors and blocks of vectors.

    Attributes:
        by_batch: products with the share of each batch.
    """

    def __init__(self, batch_sum: BatchSum, traced_loss: TracedLoss, layout: Layout):
        self._sums, self._traced_loss, self._dtype = batch_sum, traced_loss, layout.dtype
        self._dimensions = {Space.PARAMETERS: layout.size, Space.OUTPUTS: traced_loss.num_outputs}
        self._buffers = transfer.TransferBuffers()
        self.by_batch = ByBatch(batch_sum, traced_loss.examples, traced_loss.share)

    def multiply(self, product: Product, v: ArrayLike) -> np.ndarray:
        """The product with a vector (n,) or a block (n, K), n being the dimension of its domain."""
        if product.needs_outputs:
            self._traced_loss.require_outputs()
        array = transfer.check_array(v, self._dimensions[product.domain], self._dtype)
        if array.ndim == 1:
            return self._in_one_call(product, [array])[0]
        count = array.shape[1]
        if count == 0:
            rows = self._dimensions[product.codomain] * product.count
            return np.empty((rows, 0), self._dtype)
        parts = transfer.partition(array, self._width(product, count))
        groups = transfer.group_by_call(parts, saved=self._sums.keeps(product))
        return transfer.concatenate((self._in_one_call(product, group) for group in groups), count)

    @refusals_as_input_errors
    def cost(self, product: Product, count: int) -> Cost:
        """What products with a vector and with blocks of `count` vectors cost, measured."""
        cost = replace(self._sums.cost(product, count), size=self._dimensions[Space.PARAMETERS])
        if cost.first + count * cost.alone > SHORT_SECONDS:
            return cost
        block = np.zeros((self._dimensions[product.domain], count), self._dtype)
        alone, in_block = (self._seconds(product, v) for v in (block[:, 0], block))
        return replace(cost, alone=alone, in_block=in_block / count)

    @refusals_as_input_errors
    def prepare(self, product: Product, columns: Iterable[int]) -> None:
        """Trace, compile and choose all that later products with so many columns run."""
        if product.needs_outputs:
            self._traced_loss.require_outputs()
        self._sums.prepare(product)
        for count in columns:
            shape = (self._dimensions[product.domain], count)
            block = np.zeros(shape if count > 1 else shape[:1], self._dtype)
            for _ in range(PRODUCTS_TO_PREPARE):
                self.multiply(product, block)

    def _seconds(self, product: Product, v: np.ndarray) -> float:
        """Seconds of a product, after a first."""
        self.multiply(product, v)
        begun = time.perf_counter()
        self.multiply(product, v)
        return time.perf_counter() - begun

    @refusals_as_input_errors
    def _width(self, product: Product, count: int) -> int:
        """How many of `count` columns to multiply at once."""
        return self._sums.width(product, count) if count > 1 else 1

    @refusals_as_input_errors
    def _in_one_call(self, product: Product, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The products with several vectors or blocks. Raises NotFiniteError for NaN in them."""
        with self._buffers.lend(parts) as lent:
            results = self._sums.multiply(product, [tensor for tensor, _ in lent])
            arrays = [
                transfer.shared(result, apart_from=buffer)
                for result, (_, buffer) in zip(results, lent, strict=True)
            ]
        if not all(map(transfer.is_finite, arrays)):
            columns = np.concatenate([transfer.as_columns(part) for part in parts], axis=1)
            raise not_finite(product, self.by_batch.source_of_nan(product, columns))
        return arrays

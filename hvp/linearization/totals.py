"""What reading all batches once gives: sums of the loss, counts, and the digest of the data."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff.program import leaves
from hvp.errors import InputError
from hvp.objective.batches import as_array, content
from hvp.objective.objective import Evaluation

# The fewest examples among which an effect of one on another is looked for, if there are so many.
SAMPLE_SIZE = 8


class Totals:
    """Sums over the batches of a data set, each batch added once.

    Attributes:
        examples: the number of examples of each batch.
        num_outputs: M, the entries of the outputs.
        separable: whether the loss of each batch is a sum over its examples.
        sample: a batch to test whether the loss is a sum over examples: the first whose loss is
            not zero, of at least `SAMPLE_SIZE` examples; smaller ones are joined.
    """

    def __init__(self) -> None:
        self.examples: list[int] = []
        self.num_outputs = 0
        self.separable = True
        self.sample: Any = None
        self._has_telling_sample = False
        self._terms: list[Any] = []
        self._divisors: list[Any] = []
        self._hits = 0.0
        self._digest = DataDigest()

    def add(self, batch: Any, evaluation: Evaluation, num_outputs: int) -> None:
        """Add a batch, a nest of tensors."""
        tensors = leaves(batch)
        self._terms = _plus(self._terms, evaluation.totals)
        self._divisors = _plus(self._divisors, evaluation.divisors)
        self._hits += np.nan if evaluation.hits is None else float(evaluation.hits)
        self._keep_sample(batch, evaluation)
        self.separable &= bool(evaluation.separable)
        self.examples.append(_rows(batch))
        self.num_outputs += num_outputs
        self._digest.add(tensors)

    def _keep_sample(self, batch: Any, evaluation: Evaluation) -> None:
        if self._has_telling_sample:
            return
        self.sample = _joined(self.sample, batch)
        is_large = _rows(self.sample) >= SAMPLE_SIZE
        self._has_telling_sample = is_large and any(float(t) != 0 for t in evaluation.totals)

    def without_data(self) -> Totals:
        """The sums alone, to be sent to another process; there is no digest of them."""
        found = copy.copy(self)
        found.sample, found._digest = None, DataDigest()
        return found

    def plus(self, following: Totals) -> Totals:
        """The sums over these batches and those of another process that follow, without data."""
        found = self.without_data()
        found.examples = [*self.examples, *following.examples]
        found.num_outputs += following.num_outputs
        found.separable &= following.separable
        found._terms = _plus(self._terms, following._terms)
        found._divisors = _plus(self._divisors, following._divisors)
        found._hits += following._hits
        return found

    def require_divisors(self, divisors: Sequence[float]) -> None:
        """Raise InputError where the terms of the loss are divided by other numbers."""
        if not np.allclose(self.divisors, divisors, rtol=1e-6):
            raise InputError(
                "a loss that is divided by the same number at every point",
                f"{self.divisors} after {list(divisors)}",
                "linearise it anew at this point",
            )

    @property
    def num_batches(self) -> int:
        return len(self.examples)

    @property
    def num_examples(self) -> int:
        return sum(self.examples)

    @property
    def divisors(self) -> list[float]:
        """What each term of the loss is divided by. Raises InputError where one is not positive."""
        divisors = [1.0 if divisor is None else divisor for divisor in self._divisors]
        if not all(divisor > 0 for divisor in divisors):
            raise InputError(
                "weights and masks with a positive sum", min(divisors), "check the data"
            )
        return divisors

    @property
    def loss(self) -> float:
        """The sum of the terms, each divided."""
        return sum(term / divisor for term, divisor in zip(self._terms, self.divisors, strict=True))

    @property
    def accuracy(self) -> float | None:
        """The share of examples whose class is right, None without classes."""
        return None if np.isnan(self._hits) else self._hits / self.num_examples

    @property
    def digest(self) -> str:
        """SHA-256 of the data, whatever the batches."""
        return self._digest.value


class DataDigest:
    """SHA-256 of the tensors of batches, whatever the batches: that of each tensor, together."""

    def __init__(self) -> None:
        self._digests: list[Any] = []

    def add(self, tensors: Sequence[Any]) -> None:
        """Add the tensors of the next batch."""
        self._digests = self._digests or [hashlib.sha256() for _ in tensors]
        for digest, tensor in zip(self._digests, tensors, strict=True):
            digest.update(content(as_array(tensor)))

    @property
    def value(self) -> str:
        """The digest, in hexadecimal digits."""
        joined = b"".join(digest.digest() for digest in self._digests)
        return hashlib.sha256(joined).hexdigest()


def _rows(batch: Any) -> int:
    """The number of examples of a batch; without data one."""
    tensors = leaves(batch)
    return int(tensors[0].shape[0]) if tensors else 1


def _joined(first: Any, second: Any) -> Any:
    """Two batches as one; the second alone where the first is large, or of other shapes."""
    pairs = list(zip(leaves(first), leaves(second), strict=False))
    has_other_shapes = any(a.shape[1:] != b.shape[1:] for a, b in pairs)
    if not pairs or has_other_shapes or _rows(first) >= SAMPLE_SIZE:
        return second
    return tf.nest.map_structure(
        lambda a, b: None if a is None else tf.concat([a, b], 0), first, second
    )


def _plus(sums: list[Any], found: Sequence[tf.Tensor | float | None]) -> list[Any]:
    """The sums plus the new numbers; a sum of None stays None."""
    numbers = [None if number is None else float(number) for number in found]
    if not sums:
        return numbers
    return [None if b is None else a + b for a, b in zip(sums, numbers, strict=True)]

"""What is traced and compiled for a loss, for all its points and layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from hvp.linearization.evaluation import Key
from hvp.linearization.products import Product, sampled_fisher
from hvp.linearization.traced_loss import TracedLoss
from hvp.linearization.traced_products import TracedProducts


class Traces:
    """The products and functions of a loss, each traced at its first use.

    Attributes:
        functions: see `Evaluator`.
    """

    def __init__(self, traced_loss: TracedLoss, *, ad: str, jit: str | bool):
        self._traced_loss, self._ad, self._jit = traced_loss, ad, jit
        self._products: dict[tuple[int, ...], TracedProducts] = {}
        self._draws: dict[tuple[int, int], Product] = {}
        self.functions: dict[Key, Callable[..., list[tf.Tensor]]] = {}

    def products(self, chosen: Sequence[int]) -> TracedProducts:
        """The products over these parameters."""
        made = TracedProducts(self._traced_loss, chosen, ad=self._ad, jit=self._jit)
        return self._products.setdefault(tuple(chosen), made)

    def sampled_fisher(self, num_samples: int, seed: int) -> Product:
        """The Fisher matrix by draws: the same product for the same draws."""
        draws = num_samples, seed
        return self._draws.setdefault(draws, sampled_fisher(*draws))

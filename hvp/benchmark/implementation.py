"""The interface of an implementation: it loads a case and computes figures in several forms.

A figure is a product or another quantity that is timed. A form is one of the implementation's ways
to compute it, such as "graph" or "XLA".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Call = Callable[[np.ndarray], np.ndarray]
# Form -> the function that builds it. Building counts in the time to the first product.
Forms = dict[str, Callable[[], Call]]

PRODUCTS = ("hvp", "gnvp")
BLOCKS = ("hvp_block", "gnvp_block")
COLUMNS = 16


class Case(Protocol):
    """A loss whose products are measured; processes send it to each other by pickle.

    Attributes:
        name: its name in the results.
        title: its name in the tables.
        batch: the number of examples, None before they are read.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def batch(self) -> int | None: ...


class Implementation(ABC):
    """A case with its weights and data in one framework.

    A call maps a NumPy vector to a NumPy vector, both in the layout of the framework. `to_own` and
    `to_shared` convert between this layout and Keras's; they are not timed.

    Attributes:
        size: P, the number of parameters.
        num_examples: N, the number of examples.
        matrix_shape: rows, inner and columns of the products that the figure "matmul" times.
    """

    size: int
    num_examples: int
    matrix_shape: tuple[int, int, int] = (1, 1, 1)

    @abstractmethod
    def __init__(self, case: Any): ...

    @abstractmethod
    def forms(self, figure: str) -> Forms:
        """The forms of a figure; the fastest counts. Empty where the figure is not available.

        The call of a gradient ignores its vector.
        """

    def other_forms(self, figure: str) -> Forms:
        """Forms that are tried where all of `forms` fail."""
        return {}

    def work(self, form: str) -> float:
        """The multiply-adds of a form if forms differ in them, else 1.

        The fastest form is the one with the most multiply-adds per second.
        """
        return 1.0

    def counted(self, figure: str) -> tuple[int | None, tuple[int, int, int]]:
        """The multiply-adds that depend on the vector, None where they are unknown.

        Also rows, inner and columns of the largest matrix product among them.
        """
        raise NotImplementedError

    def certified(self) -> str:
        """An empty string where products agree with differences, else which do not."""
        raise NotImplementedError

    def to_own(self, v: np.ndarray) -> np.ndarray:
        """A vector (P,) or block (P, K) from Keras's layout to that of the framework."""
        return v

    def to_shared(self, v: np.ndarray) -> np.ndarray:
        """A vector (P,) or block (P, K) from the layout of the framework to Keras's."""
        return v


def vectors(size: int, columns: int, seed: int = 0) -> np.ndarray:
    """The vectors of the products: (P,) for one column, (P, K) for K."""
    rng = np.random.default_rng([seed, 2])
    shape = (size,) if columns == 1 else (size, columns)
    return rng.standard_normal(shape, dtype=np.float32)
